"""``nightrec fit``: train MIND or BST on the surface's own inputs."""

import tempfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from artifacts.bundle import FeatureSpec
from artifacts.digest import document_digest, file_digest
from artifacts.documents import read_json, write_json
from artifacts.errors import UsageError
from artifacts.store import staged_folder
from nightrec.bundles import export_networks, folder_of_bundles, tell_bundles
from nightrec.course import course_of, finish, require_board
from nightrec.night import ConfigPath, Json, configured
from nightrec.terminal import answer, progress, say, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from features.inputs import Inputs
    from features.vocabulary import Vocabulary
    from features.weights import Weighing
    from models.bst import BstConfig
    from models.candidates import Night
    from models.checkpoint import Checkpoint
    from models.course import Course
    from models.examples import Split
    from models.fit import FitOptions
    from models.mind import MindConfig
    from nightrec.config import Config
    from nightrec.tables import Train

_VOCABULARIES = "vocabularies"
_MIND = "mind"
_BST = "bst"
_CHOSEN = "-chosen"  # what validation chose, where the model itself is fitted again on every day
_LAST_DAY = {"until": "[train] until, validate_days or refit"}  # which keys of the config say it
_WEIGHTS = ("sample_weight", "event_weights")
_RETRIEVAL = "retrieval"  # the MIND of earlier days that proposes candidates to BST


def fit(
    model: Annotated[
        Literal["mind", "bst"] | None, typer.Argument(help="Which network; both by default.", show_default=False)
    ] = None,
    *,
    config: ConfigPath,
    export: Annotated[
        bool, typer.Option("--export", help="Make the bundles of the config too, once both networks are fitted.")
    ] = False,
    json: Json = False,
) -> None:
    """Train the networks on the surface's own inputs, as the table train of the config says."""
    if export and model is not None:
        raise UsageError("--export makes the bundles of both networks; leave the name of the one away")
    from models.memory import keep_what_is_freed

    read = configured(config)
    require_board(_train(read))
    keep_what_is_freed()
    if export:
        folder_of_bundles(read)  # refused before the hours of training, not after
    fitted = {name: _fitted(read, name) for name in ([model] if model else _networks(read))}
    told = {"bundles": tell_bundles(export_networks(read))} if export else {}
    if json:
        answer(fitted[model] if model else {"fitted": list(fitted.values()), **told})


def _networks(config: "Config") -> list[str]:
    """Name the networks that the config's bundles are made of, in the order in which they are fitted."""
    ranks = config.bundles is None or config.bundles.ranker is not None
    return [_MIND, _BST] if ranks else [_MIND]


def _fitted(config: "Config", model: str) -> dict[str, Any]:
    """Fit a network unless it is, and say what it is worth."""
    folder = Path(_train(config).folder)
    if _is_fitted(folder, model, _asked(config, model)):
        say(f"nightrec: {folder / model} is fitted already from the same inputs and config; nothing to do")
    else:
        _fit(config, model)
    for name in (_RETRIEVAL, model + _CHOSEN, model):
        if (folder / name).exists():
            finish(folder / name)
    return _report(folder / model)


def spec_of(config: "Config") -> FeatureSpec:
    """Say what the models are told: the features that the inputs declare, and what [train] says of the past."""
    train, users = _train(config), config.inputs.users
    return FeatureSpec(
        item_features=("item_id", *config.inputs.items.features),
        profile_features=tuple(users.features) if users else (),
        history_length=train.history_length,
        gap_edges=tuple(round(hours * 3600) for hours in train.gap_edges_hours),
        cross_features=train.cross_features,
    )


def _train(config: "Config") -> "Train":
    if config.train is None:
        raise UsageError("`nightrec fit` needs a table [train] with the key until")
    return config.train


def _asked(config: "Config", name: str) -> dict[str, str]:
    """Say what the checkpoint *name*, or the vocabularies, depend on; where things lie is no part of it."""
    from features.inputs import fingerprint_inputs
    from nightrec.config import semantic
    from nightrec.inputs import inputs_of

    train, part = _train(config), semantic(config)
    asked = {
        "inputs": fingerprint_inputs(inputs_of(config)),
        "columns": document_digest([part["inputs"], part["timezone"]]),
    }
    if name == _VOCABULARIES:
        return asked | {"features": " ".join(spec_of(config).features), "until": _known_until(train).isoformat()}
    ranks = name.removesuffix(_CHOSEN) == _BST
    apart = {"folder", "mind", "bst", "tensorboard", "warm_start"}
    apart |= set() if ranks or name == _RETRIEVAL else {"ranker_days"}
    apart |= {key for key in _WEIGHTS if not getattr(train, key)}  # what was fitted before there were any, is still
    plain = train.model_dump(mode="json", exclude=apart)
    networks = [train.mind, train.bst] if ranks else [train.mind]
    said = {"plain": plain, "networks": [repr(sorted(network.items())) for network in networks]}
    asked["[train]"] = document_digest(said)
    if train.warm_start:
        from models.layout import CheckpointLayout

        starts = [_start(train, one) for one in ((_MIND, _RETRIEVAL, _BST) if ranks else (name,))]
        if not Path(train.warm_start).is_dir():
            raise UsageError(
                f"[train] warm_start: expected the folder of an earlier fit, found none at {train.warm_start}; "
                "put it back, or move away what was fitted from it and take the key out"
            )
        models = [CheckpointLayout(start).model for start in starts if start]
        asked["[train] warm_start"] = document_digest([file_digest(model) for model in models if model.exists()])
    if train.mind.get("popularity_weight") and not ranks:
        asked["[history]"] = document_digest(part["history"])
    return asked | ({"[retrieve]": document_digest([part["retrieve"], part["history"]])} if ranks else {})


