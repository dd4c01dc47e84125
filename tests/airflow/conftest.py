"""One Airflow for all nights, the nights that run in it at the same time, and the table of what they proved."""

import json
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

pytest.register_assert_rewrite(*(f"tests.airflow.{name}" for name in ("deaths", "refusals", "server", "triggers")))

from tests.airflow import deaths, refusals, triggers  # noqa: E402
from tests.airflow.server import ENDING, REPOSITORY, Airflow  # noqa: E402
from tests.airflow.surfaces import Stage, ordinary_night, settings, write_surfaces  # noqa: E402
from tests.airflow.webhook import Webhook  # noqa: E402
from tests.night.shop import DATE, NIGHTREC, Shop, write_bundles, write_data  # noqa: E402

Night = Callable[[Stage], None]
NIGHTS: dict[Night, str] = {  # each with the key of what it proves; the longest first
    triggers.backfill: "triggers",
    triggers.double_trigger: "triggers",
    deaths.zombie: "zombie",
    triggers.whole_night: "whole_night",
    refusals.bad_catalogue: "bad_night",
    triggers.late_day: "triggers",
    deaths.killed_task: "killed_task",
    deaths.cleared_task: "cleared_task",
    deaths.drained_node: "drained_node",
    refusals.missing_day: "bad_night",
    refusals.model_of_the_future: "triggers",
}
AT_ONCE = 3
FOLDER = REPOSITORY / "build" / "airflow"  # data, roots, and the home with all logs, until the next time
RESULTS = REPOSITORY / "build" / "airflow.json"
Proofs = dict[str, tuple[str, str, bool | str]]  # id of a test: key, what it proves, whether it did
PROOFS = pytest.StashKey[Proofs]()
FIGURES = pytest.StashKey[dict[str, Any]]()


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """Start Airflow on surfaces that were made beforehand; in the end nothing of it is left running."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that all is ended then, too
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    shop = Shop(FOLDER / "shop")
    write_data(shop.data)
    ordinary = write_surfaces(shop, FOLDER)
    webhook = Webhook()
    airflow = Airflow(FOLDER / "home", REPOSITORY / "dags", settings(FOLDER, NIGHTREC))
    try:
        with ThreadPoolExecutor(1) as beside:
            started = beside.submit(airflow.start)
            write_bundles(shop)
            wanted = ordinary_night(ordinary, FOLDER / "beside" / "ordinary" / "store", DATE)
        started.result()
        airflow.call("POST", "/api/v2/pools", {"name": "nightrec_gpu", "slots": 1})
        made = Stage(airflow, webhook, shop, FOLDER, wanted)
        made.tell(webhook.address)
        made.let_notes_be_written()
        yield made
    finally:
        airflow.stop()
        webhook.close()


@pytest.fixture(scope="session")
def nights(stage: Stage, request: pytest.FixtureRequest) -> Iterator[dict[Night, Future[None]]]:
    """Those of ``NIGHTS`` that tests ask for; some run at the same time."""
    asked = [item.callspec.params.get("night") for item in request.session.items if hasattr(item, "callspec")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            yield {night: pool.submit(night, stage) for night in NIGHTS if night in asked}
        finally:
            ENDING.set()
            pool.shutdown(cancel_futures=True)
            ENDING.clear()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note what is to be proved: what does not come to run has its reason, too."""
    proofs: Proofs = session.config.stash.setdefault(PROOFS, {})
    for item in session.items:
        if marker := item.get_closest_marker("proves"):
            proofs[item.nodeid] = (marker.args[0], marker.args[1], "did not run")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what a test has proved, or why it has not."""
    report = yield
    proofs = item.config.stash[PROOFS]
    if item.nodeid in proofs and (report.when == "call" or report.failed):
        key, says, _ = proofs[item.nodeid]
        reason = str(call.excinfo.value).strip().splitlines() if call.excinfo else []
        proofs[item.nodeid] = (key, says, report.passed or (reason or [report.longreprtext])[0])
        item.config.stash.setdefault(FIGURES, {}).update(report.user_properties)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, and write ``build/airflow.json``: true for each key, or why not."""
    proofs = config.stash.get(PROOFS, {})
    if not proofs or config.option.collectonly:
        return
    terminalreporter.section("what was proved under Airflow")
    answers: dict[str, Any] = dict.fromkeys(key for key, _, _ in proofs.values())
    for key, says, proved in proofs.values():
        terminalreporter.write_line(f"{'yes' if proved is True else 'NO ':4} {key:16} {says}")
        if proved is not True:
            terminalreporter.write_line(f"{'':21} {proved}")
            answers[key] = "; ".join(filter(None, [answers[key], str(proved)]))
    answers = {key: answer or True for key, answer in answers.items()} | config.stash.get(FIGURES, {})
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(answers, indent=2) + "\n")
