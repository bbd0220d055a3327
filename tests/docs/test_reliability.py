"""Each promise of docs/reliability.md and docs/security.md has the test that they name."""

from __future__ import annotations

import re

import pytest

from tests.cli.tools import ROOT

# `test_a_name`, its beginning or its end, where an ellipsis stands for the rest; or a file.
NAMED = re.compile(r"`((?:tests/[\w/]+\.py|test_\w+\.py)|[\w…]*_[\w…]+)`")
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))


def rows(page: str) -> list[str]:
    """The rows of the tables that name tests."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    return [
        line.rsplit("|", 2)[1] for line in lines if line.startswith("|") and "test" in line.rsplit("|", 2)[1]
    ]


@pytest.mark.parametrize("page", ["reliability.md", "security.md"])
def test_what_shows_a_promise_is_there(page: str) -> None:
    found = rows(page)
    assert len(found) > 5
    for row in found:
        for name in NAMED.findall(row):
            if name.endswith(".py"):
                assert [*(ROOT / "tests").rglob(name.rpartition("/")[2])], name
            else:
                pattern = name.replace("…", r"\w*")
                assert re.search(rf"def {'' if name.startswith('test_') else 'test_'}{pattern}\(", TESTS), (
                    name
                )
