"""What each key of a table is, read off the declarations of ``supervisor.settings.config``.

Owns one list of keys, which the reader of the file, its writer and its schema
share.  Knows no key by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT, Struct, field, inspect

from supervisor.settings.config import Reload, Settings


class Kind(Enum):
    """The kinds of values that a key can have: how a message names one, and how the schema does."""

    STRING = "a string", "string"
    CHOICE = "one of", "string"
    INTEGER = "an integer", "integer"
    NUMBER = "a number", "number"
    BOOLEAN = "a boolean", "boolean"
    STRINGS = "an array of strings", "array"
    MAPPING = "a table of strings", "object"
    TABLE = "a table", "object"
    TABLES = "an array of tables", "array"

    def __init__(self, words: str, in_schema: str) -> None:
        self.words, self.in_schema = words, in_schema


_KINDS: Mapping[type[inspect.Type], Kind] = {
    inspect.StrType: Kind.STRING,
    inspect.LiteralType: Kind.CHOICE,
    inspect.IntType: Kind.INTEGER,
    inspect.FloatType: Kind.NUMBER,
    inspect.BoolType: Kind.BOOLEAN,
    inspect.VarTupleType: Kind.STRINGS,
    inspect.DictType: Kind.MAPPING,
    inspect.StructType: Kind.TABLE,
}
_BOUNDS = ("ge", "gt", "le", "min_length", "pattern")


class Key(Struct, frozen=True):
    """One key of a table: kind, bounds, default, and what an edit of it does.

    ``table`` is set for a TABLE and for TABLES, ``choices`` (in declared order) for a CHOICE.
    ``default`` is ``None`` for a key that may be absent, ``NODEFAULT`` for one
    that a table must have.
    """

    name: str
    kind: Kind
    default: Any
    description: str = ""
    reload: Reload | None = None
    choices: tuple[str, ...] = ()
    table: type[Settings] | None = None
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    min_length: int | None = None
    pattern: str | None = None
    schema: Mapping[str, Any] = field(default_factory=dict)


@cache
def keys_of(table: type[Settings]) -> Mapping[str, Key]:
    """The keys of a table in the order of their declaration."""
    declared = inspect.type_info(table)
    assert isinstance(declared, inspect.StructType), "a table is one"
    hints = get_type_hints(table)
    return {field.name: _key(field, hints[field.name]) for field in declared.fields}


def _key(field: inspect.Field, hint: Any) -> Key:
    noted = field.type
    assert isinstance(noted, inspect.Metadata), f"config.py does not describe {field.name}"
    schema = dict(noted.extra_json_schema or {})
    bare = noted.type
    if isinstance(bare, inspect.UnionType):
        bare = bare.types[0]  # the other is None
    kind, table = _KINDS[type(bare)], bare
    if isinstance(bare, inspect.VarTupleType) and isinstance(bare.item_type, inspect.StructType):
        kind, table = Kind.TABLES, bare.item_type
    factory = field.default_factory
    return Key(
        field.name,
        kind,
        field.default if factory is NODEFAULT else factory(),
        description=schema.pop("description"),
        reload=(noted.extra or {}).get("reload"),
        choices=_choices(hint),
        table=getattr(table, "cls", None),
        schema=schema,
        **{bound: getattr(bare, bound, None) for bound in _BOUNDS},
    )


def _choices(hint: Any) -> tuple[str, ...]:
    """Those of a Literal, or of one in a union, as declared: msgspec sorts them."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next(filter(None, map(_choices, get_args(hint))), ())
