"""The commands of docs/operations.md, for the tests that run them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_CODE = re.compile(r"# ends with (\d+)$")


@dataclass(frozen=True)
class Command:
    """One line of the page.

    Attributes:
        line: As it stands there.
        words: What a shell makes of it, without the comment; patterns are not expanded.
        code: The exit code that the page says; 0 where it says nothing.
    """

    line: str
    words: tuple[str, ...]
    code: int


def commands() -> list[Command]:
    """List every command of the page, in its order."""
    lines = [line for block in _BLOCK.findall(PAGE.read_text("utf-8")) for line in block.splitlines()]
    return [
        Command(line, tuple(shlex.split(line, comments=True)), int(code[1]) if (code := _CODE.search(line)) else 0)
        for line in lines
    ]


def commands_of(program: str) -> list[Command]:
    """List those of one program, such as ``airflow``."""
    return [command for command in commands() if command.words[0] == program]
