"""``nightrec config``: what holds, what is wrong, and what a key means."""

import importlib.util
import os
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.errors import NightrecError, UsageError
from nightrec.completion import complete_key
from nightrec.night import ConfigPath, Json, configured
from nightrec.terminal import answer, say, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import DataclassInstance
    from pydantic import BaseModel

    from nightrec.config import Config
    from nightrec.keys import Key

app = typer.Typer(help="What the config says, what is wrong with it, and what its keys mean.", no_args_is_help=True)

_DEFAULT = "default"


AnyKey = Annotated[
    str | None,
    typer.Argument(help="A key or table, such as night.shards.", show_default=False, autocompletion=complete_key),
]


@app.command("show")
def show_(key: AnyKey = None, *, config: ConfigPath, json: Json = False) -> None:
    """Show the whole config, defaults too, and where each value comes from."""
    from nightrec.keys import find_keys, toml_of

    values = effective(config)
    if key is not None:
        wanted = {found.path for found in find_keys(key, _all_keys())}
        values = {path: value for path, value in values.items() if path in wanted}
    rows = [(path, "not set" if value is None else toml_of(value), origin) for path, (value, origin) in values.items()]
    show(str(config), ("key", "value", "from"), rows)
    if json:
        answer({"keys": {path: {"value": value, "from": origin} for path, (value, origin) in values.items()}})


@app.command()
def check(*, config: ConfigPath, json: Json = False) -> int:
    """Read the config and the headers of its inputs, and say all that is wrong; exit code 2 if anything is."""
    mistakes = list(mistakes_in(config))
    for mistake in mistakes:
        say(f"nightrec: {mistake}")
    if not mistakes:
        say(f"nightrec: {config} can be used.")
    if json:
        answer({"config": str(config), "mistakes": mistakes})
    return UsageError.exit_code if mistakes else 0


@app.command()
def explain(key: AnyKey = None, *, json: Json = False) -> None:
    """Tell a key's type, default, bounds and meaning; a table's keys; without a name, which tables there are."""
    from nightrec.keys import find_keys, tables

    if key is None:
        show("Tables of the config", ("table", "is"), tables().items())
        if json:
            answer({"tables": tables()})
        return
    found = find_keys(key, _all_keys())
    if len(found) == 1:
        one = asdict(found[0])
        path = one.pop("path")
        show(path, ("what", "is"), [(what, text) for what, text in one.items() if text])
    else:
        rows = [(one.path, one.kind, one.default, one.bounds, one.meaning) for one in found]
        show(f"Keys of {key}", ("key", "takes", "default", "bounds", "meaning"), rows)
    if json:
        answer({"keys": [asdict(one) for one in found]})


def _all_keys() -> "list[Key]":
    from nightrec.keys import known_keys, network_keys

    return known_keys() + (network_keys() if _has_torch() else [])


def effective(path: Path) -> dict[str, tuple[Any, str]]:
    """Give the value of every key that holds in the config at *path*, and where it comes from, by the key's path.

    A table that need not be there, and is not, is one key without a value.

    Raises:
        UsageError: If the config cannot be read.
    """
    from nightrec.keys import NETWORKS
    from nightrec.values import cache_folder

    read = configured(path)
    values = dict(_values(read, tomllib.loads(path.read_text("utf-8")), "", path.name))
    if values["store.cache"][0] is None:
        variable = next((name for name in ("NIGHTREC_CACHE", "XDG_CACHE_HOME") if os.environ.get(name)), _DEFAULT)
        values["store.cache"] = (str(cache_folder(None)), variable)
    del values["gates"]
    if networks := _networks(read, path.name):
        values = {key: value for key, value in values.items() if key not in NETWORKS}
    return values | networks | _gates(read, path.name)


def _values(model: "BaseModel", said: dict[str, Any], at: str, name: str) -> Iterator[tuple[str, tuple[Any, str]]]:
    from pydantic import BaseModel

    for field in type(model).model_fields:
        value = getattr(model, field)
        if isinstance(value, BaseModel):
            yield from _values(value, said.get(field, {}), f"{at}{field}.", name)
        else:
            dumped = model.model_dump(mode="json", include={field})[field]
            yield f"{at}{field}", (dumped, name if field in said else _DEFAULT)


def _networks(config: "Config", name: str) -> dict[str, tuple[Any, str]]:
    """Give the keys of the networks, in place of the tables that change them."""
    if config.train is None or not _has_torch():
        return {}
    from nightrec.fit import networks_of

    said = {"train.mind": config.train.mind, "train.bst": config.train.bst}
    networks: tuple[tuple[DataclassInstance, ...], ...] = networks_of(config.train)
    return {
        f"{table}.{key}": (value, name if key in said[table] else _DEFAULT)
        for table, network in zip(said, networks, strict=True)
        for one in network
        for key, value in asdict(one).items()
    }


def _gates(config: "Config", name: str) -> dict[str, tuple[Any, str]]:
    from release.gates import configured_gates

    gates = configured_gates(config.gates)
    return {
        f"gates.{gate.name}": (
            {"bound": gate.bound, "action": str(gate.action), "against": str(gate.against)},
            name if gate.name in config.gates else _DEFAULT,
        )
        for gate in gates
    }


def mistakes_in(path: Path) -> Iterator[str]:
    """Say one line for each mistake in the config at *path*, and for each input or bundle of it that cannot be read.

    The keys come first: where one is wrong, nothing else is looked at. Bundles are looked at once one of them is there.
    """
    from pydantic import ValidationError

    from nightrec.config import Config, read_document
    from nightrec.mistakes import all_mistakes

    try:
        config = Config.model_validate(read_document(path), context={"folder": path.parent})
    except UsageError as error:
        yield str(error)
    except ValidationError as error:
        yield from (f"{path}: {mistake}" for mistake in all_mistakes(error, Config))
    else:
        yield from _mistakes_of_inputs(config)
        yield from filter(None, map(_mistake_in, _other_looks(config)))


def _mistakes_of_inputs(config: "Config") -> list[str]:
    """Read the headers of each table by itself, and where all are good see that they belong together."""
    from features.inputs import check_inputs, check_schemas, files_of
    from nightrec.inputs import inputs_of

    def look_at(table: str) -> None:
        source = inputs.sources[table]
        check_schemas(table, source, files_of(source))

    inputs = inputs_of(config)
    mistakes = list(filter(None, (_mistake_in(partial(look_at, table)) for table in inputs.sources)))
    return mistakes or list(filter(None, [_mistake_in(partial(check_inputs, inputs))]))


def _other_looks(config: "Config") -> "Iterator[Callable[[], object]]":
    from nightrec.fit import networks_of
    from nightrec.steps import bundles_of
    from release.gates import configured_gates

    yield partial(configured_gates, config.gates)
    if config.train is not None and _has_torch():
        yield partial(networks_of, config.train)
    if config.bundles is not None:
        places = config.bundles.model_dump(exclude_none=True).values()
        if any(Path(place).exists() for place in places):
            yield partial(bundles_of, config)


def _mistake_in(look: "Callable[[], object]") -> str:
    try:
        look()
    except NightrecError as error:
        return str(error)
    return ""


def _has_torch() -> bool:
    """Whether networks can be fitted here; without torch nobody can say which keys they have."""
    return importlib.util.find_spec("torch") is not None
