"""The JSON Schema of the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomli

from supervisor.settings.config import RELOAD_ACTIONS, KernelConfig, SupervisorConfig, reload_actions
from supervisor.settings.file import ConfigError, parse
from supervisor.settings.keys import keys_of
from supervisor.settings.schema import json_schema

EXAMPLE = Path(__file__).parents[2] / "config" / "kernels.toml"
SCHEMA = json_schema()


def is_valid(text: str) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(tomli.loads(text)))


def test_it_is_a_schema_of_draft_2020_12() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    assert "https://json-schema.org/draft/2020-12/schema" == SCHEMA["$schema"]


def test_the_example_satisfies_it() -> None:
    assert is_valid(EXAMPLE.read_text())


def test_every_key_is_in_it_with_its_description_and_reload_action() -> None:
    kernel = SCHEMA["$defs"]["kernel"]["properties"]
    supervisor = SCHEMA["properties"]["supervisor"]["properties"]

    assert dict(RELOAD_ACTIONS) == {key: kernel[key]["x-reload"] for key in kernel}
    assert dict(reload_actions(SupervisorConfig)) == {key: supervisor[key]["x-reload"] for key in supervisor}
    for table, properties in ((KernelConfig, kernel), (SupervisorConfig, supervisor)):
        for name, schema in properties.items():
            assert keys_of(table)[name].description == schema["description"]
    assert "live" == kernel["backoff"]["properties"]["max"]["x-reload"]


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects(part)


def test_no_table_allows_unknown_keys() -> None:
    tables = list(objects(SCHEMA))

    assert 13 == len(tables)
    assert all(table["additionalProperties"] is False for table in tables)


GOOD = [
    '[kernels.a]\nkernelspec = "python3"',
    '[defaults]\nkernelspec = "python3"\nenv = { A = "1" }\n[kernels."a.b"]\nstop_timeout = 3',
    'include = ["x.toml"]\n[kernels.a]\nargv = ["x", "--f={connection_file}"]\nports = { hb = 65535 }',
]
BAD = [
    '[kernels.a]\nkernelspec = "python3"\nstop_timout = 3',
    '[kernels.a]\nkernelspec = "python3"\nname = "a"',
    '[kernels.a]\nkernelspec = "python3"\nrestart = "allways"',
    '[kernels.a]\nkernelspec = "python3"\nrestart_window = 0',
    '[kernels.a]\nkernelspec = "python3"\nmax_restarts = true',
    '[kernels.a]\nkernelspec = "python3"\nbackoff = { jitter = 1.5 }',
    '[kernels.a]\nkernelspec = "python3"\nports = { shell = 70000 }',
    '[kernels.a]\nkernelspec = "python3"\nenv = { A = 1 }',
    '[kernels.a]\nkernelspec = "python3"\nenv = { JPY_PARENT_PID = "1" }',
    '[kernels.a]\nkernelspec = "python3"\nenv = { "A=B" = "1" }',
    '[kernels.a]\nkernelspec = "python3"\nextra_arguments = [1]',
    '[kernels.a]\nkernelspec = ""',
    "[kernels.a]\nargv = []",
    '[kernels.a]\nargv = ["python"]',
    '[kernels.a]\nargv = ["", "{connection_file}"]',
    '[kernels.a]\nkernelspec = "python3"\nargv = ["python", "{connection_file}"]',
    '[kernels."a b"]\nkernelspec = "python3"',
    '[defaults]\nlog_level = "info"\n[kernels.a]\nkernelspec = "python3"',
    '[supervisor]\nmax_concurrent_starts = 0\n[kernels.a]\nkernelspec = "python3"',
    '[kernel.a]\nkernelspec = "python3"',
    'include = "x.toml"\n[kernels.a]\nkernelspec = "python3"',
]


@pytest.mark.parametrize("text", GOOD)
def test_good_files_satisfy_it(text: str) -> None:
    assert is_valid(text)


@pytest.mark.parametrize("text", BAD)
def test_bad_files_do_not_satisfy_it_nor_the_reader(text: str) -> None:
    assert not is_valid(text)
    with pytest.raises(ConfigError):
        parse(text, "kernels.toml")
