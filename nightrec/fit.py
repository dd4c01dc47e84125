"""``nightrec fit``: train MIND or BST on the surface's own inputs."""

import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from artifacts.bundle import FeatureSpec
from artifacts.digest import document_digest
from artifacts.errors import UsageError
from artifacts.store import read_json, staged_folder, write_json
from nightrec.night import ConfigPath, Json, configured
from nightrec.terminal import answer, say, show

if TYPE_CHECKING:
    from features.inputs import Inputs
    from features.vocabulary import Vocabulary
    from models.candidates import Night
    from nightrec.config import Config, Train

_VOCABULARIES = "vocabularies"
_RETRIEVAL = "retrieval"  # the MIND of earlier days that proposes candidates to BST


def fit(
    model: Annotated[Literal["mind", "bst"], typer.Argument(help="Which network.")],
    *,
    config: ConfigPath,
    json: Json = False,
) -> None:
    """Train a network on the surface's own inputs, as the table train of the config says."""
    read = configured(config)
    train = _train(read)
    folder = Path(train.folder)
    asked = _asked(read, model)
    before = _asked_before(folder, model)
    if before is None:
        _fit(read, model, folder / model)
        write_json(_note(folder, model), asked)
    elif before != asked:
        changed = sorted(key for key in asked if asked[key] != before.get(key))
        raise UsageError(
            f"{folder / model}: was fitted with another {' and '.join(changed)}; move it away, or name another "
            "[train] folder"
        )
    else:
        say(f"nightrec: {folder / model} is fitted already from the same inputs and config; nothing to do")
    _report(folder / model, json=json)


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


def _asked(config: "Config", model: str) -> dict[str, Any]:
    """Say what a checkpoint depends on; where things lie is no part of it."""
    from features.inputs import fingerprint_inputs
    from nightrec.config import semantic
    from nightrec.inputs import inputs_of

    train = _train(config).model_dump(mode="json", exclude={"folder", "mind", "bst"})
    options = {name: getattr(_train(config), name) for name in (("mind",) if model == "mind" else ("mind", "bst"))}
    night = semantic(config)["retrieve"] | semantic(config)["history"] if model == "bst" else {}
    columns = {"inputs": semantic(config)["inputs"], "timezone": config.surface.timezone}
    return {
        "inputs": fingerprint_inputs(inputs_of(config)),
        "columns": document_digest(columns),
        "[train]": document_digest(
            {"train": train, "options": {k: str(v) for k, v in options.items()}, "night": night}
        ),
    }


def _note(folder: Path, model: str) -> Path:
    return folder / f"{model}.json"


def _asked_before(folder: Path, model: str) -> dict[str, Any] | None:
    """Read what the checkpoint that is there was fitted from; None if there is none."""
    if not (folder / model).exists():
        return None
    note = _note(folder, model)
    return read_json(note) if note.exists() else {}


def _fit(config: "Config", model: str, out: Path) -> None:
    import torch

    from features.catalogue import encode_catalogue
    from features.ordered import Engine
    from features.sequences import read_sequences
    from models.bst import BstConfig
    from models.checkpoint import load_checkpoint
    from models.examples import split_by_time
    from models.fit import BST_OPTIONS, MIND_OPTIONS, fit_bst, fit_mind
    from models.mind import MindConfig
    from nightrec.inputs import inputs_of
    from nightrec.sections import read_section
    from nightrec.steps import threads_of

    train, spec, inputs = _train(config), spec_of(config), inputs_of(config)
    mind = read_section(
        MindConfig(seed=train.seed), replace(MIND_OPTIONS, seed=train.seed), train.mind, at="train.mind"
    )
    bst = read_section(BstConfig(seed=train.seed), replace(BST_OPTIONS, seed=train.seed), train.bst, at="train.bst")
    torch.set_num_threads(threads_of(config, 1))
    vocabularies = vocabularies_of(Path(train.folder), inputs, spec)
    last = train.until + timedelta(days=train.validate_days)
    catalogue, _ = encode_catalogue(inputs, spec=spec, vocabularies=vocabularies)
    with tempfile.TemporaryDirectory(dir=train.folder, prefix=".scratch-") as scratch:
        sequences = read_sequences(
            inputs,
            catalogue=catalogue,
            spec=spec,
            vocabularies=vocabularies,
            until=last,
            zone=config.surface.timezone,
            engine=Engine(Path(scratch), config.night.memory, config.night.threads),
        )
    split = split_by_time(train_until=train.until, validate_until=last, zone=config.surface.timezone)
    common: dict[str, Any] = {"spec": spec, "vocabularies": vocabularies}
    if model == "mind":
        fit_mind(sequences, split=split, config=mind[0], options=mind[1], out=out, **common)
        return
    before = train.until - timedelta(days=train.ranker_days)
    earlier = split_by_time(train_until=before, validate_until=train.until, zone=config.surface.timezone)
    retrieval = out.with_name(_RETRIEVAL)
    if not retrieval.exists():
        say(f"nightrec: first a MIND of the days through {before}, whose candidates BST learns from")
        fit_mind(sequences, split=earlier, config=mind[0], options=mind[1], out=retrieval, **common)
    fit_bst(
        sequences,
        split=split,
        retrieval=load_checkpoint(retrieval),
        night=_night(config),
        config=bst[0],
        options=bst[1],
        out=out,
        **common,
    )


def vocabularies_of(folder: Path, inputs: "Inputs", spec: FeatureSpec) -> "dict[str, Vocabulary]":
    """Fit the vocabularies once; both networks, and every later fit in *folder*, take the same."""
    from features.catalogue import fit_feature_vocabularies
    from features.vocabulary import load_vocabularies, save_vocabulary

    place = folder / _VOCABULARIES
    if not place.exists():
        with staged_folder(place) as staging:
            for name, vocabulary in fit_feature_vocabularies(inputs, spec=spec).items():
                save_vocabulary(vocabulary, staging / f"{name}.arrow")
    return load_vocabularies(place, spec.features)


def _night(config: "Config") -> "Night":
    from models.candidates import Night

    return Night(
        candidates=config.retrieve.candidates,
        exclude_seen=config.retrieve.exclude_seen,
        exclude_days=config.retrieve.exclude_days,
        popular_days=config.history.popular_days,
    )


def _report(folder: Path, *, json: bool) -> None:
    from models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder)
    quality = {name: value for name, value in checkpoint.about.items() if isinstance(value, int | float)}
    rows = [("checkpoint", str(folder)), ("trained through", checkpoint.trained_through), *quality.items()]
    show(f"{checkpoint.kind} is fitted", ("what", "is"), [(name, str(value)) for name, value in rows])
    if json:
        answer(
            {
                "model": checkpoint.kind,
                "checkpoint": str(folder),
                "trained_through": checkpoint.trained_through,
                "quality": quality,
            }
        )
