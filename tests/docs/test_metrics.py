"""The alerts and the dashboard of the documents, held against the metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.observe.counts import Counts
from supervisor.page.metrics import exposition
from tests.page.test_metrics import STATUS, USAGE, counts

DOCS = Path(__file__).parents[2] / "docs"
NAME = re.compile(r"\bkernel_supervisor_\w+")


def names_told() -> set[str]:
    told = exposition(STATUS, USAGE, counts()) + exposition({"version": "1"}, {}, Counts().fields())
    return {line.split("{")[0].split(" ")[0] for line in told.splitlines() if line and line[0] != "#"}


@pytest.mark.parametrize("file", ["prometheus/rules.yml", "prometheus/dashboard.json"])
def test_what_they_ask_for_is_told(file: str) -> None:
    asked = set(NAME.findall((DOCS / file).read_text()))

    assert asked
    assert set() == asked - names_told()


def test_every_metric_is_in_the_table() -> None:
    table = (DOCS / "metrics.md").read_text()
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in names_told()}

    assert [] == [f for f in families if f"`{f.removeprefix('kernel_supervisor_')}" not in table]


def test_the_dashboard_is_one() -> None:
    dashboard = json.loads((DOCS / "prometheus/dashboard.json").read_text())

    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
@pytest.mark.parametrize("words", [("check", "rules", "rules.yml"), ("test", "rules", "rules.test.yml")])
def test_promtool_accepts_the_alerts(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *words], cwd=DOCS / "prometheus", capture_output=True, text=True, timeout=60, check=False
    )

    assert 0 == done.returncode, done.stdout + done.stderr
