"""The types that ids and categories may have in the files, and the one that each is widened to."""

import pyarrow as pa
import pyarrow.compute as pc


def widened(kind: pa.DataType) -> pa.DataType | None:
    """Name the type that an id or a category of type *kind* is held in: int64, uint64 or string.

    Every value survives: signed integers widen to int64, unsigned ones to uint64, text to string, bool to 0 and 1.
    ``None`` for everything else: a float is no id (2**53 + 1 has none), and a date is no category.
    """
    if pa.types.is_dictionary(kind):
        return widened(kind.value_type)
    if pa.types.is_signed_integer(kind) or pa.types.is_boolean(kind):
        return pa.int64()
    if pa.types.is_unsigned_integer(kind):
        return pa.uint64()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return pa.string()
    return None


def widen(values: pa.Array) -> pa.Array:
    """Cast ids or categories to the type that :func:`widened` names; nulls stay null.

    Raises:
        ValueError: If their type has none.
    """
    target = widened(values.type)
    if target is None:
        raise ValueError(f"expected integers or text, found {values.type}")
    if values.type == target:
        return values
    if pa.types.is_dictionary(values.type):
        return widen(values.dictionary_decode())
    return pc.cast(values, target)
