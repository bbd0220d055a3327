"""The unit of docs/systemd.md for kernels of several accounts is the one that the checks try."""

from __future__ import annotations

import ast

from tests.cli.tools import ROOT


def test_the_drop_in_of_the_page_is_the_one_that_the_checks_use() -> None:
    tree = ast.parse((ROOT / "tests/systemd/checks_of_accounts.py").read_text())
    values = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "DROP_IN"
    ]  # type: ignore[attr-defined]
    (tried,) = (value.value for value in values if isinstance(value, ast.Constant))

    assert f"```ini\n{tried}```" in (ROOT / "docs/systemd.md").read_text()
