"""The generated tables of docs/quality.md, from values made by hand."""

from pathlib import Path

import pytest

from benchmarks.quality import report

FOUND = {
    "ml100k": {
        "retrieval": {
            "popular": {"all.hr@50": [0.5, 0.0], "new.hr@50": [0.625, 0.0], "all.ndcg@10": [0.1, 0.0]},
            "mind": {"all.hr@50": [0.25, 0.01], "new.hr@50": [0.75, 0.02], "all.ndcg@10": [0.2, 0.0]},
        },
        "chain": {"retrieve": {"all.ndcg@10": [0.2, 0.0]}, "retrieve_rank": {"all.ndcg@10": [0.3, 0.004]}},
    }
}


def test_a_table_shows_means_and_deviations_and_the_best_in_bold() -> None:
    lines = report.tables(FOUND, "on a day").splitlines()
    at = lines.index("### MovieLens-100K")
    assert lines[at + 2 : at + 6] == [
        "| retrieval | new.hr@50 | all.hr@50 | all.ndcg@10 |",
        "|---|---|---|---|",
        "| MIND, up to 4 interests | **0.750 ± 0.020** | 0.250 ± 0.010 | **0.200** |",
        "| most popular of some days | 0.625 | **0.500** | 0.100 |",
    ]


def test_the_chain_stands_beside_the_floors_of_retrieval() -> None:
    lines = report.tables(FOUND, "on a day").splitlines()
    at = lines.index("| what is published | all.ndcg@10 |")
    assert lines[at + 2 : at + 5] == [
        "| most popular of some days | 0.100 |",
        "| retrieval (MIND) | 0.200 |",
        "| retrieval, then BST | **0.300 ± 0.004** |",
    ]


def test_rows_without_a_metric_have_an_empty_cell_and_no_rivals_no_bold() -> None:
    cold = {"new items": {"share": [0.25, 0.0], "above": [0.625, 0.0]}, "by chance": {"above": [0.5, 0.0]}}
    assert report.table("cold", cold) == [
        "| of whom or what nothing is known | share | above |",
        "|---|---|---|",
        "| new items | 0.250 | 0.625 |",
        "| by chance |  | 0.500 |",
    ]


def test_what_was_tried_stands_beside_each_other_with_the_best_in_bold() -> None:
    chosen = {"epoch": 3, "epochs": 8, "new.hr@50": 0.5, "all.hr@50": 0.25}
    better = {"epoch": 8, "epochs": 8, "new.hr@50": 0.5, "all.hr@50": 0.5}
    lines = report.searched({"mind": {"chosen": chosen, "width 32": better}, "torch_rechub": {"chosen": chosen}})
    assert "2 of MIND, up to 4 interests, 1 of torch-rechub's MIND" in lines[0]
    assert lines[2:] == [
        "| tried | MIND, up to 4 interests | torch-rechub's MIND |",
        "|---|---|---|",
        "| chosen | 0.500 / 0.250, 3 | **0.500 / 0.250, 3** |",
        "| width 32 | **0.500 / 0.500, 8** |  |",
    ]


def test_what_lies_around_the_tables_stays_and_old_tables_go(tmp_path: Path) -> None:
    page = tmp_path / "quality.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write(page, FOUND, "2026-11-26, commit 1a2b3c, by `make quality`")
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "Measured 2026-11-26, commit 1a2b3c, by `make quality`" in text
    report.write(page, FOUND, "2026-11-26, commit 1a2b3c, by `make quality`")
    assert page.read_text() == text


def test_a_page_without_the_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "quality.md"
    page.write_text("nothing\n")
    with pytest.raises(SystemExit, match="expected the two marks"):
        report.write(page, FOUND, "on a day")
