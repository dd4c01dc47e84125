"""Read a Dockerfile: its stages and instructions, for what is made or tested from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        keyword: In upper case, such as ``RUN``.
        text: All after it, lines that go on joined by a space.
    """

    keyword: str
    text: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: what it is built on (an image or an earlier stage) and its instructions after ``FROM``."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]


def read(path: Path) -> list[Instruction]:
    """Read the instructions of the Dockerfile at *path*; here-documents are not known."""
    lines = [
        line for line in path.read_text("utf-8").splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        Instruction(keyword.upper(), " ".join(text.split()))
        for keyword, _, text in (line.strip().partition(" ") for line in joined.splitlines())
    ]


def argument(instructions: Sequence[Instruction], name: str) -> str:
    """Find the default of the build argument *name*."""
    for instruction in instructions:
        if instruction.keyword == "ARG" and instruction.text.startswith(f"{name}="):
            return instruction.text.removeprefix(f"{name}=")
    raise KeyError(f"the Dockerfile has no ARG {name} with a default")


def stages(instructions: Sequence[Instruction]) -> dict[str, Stage]:
    """Split *instructions* into stages by their names, in the file's order; each stage must have a name."""
    found: dict[str, Stage] = {}
    for instruction in instructions:
        if instruction.keyword == "FROM":
            base, _, name = instruction.text.partition(" AS ")
            found[name] = Stage(name, base, ())
        elif found:
            last = found[next(reversed(found))]
            found[last.name] = Stage(last.name, last.base, (*last.instructions, instruction))
    return found
