"""Make golden files of the format of today: ``python -m tests.golden.make tests/golden/NAME``.

Once released they are never made again: that later readers open what this version wrote is the whole point.
"""

import shutil
import sys
from pathlib import Path

from artifacts.layout import RootLayout
from artifacts.release import read_record, write_record
from export.source import sources_from_factory
from export.write import export
from nightrec.main import execute
from release.pointer import follow
from tests.golden.shop import CONFIG, write_data

DATE = "2026-03-30"


def make(folder: Path) -> None:
    """Write data, bundles, config and one release into *folder*."""
    write_data(folder / "data")
    export(sources_from_factory("tests.golden.shop:sources"), folder / "bundles")
    (folder / "job.toml").write_text(CONFIG)
    if code := execute(["run", "--config", str(folder / "job.toml"), "--date", DATE]):
        raise SystemExit(code)
    shutil.rmtree(RootLayout(folder / "store").runs)
    record = follow(folder / "store").layout.record
    listed = read_record(record)
    if listed.pop(record.report.name, None):  # a page of a megabyte, which nobody reads back
        record.report.unlink()
        write_record(record, {}, listed=listed)
    for left in folder.rglob(".*"):
        left.unlink()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
