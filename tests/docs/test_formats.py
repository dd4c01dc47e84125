"""docs/formats.md: what it says of the tables is what their schemas and the golden files are."""

import hashlib
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from artifacts import schemas
from tests.blocks import ROOT, blocks_of

PAGE = (ROOT / "docs" / "formats.md").read_text("utf-8")
GOLDEN = ROOT / "tests" / "golden" / "v1"
ID = pa.string()
PUBLISHED = {
    "scores": schemas.scores(ID, ID),
    "interests": schemas.interests(ID, 8),
    "items": schemas.items(ID, 8),
    "index": schemas.index_items(ID),
}
WORDS = {"string": "id", "bool": "`bool`", "int32": "`int32`", "uint8": "`uint8`", "uint16": "`uint16`"}
PREPARED = {
    "catalogue": schemas.catalogue(ID, ["NAME"], ["NAME"]),
    "histories": schemas.histories(ID, ["NAME"], ["NAME"]),
    "seen": schemas.seen(ID),
    "popular": schemas.popular(ID),
    "happened": schemas.happened(ID),
}


def test_the_reader_on_the_page_is_the_one_that_is_tested() -> None:
    """Line for line."""
    (block,) = (block for block in blocks_of(ROOT / "docs" / "formats.md") if block.language == "python")

    assert block.text == (ROOT / "examples" / "plain_reader.py").read_text("utf-8")


@pytest.mark.parametrize("table", PUBLISHED)
def test_each_column_of_a_release_stands_there_with_its_type(table: str) -> None:
    """In the order of the schema, and null only where the schema allows it."""
    section = PAGE.partition(f"\n### {table}\n")[2].partition("\n#")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:3]] for row in section.splitlines() if row.startswith("| `")]

    assert [name for name, _ in rows] == [f"`{field.name}`" for field in PUBLISHED[table]]
    for (_, told), field in zip(rows, PUBLISHED[table], strict=True):
        assert ("null" in told) == field.nullable
        assert WORDS.get(str(field.type), "float32") in told


@pytest.mark.parametrize("table", PREPARED)
def test_each_column_of_a_run_stands_there(table: str) -> None:
    """All, and no other."""
    (row,) = re.findall(rf"^\| `{table}` \| (.*) \|$", PAGE, re.MULTILINE)
    names = [name for name in re.findall(r"`(\w+)`", row) if name != "NAME"]

    assert names == PREPARED[table].names


@pytest.mark.parametrize(
    "path", [path for path in sorted(GOLDEN.rglob("*.json")) if "digest" in json.loads(path.read_bytes())]
)
def test_a_sealed_document_is_sealed_as_the_page_says(path: Path) -> None:
    """Its digest is that of the rest in the one form, written here from the page alone."""
    document = json.loads(path.read_bytes())
    digest = document.pop("digest")
    text = json.dumps(document, sort_keys=True, indent=2, separators=(",", ": "), ensure_ascii=False) + "\n"

    assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_the_shard_of_a_user_is_what_the_page_says() -> None:
    """Each user of the golden release lies in the shard that MD5 of the id gives."""
    found = {}
    for path in GOLDEN.glob("store/releases/*/scores/*.arrow"):
        shard = int(path.name[:5])
        found |= dict.fromkeys(pa.ipc.open_file(path).read_all()["user_id"].to_pylist(), shard)

    assert len(found) == 8
    assert found == {user: hashed(str(user)) % 2 for user in found}


def hashed(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode()).digest()[:8], "little")
