"""Settings written as TOML.

Owns the writing; what it writes is read back as the same settings.  There is
no TOML writer among the dependencies, and this needs little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from supervisor.settings.config import Config, Settings
from supervisor.settings.keys import keys_of
from supervisor.settings.mistakes import bare_or_quoted, quoted


def effective_toml(config: Config) -> str:
    """The settings in force, every key with its value; a key that is not set as a comment.

    ``[defaults]`` and ``include`` are already applied in it.  It contains the
    values of the environment: print it for the operator, never log it.  Raises
    TypeError if a program gave a key what TOML does not have.
    """
    lines = ["[supervisor]", *_lines(config.supervisor)]
    for hook in config.hooks:
        lines += ["", "[[hooks]]", *_lines(hook)]
    for name, kernel in config.kernels.items():
        lines += ["", f"[kernels.{bare_or_quoted(name)}]", *_lines(kernel, without="name")]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A value on one line, as TOML spells it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return quoted(value)
        case PurePath():
            return quoted(str(value))
        case list() | tuple():
            return "[" + ", ".join(map(toml_value, value)) + "]"
        case Mapping():
            pairs = [
                f"{bare_or_quoted(key)} = {toml_value(item)}"
                for key, item in value.items()
                if item is not None
            ]
            return "{ " + ", ".join(pairs) + " }" if pairs else "{}"
        case Settings():
            return toml_value({key: getattr(value, key) for key in keys_of(type(value))})
        case _:
            raise TypeError(f"TOML has no {type(value).__name__}")


def _lines(table: Settings, without: str = "") -> Iterator[str]:
    for name, key in keys_of(type(table)).items():
        value = getattr(table, name)
        if value is None:
            yield f"# {name} is not set: {key.description}"
        elif name != without:
            try:
                yield f"{name} = {toml_value(value)}"
            except TypeError as error:
                raise TypeError(f"{name}: {error}") from None
