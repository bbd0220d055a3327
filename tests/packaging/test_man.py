"""The man pages: every verb with its options and every key with what is told of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.exits import MEANINGS
from supervisor.cli.verbs import VERBS, parser_of
from supervisor.settings.schema import json_schema
from tests.cli.tools import ROOT

PAGES = ("kernel-supervisor.1", "kernels.toml.5")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory: Path = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, ROOT / "packaging/man.py", directory], check=True, timeout=60, cwd=ROOT)
    assert {*PAGES} == {path.name for path in directory.iterdir()}
    return {name: (directory / name).read_text() for name in PAGES}


def plain(page: str) -> str:
    """The page without its markup."""
    text = re.sub(r"\\f.|\\&", "", page).replace(r"\-", "-").replace(r"\e", "\\")
    assert "\\" not in text.replace("{connection_file}", ""), "nothing is left that man would take for markup"
    return text


def test_every_verb_is_there_with_every_option_and_what_it_does(pages: dict[str, str]) -> None:
    page = plain(pages["kernel-supervisor.1"])
    _, *parts = re.split(r'\n\.S[SH] "', page)
    by_verb = {re.match(r"[^\s\"]*", part).group(): part for part in parts}  # type: ignore[union-attr]
    for_all = next(part for part in parts if part.startswith("OPTIONS OF ALL VERBS"))

    for name, verb in VERBS.items():
        assert verb.summary in by_verb[name]
        for action in parser_of(name, verb)._actions[1:]:
            there = by_verb[name] + (for_all if verb.asks_daemon else "")
            assert str(action.help) in there, (name, action.dest)
            assert all(option in there for option in action.option_strings), (name, action.dest)
    assert all(f"\n{code}\n{meaning}\n" in page for code, meaning in MEANINGS.items())


def keys(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of every table, however deep."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {}).items()
        for part in schema.values():
            yield from keys(part)


def test_every_key_is_there_with_its_default_and_its_meaning(pages: dict[str, str]) -> None:
    page = plain(pages["kernels.toml.5"])
    found = [
        (name, key) for name, key in keys(json_schema()) if name not in ("supervisor", "hooks", "kernels")
    ]

    assert len(found) > 60
    for name, key in found:
        assert re.search(rf"^{name}( = .*)?\n{re.escape(key['description'])} \(", page, re.MULTILINE), name
    assert 'restart = "always"\nafter which deaths ("always" or "on-failure" or "never"; live)\n' in page
    assert "jitter = 0.2\nshare by which a delay varies (number, at least 0, at most 1; live)\n" in page
    assert [] == [table for table in ("[supervisor]", "[[hooks]]", "[kernels.NAME]") if table not in page]


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff (Debian: groff-base) is not installed")
@pytest.mark.parametrize("name", PAGES)
def test_groff_finds_nothing_wrong_with_it(pages: dict[str, str], name: str) -> None:
    done = subprocess.run(
        ["groff", "-k", "-man", "-ww", "-Tutf8", "-z"],
        input=pages[name],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert "" == done.stderr