def _start(train: "Train", name: str) -> Path | None:
    """Name the checkpoint that *name* starts from: the one of its name among those of an earlier time."""
    return Path(train.warm_start) / name.removesuffix(_CHOSEN) if train.warm_start else None


def _known_until(train: "Train") -> date:
    """Say through which day an item must have had an event to be known: the last day that weights are fitted to."""
    return train.until + timedelta(days=train.validate_days if train.refit else 0)


def _is_fitted(folder: Path, name: str, asked: dict[str, str]) -> bool:
    """Whether *name* is there, and was fitted from what is *asked*; notes what it will be fitted from.

    Raises:
        UsageError: If it is there, and was fitted from something else.
    """
    note = folder / f"{name}.json"
    if not (folder / name).exists():
        write_json(note, asked)
        return False
    before = read_json(note) if note.exists() else {}
    if before != asked:
        changed = " and ".join(_LAST_DAY.get(key, key) for key in before | asked if asked.get(key) != before.get(key))
        raise UsageError(
            f"{folder / name}: was fitted from other {changed}; move it away, or name another [train] folder"
        )
    return True


def _fit(config: "Config", model: str) -> None:
    from models.checkpoint import load_checkpoint
    from models.fit import fit_bst, fit_mind

    train, asked = _train(config), _asked(config, model)
    mind, bst = networks_of(train)
    folder, last = Path(train.folder), train.until + timedelta(days=train.validate_days)
    say(f"nightrec: {model.upper()}: reads the events through {last}")
    told = _told(config)
    of_mind = {**told, "config": mind[0], "popular_days": config.history.popular_days}

    def course(out: Path) -> "Course":
        """Start where the config says, and go on where a killed fit of the same has come to."""
        return course_of(out, train, asked, _start(train, out.name))

    days, every_day = _days(config, train.until, last), _days(config, last, last)
    if model == _MIND:

        def fit_chosen(split: "Split", options: "FitOptions", out: Path) -> "Checkpoint":
            return fit_mind(**of_mind, split=split, options=options, out=out, course=course(out))

        _choose_and_fit(fit_chosen, days, every_day, mind[1], folder, model, asked, refit=train.refit)
        return
    if not bst[1].in_sample and not _is_fitted(folder, _RETRIEVAL, _asked(config, _RETRIEVAL)):
        before = train.until - timedelta(days=train.ranker_days)
        say(f"nightrec: first a MIND of the days through {before}, whose candidates BST learns from")
        earlier = _days(config, before, train.until)
        out = folder / _RETRIEVAL
        fit_mind(**of_mind, split=earlier, options=mind[1], out=out, course=course(out))
    if bst[1].in_sample and not _is_fitted(folder, _MIND, _asked(config, _MIND)):
        raise UsageError("[train.bst] in_sample learns from the night's own MIND; run `nightrec fit mind` first")

    def fit_ranker(split: "Split", options: "FitOptions", out: Path) -> "Checkpoint":
        """Fit with the MIND that has seen the same days, or with the one of earlier days."""
        own = _MIND if split is every_day or not train.refit else _MIND + _CHOSEN
        retrieval = load_checkpoint(folder / (own if options.in_sample else _RETRIEVAL))
        say(f"nightrec: {model.upper()}: finds its candidates, of the days through {split.trained_through}")
        how: dict[str, Any] = {"night": _night(config), "config": bst[0], "options": options}
        return fit_bst(**told, split=split, retrieval=retrieval, **how, out=out, course=course(out))

    _choose_and_fit(fit_ranker, days, every_day, bst[1], folder, model, asked, refit=train.refit)


def networks_of(train: "Train") -> "tuple[tuple[MindConfig, FitOptions], tuple[BstConfig, FitOptions]]":
    """Give MIND's and BST's sizes, and how each is fitted, as [train.mind] and [train.bst] change the defaults.

    Raises:
        UsageError: If a key is not known, or a value is none that it takes.
    """
    from models.bst import BstConfig
    from models.fit import BST_OPTIONS, MIND_OPTIONS
    from models.mind import MindConfig
    from nightrec.sections import read_section

    seed = train.seed
    mind_options, bst_options = (replace(options, seed=seed) for options in (MIND_OPTIONS, BST_OPTIONS))
    return (
        read_section(MindConfig(seed=seed), mind_options, train.mind, at="train.mind"),
        read_section(BstConfig(seed=seed), bst_options, train.bst, at="train.bst"),
    )


