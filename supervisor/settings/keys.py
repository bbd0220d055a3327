"""What each key of a table is, read off the declarations of ``supervisor.settings.config``.

Owns the reading of type annotations, so that the reader of the file, its
writer and its schema share one list of keys.  Knows no key by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT, Meta
from msgspec.structs import fields

from supervisor.settings.config import Reload, Settings


class Kind(Enum):
    """The kinds of values that a key can have; the value is how a message names one."""

    STRING = "a string"
    CHOICE = "one of"
    INTEGER = "an integer"
    NUMBER = "a number"
    BOOLEAN = "a boolean"
    STRINGS = "an array of strings"
    MAPPING = "a table of strings"
    TABLE = "a table"
    TABLES = "an array of tables"


_KINDS = {str: Kind.STRING, int: Kind.INTEGER, float: Kind.NUMBER, bool: Kind.BOOLEAN}


@dataclass(frozen=True, slots=True)
class Key:
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
    schema: Mapping[str, Any] | None = None


@cache
def keys_of(table: type[Settings]) -> Mapping[str, Key]:
    """The keys of a table in the order of their declaration."""
    hints = get_type_hints(table, include_extras=True)
    return {
        field.name: _key(field.name, hints[field.name], _default(field.default, field.default_factory))
        for field in fields(table)
    }


def _default(value: Any, factory: Any) -> Any:
    return factory() if value is NODEFAULT and factory is not NODEFAULT else value


def _key(name: str, annotation: Any, default: Any) -> Key:
    notes = list(_notes(annotation))
    bare = _bare(annotation)
    kind, choices, table = _kind(bare)
    return Key(
        name,
        kind,
        default,
        description=_first(notes, "description") or "",
        reload=next((note.extra["reload"] for note in notes if note.extra), None),
        choices=choices,
        table=table,
        ge=_first(notes, "ge"),
        gt=_first(notes, "gt"),
        le=_first(notes, "le"),
        min_length=_first(notes, "min_length"),
        pattern=_first(notes, "pattern"),
        schema=_first(notes, "extra_json_schema"),
    )


def _kind(bare: Any) -> tuple[Kind, tuple[str, ...], type[Settings] | None]:
    if bare in _KINDS:
        return _KINDS[bare], (), None
    if get_origin(bare) is Literal:
        return Kind.CHOICE, get_args(bare), None
    if get_origin(bare) is tuple:
        element = _bare(get_args(bare)[0])
        is_table = isinstance(element, type) and issubclass(element, Settings)
        return (Kind.TABLES, (), element) if is_table else (Kind.STRINGS, (), None)
    if get_origin(bare) is dict:
        return Kind.MAPPING, (), None
    assert issubclass(bare, Settings), f"config.py declares a key as {bare}, which no TOML value can be"
    return Kind.TABLE, (), bare


def _alternatives(annotation: Any) -> list[Any]:
    """The parts of a union other than None; of anything else, itself."""
    if get_origin(annotation) in (Union, UnionType):
        return [part for part in get_args(annotation) if part is not NoneType]
    return [annotation]


def _bare(annotation: Any) -> Any:
    """The type within ``Annotated[… | None, …]``, however often it is wrapped."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
            continue
        (inner,) = _alternatives(annotation)
        if inner is annotation:
            return inner
        annotation = inner


def _notes(annotation: Any) -> Iterator[Meta]:
    """The notes on an annotation, the outermost first."""
    if get_origin(annotation) is Annotated:
        inner, *notes = get_args(annotation)
        yield from notes
        yield from _notes(inner)
        return
    (inner,) = _alternatives(annotation)
    if inner is not annotation:
        yield from _notes(inner)


def _first(notes: list[Meta], name: str) -> Any:
    return next((value for note in notes if (value := getattr(note, name)) is not None), None)
