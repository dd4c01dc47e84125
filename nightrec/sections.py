"""Tables of the config whose keys a step declares itself, as the fields of a dataclass."""

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

from pydantic import Strict, ValidationError, create_model

from artifacts.errors import UsageError
from nightrec.mistakes import mistakes_of
from nightrec.tables import Table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

One = TypeVar("One", bound="DataclassInstance")
Other = TypeVar("Other", bound="DataclassInstance")

_STRICT = {kind: Annotated[kind, Strict()] for kind in (bool, int, float, str)}


def read_section(one: One, other: Other, given: dict[str, Any], *, at: str) -> tuple[One, Other]:
    """Change the fields of two frozen dataclasses that the table *given* names; a name that both have changes both.

    Args:
        one: Defaults.
        other: More of them.
        given: The table.
        at: Its path in the config, for messages.

    Raises:
        UsageError: If a key is no field of either, or a value is of the wrong type.
    """
    hints = {**get_type_hints(type(one)), **get_type_hints(type(other))}
    keys = {
        field.name: (_STRICT.get(hints[field.name], hints[field.name]), None)
        for field in (*fields(one), *fields(other))
    }
    model = create_model("Section", __base__=Table, **keys)  # type: ignore[call-overload]
    try:
        checked: Table = model.model_validate(given)
    except ValidationError as error:
        raise UsageError(mistakes_of(error, model, at=at)) from error
    said = {name: getattr(checked, name) for name in checked.model_fields_set}
    return _changed(one, said), _changed(other, said)


def _changed(section: One, said: dict[str, Any]) -> One:
    mine = {field.name for field in fields(section)}
    return replace(section, **{name: value for name, value in said.items() if name in mine})