def _choose_and_fit(
    fit: "Callable[..., Checkpoint]",
    days: "Split",
    every_day: "Split",
    options: "FitOptions",
    folder: Path,
    model: str,
    asked: dict[str, str],
    *,
    refit: bool,
) -> None:
    """Fit on the training days; if asked, fit again on every day, for as many epochs as validation chose."""
    from models.checkpoint import load_checkpoint

    chosen = folder / (model + _CHOSEN if refit else model)
    if not _is_fitted(folder, chosen.name, asked):
        fit(split=days, options=options, out=chosen)
    if refit:
        about = load_checkpoint(chosen).about
        epochs = about["best_epoch"]
        worth = ", ".join(f"{name} {value:.4g}" for name, value in about.items() if name.startswith("val_"))
        say(
            f"nightrec: validation chose {epochs} epoch{'s' * (epochs != 1)} of {about['epochs']} ({worth}); "
            f"fitting again on all days through {every_day.trained_through}"
        )
        fit(split=every_day, options=replace(options, epochs=epochs), out=folder / model)


def _days(config: "Config", until: date, validate_until: date) -> "Split":
    from models.examples import split_by_time

    return split_by_time(train_until=until, validate_until=validate_until, zone=config.surface.timezone)


def _told(config: "Config") -> dict[str, Any]:
    """Read what a network learns from: every event through the last day of validation, and the words for it."""
    from features.catalogue import encode_catalogue
    from features.inputs import count_events
    from features.ordered import Engine
    from features.sequences import read_sequences
    from nightrec.inputs import inputs_of

    train, spec, inputs = _train(config), spec_of(config), inputs_of(config)
    vocabularies = _vocabularies(config, inputs, spec)
    catalogue, _ = encode_catalogue(inputs, spec=spec, vocabularies=vocabularies)
    with (
        tempfile.TemporaryDirectory(dir=train.folder, prefix=".scratch-") as scratch,
        progress("reading", count_events(inputs)) as advance,
    ):
        sequences = read_sequences(
            inputs,
            catalogue=catalogue,
            spec=spec,
            vocabularies=vocabularies,
            until=train.until + timedelta(days=train.validate_days),
            zone=config.surface.timezone,
            engine=Engine(Path(scratch), config.night.memory, config.night.threads, advance),
            weighing=_weighing(train),
        )
    return {"sequences": sequences, "spec": spec, "vocabularies": vocabularies}


def _weighing(train: "Train") -> "Weighing | None":
    from features.weights import Weighing

    asked = any(getattr(train, key) for key in _WEIGHTS)
    return Weighing(train.sample_weight, train.event_weights) if asked else None


def _vocabularies(config: "Config", inputs: "Inputs", spec: FeatureSpec) -> "dict[str, Vocabulary]":
    """Fit the vocabularies once; both networks, and every later fit from the same, take them.

    Raises:
        UsageError: If they are there, and were fitted from something else.
    """
    from features.sequences import fit_vocabularies
    from features.vocabulary import load_vocabularies, save_vocabulary

    train = _train(config)
    folder = Path(train.folder)
    place = folder / _VOCABULARIES
    if not _is_fitted(folder, _VOCABULARIES, _asked(config, _VOCABULARIES)):
        fitted = fit_vocabularies(inputs, spec=spec, until=_known_until(train), zone=config.surface.timezone)
        with staged_folder(place) as staging:
            for name, vocabulary in fitted.items():
                save_vocabulary(vocabulary, staging / f"{name}.arrow")
    return load_vocabularies(place, spec.features)


def _night(config: "Config") -> "Night":
    from models.candidates import Night

    return Night(
        candidates=config.retrieve.candidates,
        exclude_seen=config.retrieve.exclude_seen,
        exclude_days=config.retrieve.exclude_days,
        popular_days=config.history.popular_days,
        popularity_weight=config.retrieve.popularity_weight,
    )


def _report(folder: Path) -> dict[str, Any]:
    """Show what the checkpoint says of itself, and give it; who loads it verifies it."""
    from models.layout import CheckpointLayout

    said = read_json(CheckpointLayout(folder).model)
    quality = {name: value for name, value in said["about"].items() if isinstance(value, int | float)}
    through = said["trained_through"]
    rows = [("checkpoint", str(folder)), ("trained through", through), *quality.items()]
    shown = [(name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in rows]
    show(f"{said['kind']} is fitted", ("what", "is"), shown)
    return {"model": said["kind"], "checkpoint": str(folder), "trained_through": through, "quality": quality}
