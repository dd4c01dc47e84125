"""What a report speaks of: a run with its verdict, and what came before it. A table is read when a section asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from artifacts.bundle import Bundle, Role
from artifacts.documents import read_json, read_sealed
from artifacts.layout import RunLayout
from artifacts.run import Run
from artifacts.store import is_there
from artifacts.tables import opening_arrow, verify_file
from release.evidence import (
    Catalogue,
    Lists,
    measure_lists,
    read_catalogue,
    scores_of_release,
    scores_of_run,
)
from release.history import Past
from release.pointer import Release
from release.verdicts import GateReport

ID_FEATURE = "item_id"
FIRST_KNOWN = 2  # vocabulary row: 0 is padding, 1 unknown
_MOST_VALUES = 10_000  # of a feature that people could call a category


@dataclass(frozen=True, slots=True)
class Category:
    """A side feature of items whose values people know.

    Attributes:
        feature: Its name.
        values: What its vocabulary rows from ``FIRST_KNOWN`` on are called.
    """

    feature: str
    values: tuple[str, ...]

    def name(self, row: int) -> str:
        """Name the value of a vocabulary row."""
        return self.values[row - FIRST_KNOWN] if FIRST_KNOWN <= row < FIRST_KNOWN + len(self.values) else "unknown"


@dataclass(frozen=True)
class Subject:
    """A night to report on.

    Attributes:
        run: The night.
        verdict: What the gates said of it.
        past: The releases of earlier dates that readers have had, newest first.
        version: What its release is called, or would be.
        bundles: Its models, verified.
        sample_users: How people are named: ``"none"``, ``"pseudonym"`` or ``"id"``.
    """

    run: Run
    verdict: GateReport
    past: tuple[Past, ...]
    version: str
    bundles: tuple[Bundle, ...]
    sample_users: str

    @property
    def last(self) -> Release | None:
        """The release that the night is compared with; None on a first night."""
        return self.past[0].release if self.past else None

    @property
    def ranked(self) -> bool:
        """Whether a ranker scored: scores are probabilities then."""
        return str(Role.RANKER) in self.run.bundles

    @property
    def layout(self) -> RunLayout:
        """Where the tables lie."""
        return self.run.layout

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """What ``index.json`` says."""
        verify_file(self.layout.index.parameters)
        return read_json(self.layout.index.parameters)

    @cached_property
    def timings(self) -> Mapping[str, list[dict[str, Any]]]:
        """What each step took, as far as it is known."""
        path = self.layout.timings
        said = read_sealed(path, version=1) if is_there(path) else {}
        return {step: entries for step, entries in said.items() if isinstance(entries, list)}

    @cached_property
    def catalogue(self) -> Catalogue:
        """Tonight's items."""
        return read_catalogue(self.run)

    @cached_property
    def lists(self) -> Lists:
        """Tonight's recommendations."""
        return measure_lists(scores_of_run(self.run), self.catalogue.ids, ranked=self.ranked)

    @cached_property
    def lists_before(self) -> Lists | None:
        """The recommendations of the last release, if they can be compared."""
        if self.last is None or ("ranker" in self.past[0].models) != self.ranked:
            return None
        return measure_lists(scores_of_release(self.last), self.catalogue.ids, ranked=self.ranked)

    @cached_property
    def category(self) -> Category | None:
        """The first side feature of the item model, if its values are few enough to be read by people."""
        for bundle in self.bundles:
            for feature in bundle.spec.item_features:
                if bundle.role is not Role.ITEM or feature == ID_FEATURE:
                    continue
                with opening_arrow(bundle.layout.vocabulary(feature)) as reader:
                    values = reader.read_all()["value"]
                if len(values) <= _MOST_VALUES:
                    return Category(feature, tuple(str(value) for value in values.to_pylist()))
        return None
