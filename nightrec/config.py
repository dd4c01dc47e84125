"""The config: one TOML file, read whole into the frozen tables of nightrec/tables.py."""

import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from artifacts.errors import UsageError
from artifacts.mirror import open_mirror
from nightrec.mistakes import did_you_mean, mistakes_of
from nightrec.tables import (
    Bundles,
    DayRules,
    HistoryRules,
    Index,
    InputTables,
    Metrics,
    Night,
    Report,
    Retrieve,
    Score,
    Segments,
    Store,
    Surface,
    Table,
    Train,
)
from nightrec.values import bytes_of, cache_folder


class Config(Table):
    """The whole file."""

    surface: Surface
    inputs: InputTables
    bundles: Bundles | None = None
    store: Store = Store()
    night: Night = Night()
    day: DayRules = DayRules()
    history: HistoryRules = HistoryRules()
    index: Index = Index()
    retrieve: Retrieve = Retrieve()
    score: Score = Score()
    gates: dict[str, Any] = Field(default_factory=dict)
    """What differs from the gates' defaults; docs/gates.md has them all."""
    segments: Segments = Segments()
    report: Report = Report()
    metrics: Metrics = Metrics()
    train: Train | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        known = [*self.inputs.items.features, *self.inputs.items.groups]
        for rule in self.score.rules:
            if rule.group not in known:
                near = did_you_mean(rule.group, known)
                raise ValueError(f"a feature or group of [inputs.items] in score.rules, found {rule.group!r}{near}")
        profile = self.inputs.users.features if self.inputs.users else {}
        for column in self.segments.columns:
            if column not in profile:
                near = did_you_mean(column, profile)
                raise ValueError(f"features of [inputs.users] in segments.columns, found {column!r}{near}")
        if self.score.top_n > self.retrieve.candidates:
            raise ValueError(
                f"score.top_n of at most retrieve.candidates = {self.retrieve.candidates}, found {self.score.top_n}"
            )
        return self

    @property
    def root(self) -> Path:
        """The surface's root; for an object store the local folder that mirrors it."""
        if "://" not in self.surface.root:
            return Path(self.surface.root)
        return open_mirror(
            self.surface.root,
            cache=cache_folder(self.store.cache),
            retry_seconds=self.store.retry_seconds,
            most_bytes=bytes_of(self.store.cache_size),
        )


def read_config(path: Path) -> Config:
    """Read the config file at *path*; relative paths in it are relative to its folder.

    Raises:
        UsageError: If it is missing, is not TOML, or a key is missing, unknown or of the wrong type; the message
            names the key, what was expected and what was found.
    """
    document = read_document(path)
    try:
        return Config.model_validate(document, context={"folder": path.parent})
    except ValidationError as error:
        raise UsageError(f"{path}: {mistakes_of(error, Config)}") from error


def read_document(path: Path) -> dict[str, Any]:
    """Read the TOML file at *path*, whatever its keys are.

    Raises:
        UsageError: If it is missing, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        do = "name it by --config, or write one with `nightrec init FOLDER`"
        raise UsageError(f"{path}: the config cannot be read ({error.strerror}); {do}") from error
    except ValueError as error:
        raise UsageError(f"{path}: expected TOML; {error}") from error


def semantic(config: Config) -> dict[str, Any]:
    """The part of the config that a run's content depends on; it enters the run key.

    Not in it: paths and names, what a machine may use, the execution profile (which enters by itself), the gates.
    """
    # Without popularity in retrieval a night is what it was before there was such a key, and has the same run key.
    plain = set() if config.retrieve.popularity_weight else {"popularity_weight"}
    unlimited = set() if bytes_of(config.index.memory) else {"memory"}  # and so without a limit of the index
    inputs = config.inputs.model_dump(exclude_none=True, exclude={name: {"path"} for name in InputTables.model_fields})
    return {
        "timezone": config.surface.timezone,
        "inputs": inputs,
        "shards": config.night.shards,
        "item_shards": config.night.item_shards,
        "history": config.history.model_dump(),
        "index": config.index.model_dump(exclude=unlimited),
        "retrieve": config.retrieve.model_dump(exclude=plain),
        "score": config.score.model_dump(mode="json"),
    }
