"""TOML values -> settings, key by key, so that every mistake is found at once.

Owns types, bounds and the names of keys.  Rules between keys are
``supervisor.settings.rules``.  Values of an environment may be secrets, and are
never put into a message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from msgspec import NODEFAULT

from supervisor.settings.config import SIZE_PATTERN, File, KernelConfig, Settings, SupervisorConfig
from supervisor.settings.keys import Key, Kind, keys_of
from supervisor.settings.mistakes import bare_or_quoted, closest, cut, described, listed, quoted, spelled
from supervisor.settings.text import toml_value

Path = tuple[str | int, ...]
Tell = Callable[[Path, str], None]  # told the path and what is wrong
Values = dict[str, Any]  # the keys that are right; those of nested tables likewise

_Place = TypeVar("_Place", str, int)

_LARGEST = 2**63 - 1  # TOML's integers, and those of the records
_ENVIRONMENT_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


class WrongValueError(Exception):
    """A value is not what the key wants; its text says what is and what to do."""


def convert_table(table: type[Settings], raw: Mapping[str, Any], path: Path, tell: Tell) -> Values:
    """The keys of a table that are right, converted; each mistake is told with its path."""
    keys = {
        name: key for name, key in keys_of(table).items() if not (table is KernelConfig and name == "name")
    }

    def convert(name: str, value: Any) -> Any:
        if name not in keys:
            raise WrongValueError(no_such_key(name, value, table, path))
        return _convert(keys[name], value, (*path, name), tell)

    return _right(raw.items(), convert, path, tell)


def _right(
    items: Iterable[tuple[_Place, Any]], convert: Callable[[_Place, Any], Any], path: Path, tell: Tell
) -> dict[_Place, Any]:
    """Those that are right, converted; each mistake is told with its path."""
    found: dict[_Place, Any] = {}
    for place, value in items:
        try:
            found[place] = convert(place, value)
        except WrongValueError as mistake:
            tell((*path, place), str(mistake))
    return found


def matches(pattern: str, text: str) -> bool:
    """Whether the text is as the pattern says, to its very end: ``$`` alone lets a newline follow."""
    return re.fullmatch(pattern, text) is not None


def convert_strings(key: Key, value: Any, path: Path, tell: Tell) -> tuple[str, ...]:
    """The strings of an array; each other element is told.  Raises WrongValueError if it is no array."""
    if not isinstance(value, list):
        todo = f"write [{spelled(value)}]" if isinstance(value, str) else "write strings in brackets"
        raise _wrong_kind(key, value, todo)
    if key.min_length and not value:
        raise WrongValueError("the array is empty: fill it, or remove the key")
    return tuple(_right(enumerate(value), lambda _, item: _text(item), path, tell).values())


def _convert(key: Key, value: Any, path: Path, tell: Tell) -> Any:
    match key.kind:
        case Kind.TABLE:
            return _nested(key, value, path, tell)
        case Kind.TABLES:
            return _array(key, value, path, tell)
        case Kind.MAPPING:
            return _mapping(key, value, path, tell)
        case Kind.STRINGS:
            return convert_strings(key, value, path, tell)
        case Kind.CHOICE:
            return _choice(key, value)
        case Kind.STRING:
            return _string(key, value)
        case Kind.BOOLEAN:
            return _boolean(key, value)
        case Kind.INTEGER | Kind.NUMBER:
            return _within_bounds(key, _number(key, value), spelled(value))


def _nested(key: Key, value: Any, path: Path, tell: Tell) -> Values:
    assert key.table is not None, "a TABLE has a table"
    if not isinstance(value, dict):
        first = next(iter(keys_of(key.table).values()))
        raise _wrong_kind(key, value, f"write {key.name} = {toml_value({first.name: first.default})}")
    return convert_table(key.table, value, path, tell)


def _array(key: Key, value: Any, path: Path, tell: Tell) -> list[Values]:
    """The tables of an array; each mistake, and each key that one must have, is told with its path."""
    assert key.table is not None, "TABLES have a table"
    if not isinstance(value, list):
        raise _wrong_kind(key, value, f"write [[{key.name}]] and its keys below it", secret=True)
    tables: list[Values] = []
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            tell((*path, index), f"{described(item, secret=True)}, not a table: write [[{key.name}]]")
            continue
        tables.append(convert_table(key.table, item, (*path, index), tell))
        for name, inner in keys_of(key.table).items():
            if inner.default is NODEFAULT and name not in item:
                tell((*path, index), f"{name} is missing: {inner.description}")
    return tables


def _mapping(key: Key, value: Any, path: Path, tell: Tell) -> Values:
    if not isinstance(value, dict):
        raise _wrong_kind(key, value, f'write {key.name} = {{ NAME = "value" }}', secret=True)
    return _right(value.items(), lambda _, item: _text(item, secret=True), path, tell)


def _choice(key: Key, value: Any) -> str:
    if isinstance(value, str) and value in key.choices:
        return value
    kinds: Mapping[type, str] = {list: "this array", dict: "this table"}
    subject = kinds.get(type(value)) or spelled(value)
    raise WrongValueError(f"{subject} is not one of {listed(key.choices)}")


def _string(key: Key, value: Any) -> str:
    text = _text(value)
    if not text:
        raise WrongValueError('"" is empty: write a value, or remove the key')
    if key.pattern and not matches(key.pattern, text):
        if key.pattern == SIZE_PATTERN:
            raise WrongValueError(f'{spelled(text)} is not a size: write bytes, or such as "512M" or "48G"')
        raise WrongValueError(f'{spelled(text)} is not a name: use letters, digits, ".", "_" and "-"')
    return text


def _text(value: Any, *, secret: bool = False) -> str:
    """A string.  Raises WrongValueError for other kinds, and for NUL, which execve(2) cannot carry."""
    if not isinstance(value, str):
        todo = "write a string" if isinstance(value, list | dict) else "put it in quotes"
        raise WrongValueError(f"{described(value, secret=secret)}, not a string: {todo}")
    if "\0" in value:
        raise WrongValueError("contains a NUL character, which the operating system does not take: remove it")
    return value


def _boolean(key: Key, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    meant = isinstance(value, str) and value.lower() in ("true", "false")
    raise _wrong_kind(key, value, f"write {value.lower()} without quotes" if meant else "write true or false")


def _number(key: Key, value: Any) -> float | int:
    """The number, an integer for an INTEGER.  A bool is none, though Python thinks so."""
    whole = key.kind is Kind.INTEGER
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_kind(key, value, _number_meant(value) or f"write one, such as {key.default!r}")
    if isinstance(value, float) and not math.isfinite(value):
        wanted = "an integer" if whole else "a finite number"
        raise WrongValueError(f"{value} is not {wanted}: write one, such as {key.default!r}")
    if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
        raise WrongValueError(
            f"{spelled(value)} has more than 64 bits: write a smaller one, such as {key.default!r}"
        )
    if whole and isinstance(value, float):
        todo = f"write {int(value)}" if value.is_integer() and abs(value) <= _LARGEST else "round it"
        raise _wrong_kind(key, value, todo)
    return value if whole else float(value)


def _number_meant(text: Any) -> str:
    """What to write where a number was written in quotes; empty where it was not."""
    try:
        return f"write {float(text):g} without quotes" if isinstance(text, str) and len(text) < 20 else ""
    except ValueError:
        return ""


def _within_bounds(key: Key, value: float, spelling: str) -> float:
    if (
        (key.ge is None or value >= key.ge)
        and (key.gt is None or value > key.gt)
        and (key.le is None or value <= key.le)
    ):
        return value
    if key.le is not None:
        bounds = f"from {key.ge:g} to {key.le:g}"
    else:
        bounds = f"above {key.gt:g}" if key.gt is not None else f"not below {key.ge:g}"
    raise WrongValueError(f"{spelling} is out of range: write {key.kind.words} {bounds}")


def _wrong_kind(key: Key, value: Any, todo: str, *, secret: bool = False) -> WrongValueError:
    return WrongValueError(f"{described(value, secret=secret)}, not {key.kind.words}: {todo}")


# Keys that do not exist: where else they belong, or what was meant.


_OF_TABLES = {Kind.MAPPING, Kind.TABLE, Kind.TABLES}


def no_such_key(name: str, value: Any, table: type[Settings], path: Path) -> str:
    """What to say of a key that the table (at ``path``) does not have, and what was probably meant."""
    keys = keys_of(table)
    if table is KernelConfig and name == "name":
        return "no such key; the name of a kernel is that of its table, [kernels.NAME]"
    if places := _places(name, table):
        return f"no such key here; it belongs {' or '.join(places)}"
    fit = (key for key in keys.values() if not isinstance(value, dict) or key.kind in _OF_TABLES)
    if meant := closest(name, [key.name for key in fit if key.name != "name"]):
        return f"no such key; did you mean {quoted(meant)}?"
    if table is KernelConfig and isinstance(value, dict) and path[0] == "kernels":
        longer = quoted(cut(f"{path[-1]}.{name}"))
        return f"no such key; if the dot is part of the kernel's name, quote it: [kernels.{longer}]"
    if table is KernelConfig and _ENVIRONMENT_NAME.fullmatch(name):
        return (
            f'no such key; a variable of the environment goes into env: write env = {{ {cut(name)} = "…" }}'
        )
    if table is File and isinstance(value, dict):
        return f"no such table; a kernel is declared by [kernels.{bare_or_quoted(cut(name))}]"
    return f"no such key; the keys here are {listed(key for key in keys if key != 'name')}"


def _places(name: str, table: type[Settings]) -> list[str]:
    """The other tables that have a key of this name."""
    nested = [(f"in {key.name}", key.table) for key in keys_of(KernelConfig).values() if key.table]
    places: list[tuple[str, type[Settings]]] = [
        ("in [supervisor]", SupervisorConfig),
        ("in [kernels.NAME] or [defaults]", KernelConfig),
        ("at the top of the file, above the first table", File),
        *nested,
    ]
    return [
        place for place, other in places if other is not table and name != "name" and name in keys_of(other)
    ]
