"""The code blocks of README.md and of docs/: what each is, which test runs it, or why none does.

A block of ``sh`` or ``python`` is marked by a comment, in the line before it, or once for all that follow::

    <!-- run: tests/night/test_operations.py -->      this test runs it, in the order of the page
    <!-- shown: it needs Docker -->                   no test does, for this reason

Within a block, ``# ends with 5`` names an exit code that is not 0, and ``# shown: REASON`` a line that no test runs.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RUNS = {  # by each test: the programs whose commands it takes from the pages that name it
    "tests/airflow/test_on_call.py": {"airflow"},
    "tests/docs/test_tutorial.py": {"nightrec", "python"},
    "tests/examples/test_own.py": {"cp", "nightrec", "python"},
    "tests/night/test_operations.py": {"nightrec", "rm"},
    "tests/nightrec/test_trend.py": {"nightrec", "promtool"},
    "tests/nightrec/test_report.py": {"nightrec"},
    "tests/release/test_page.py": {"nightrec", "python"},
}
_PIECE = re.compile(
    r"^<!-- (?P<mark>run|shown): (?P<says>.*?) -->\n(?P<next>(?=```))?|^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_CODE = re.compile(r"# ends with (\d+)$")
_NAME = re.compile(r"[Ss]ave this as `([\w.]+)`")
_SHOWN = re.compile(r"# shown: \S")


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Attributes:
        page: The page, from the root.
        line: The line of the page in which it begins.
        language: What stands behind its fence.
        text: What stands in it.
        mark: ``run``, ``shown`` or nothing.
        says: By which tests, with commas; or why not.
        name: The file that the text before it tells to save it as; or nothing.
    """

    page: str
    line: int
    language: str
    text: str
    mark: str
    says: str
    name: str

    @property
    def tests(self) -> list[str]:
        """The tests that run it."""
        return self.says.split(", ") if self.mark == "run" else []


@dataclass(frozen=True)
class Command:
    """One command of a block of ``sh``.

    Attributes:
        line: As it stands there; lines that end with a backslash are one with the next.
        words: What a shell makes of it, without the comment; patterns are not expanded.
        code: The exit code that the page says; 0 where it says nothing.
        shown: Whether the page says why no test runs it.
    """

    line: str
    words: tuple[str, ...]
    code: int
    shown: bool


def blocks_of(page: Path) -> list[Block]:
    """List the blocks of a page, in its order."""
    text = page.read_text("utf-8")
    blocks: list[Block] = []
    for_all = for_next = ("", "")
    before = 0
    for found in _PIECE.finditer(text):
        if found["mark"]:
            for_next = found["mark"], found["says"]
            if found["next"] is None:
                for_all = for_next
        else:
            line = text.count("\n", 0, found.start()) + 1
            name = (_NAME.findall(text[before : found.start()]) or [""])[-1]
            page_name = str(page.relative_to(ROOT))
            blocks.append(Block(page_name, line, found["language"], found["text"], *for_next, name))
            for_next, before = for_all, found.end()
    return blocks


def commands_in(block: Block) -> list[Command]:
    """List the commands of a block of ``sh``."""
    lines = re.sub(r" *\\\n *", " ", block.text).splitlines()
    return [
        Command(line, words, int(code[1]) if (code := _CODE.search(line)) else 0, bool(_SHOWN.search(line)))
        for line in lines
        if (words := tuple(shlex.split(line, comments=True)))
    ]


def blocks_for(test: str) -> list[Block]:
    """List the blocks that the test in the file *test* has to run, in the order of the pages that name it."""
    name = str(Path(test).relative_to(ROOT))
    return [block for page in PAGES for block in blocks_of(page) if name in block.tests]


def commands_of(test: str) -> list[Command]:
    """List the commands of these blocks that are of the test's own programs."""
    programs = RUNS[str(Path(test).relative_to(ROOT))]
    commands = [command for block in blocks_for(test) if block.language == "sh" for command in commands_in(block)]
    return [command for command in commands if command.words[0] in programs and not command.shown]
