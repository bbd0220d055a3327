"""The JSON Schema of the TOML file, for editors and other programs.

Owns the translation; keys, bounds and words come from ``supervisor.settings.config``.
It knows what a schema can say: rules between keys are found by ``check`` only.
"""

from __future__ import annotations

from typing import Any

from msgspec import NODEFAULT, to_builtins

from supervisor.settings.config import NAME_PATTERN, File, KernelConfig, Reload, Settings
from supervisor.settings.keys import Key, Kind, keys_of

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "pattern": "pattern",
}


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12); ``x-reload`` tells what an edit of a key does to a running kernel."""
    schema = _table(File)
    properties = schema["properties"]
    properties["defaults"] |= {"$ref": "#/$defs/kernel"}
    properties["kernels"] |= {
        "patternProperties": {NAME_PATTERN: {"$ref": "#/$defs/kernel"}},
        "additionalProperties": False,
    }
    del properties["defaults"]["type"], properties["defaults"]["additionalProperties"]
    kernel = _table(KernelConfig) | {"not": {"required": ["kernelspec", "argv"]}}
    del kernel["properties"]["name"]  # the table's own name
    return {"$schema": _DIALECT, "title": "Kernel Supervisor", **schema, "$defs": {"kernel": kernel}}


def _table(table: type[Settings], reload: Reload | None = None) -> dict[str, Any]:
    """The schema of a table; its keys have the reload action of the key that it stands at."""
    must = [name for name, key in keys_of(table).items() if key.default is NODEFAULT and name != "name"]
    return {
        **({"required": must} if must else {}),
        "description": (table.__doc__ or "").split("\n")[0].replace("``", ""),
        "type": "object",
        "properties": {name: _property(key, key.reload or reload) for name, key in keys_of(table).items()},
        "additionalProperties": False,
    }


def _property(key: Key, reload: Reload | None) -> dict[str, Any]:
    table = key.table if key.kind is Kind.TABLE else None
    schema: dict[str, Any] = _table(table, reload) if table else {"type": key.kind.in_schema}
    schema["description"] = key.description
    schema |= {
        word: getattr(key, bound) for bound, word in _BOUNDS.items() if getattr(key, bound) is not None
    }
    if key.choices:
        schema["enum"] = list(key.choices)
    if key.kind is Kind.STRINGS:
        schema["items"] = {"type": "string"}
    if key.kind is Kind.TABLES and key.table:
        schema["items"] = _table(key.table, reload)
    if key.kind is Kind.MAPPING:
        schema["additionalProperties"] = {"type": "string"}
    if key.min_length is not None:
        schema["minItems" if key.kind is Kind.STRINGS else "minLength"] = key.min_length
    for word, extra in key.schema.items():
        schema[word] = {**schema.get(word, {}), **extra}
    if key.kind is not Kind.TABLE and key.default not in (None, NODEFAULT, {}, ()):
        schema["default"] = to_builtins(key.default)
    if reload:
        schema["x-reload"] = reload
    return schema
