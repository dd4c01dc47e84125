"""The reference of the command line and of the config, written from the code that declares them."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from nightrec.keys import Key, known_keys, network_keys, tables
from nightrec.main import make_app


def commands_page() -> str:
    """Write the page of all verbs, with their arguments and options."""
    lines = [
        "# The command line",
        "",
        "What `nightrec VERB --help` says, of all verbs; made from the code. Exit codes are those of the",
        "[home page](../index.md); `--json` prints one object on standard output, in one line.",
    ]
    for path, command in _commands(get_command(make_app()), "nightrec"):
        lines += ["", f"## {path}", "", _text(command.help or ""), ""]
        given = [one for one in command.params if one.param_type_name == "argument"]
        options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
        lines += [f"`{' '.join([path, *(_named(one) for one in given)])}`", ""]
        lines += [f"- `{_named(one)}`: {_text(one.help or '')}" for one in given] + [""] * bool(given)
        if options:
            context = command.make_context(path, [], resilient_parsing=True)
            lines += ["| option | takes | default | |", "|---|---|---|---|"]
            lines += [
                _row(f"`{'`, `'.join(one.opts)}`", _takes(one, context), _default(one), one.help or "")
                for one in options
            ]
    return "\n".join(lines) + "\n"


def config_page() -> str:
    """Write the page of all keys, table by table."""
    says = tables()
    lines = [
        "# The config",
        "",
        "One TOML file is one surface. Every key, made from the code that reads it; `nightrec config explain KEY`",
        "tells the same. Paths are relative to the file. An unknown key is an error that names the nearest one.",
    ]
    keys_of: dict[str, list[Key]] = defaultdict(list)
    for key in (*known_keys(), *network_keys()):
        keys_of[key.path.rpartition(".")[0]].append(key)
    del keys_of[""]  # tables whose keys others declare: they have a table of their own here
    for table, found in keys_of.items():
        lines += ["", f"## {table}", "", says.get(table, ""), ""]
        lines += ["| key | takes | default | means |", "|---|---|---|---|"]
        lines += [_key_row(key) for key in found]
    return "\n".join(lines) + "\n"


def _key_row(key: Key) -> str:
    takes = f"{key.kind}, {key.bounds}" if key.bounds else key.kind
    default = key.default if key.default in {"required", "not set"} else f"`{key.default}`"
    return _row(f"`{key.path.rpartition('.')[2]}`", takes, default, key.meaning)


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Walk the verbs, those of a group after it; what is hidden stays so."""
    for name, verb in getattr(command, "commands", {}).items():
        if not verb.hidden:
            if hasattr(verb, "commands"):
                yield from _commands(verb, f"{path} {name}")
            else:
                yield f"{path} {name}", verb


def _named(argument: Any) -> str:
    name = argument.name.upper() + "..." * (argument.nargs != 1)
    return name if argument.required else f"[{name}]"


def _takes(option: Any, context: Any) -> str:
    return "" if option.is_flag else f"`{option.display_type(context).strip('<>')}`"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    return "" if option.default is None or option.is_flag or callable(option.default) else f"`{option.default}`"


def _row(*cells: str) -> str:
    return f"| {' | '.join(_text(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _text(text: str) -> str:
    return " ".join(text.replace("``", "`").split())
