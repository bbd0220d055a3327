"""The verbs, each with its help."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.cli.verbs import VERBS
from tests.cli.tools import run


def test_no_argument_is_help(tmp_path: Path) -> None:
    code, out, err = run(tmp_path)

    assert (0, "") == (code, err)
    for verb in VERBS:
        assert f"  {verb} " in out


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(tmp_path: Path, verb: str) -> None:
    code, out, _ = run(tmp_path, verb, "--help")

    assert 0 == code
    assert out.startswith(f"usage: kernel-supervisor {verb}")
