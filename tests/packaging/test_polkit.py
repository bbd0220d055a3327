"""The example of a polkit rule, as JavaScript: whom it lets do what."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.cli.tools import ROOT

ASK = """
let rule;
const polkit = { addRule: (given) => { rule = given; }, Result: { YES: "yes" } };
eval(require("fs").readFileSync(process.argv[1], "utf8"));
const [id, unit, verb, group] = process.argv.slice(2);
const action = { id, lookup: (key) => ({ unit, verb })[key] };
console.log(JSON.stringify(rule(action, { isInGroup: (asked) => asked === group }) ?? null));
"""
MANAGE, ONE, OPERATORS = (
    "org.freedesktop.systemd1.manage-units",
    "kernel-supervisor.service",
    "kernel-operators",
)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ((MANAGE, ONE, "restart", OPERATORS), "yes"),
        ((MANAGE, "kernel-supervisor@team.service", "stop", OPERATORS), "yes"),
        ((MANAGE, ONE, "restart", "users"), None),
        ((MANAGE, ONE, "set-property", OPERATORS), None),
        ((MANAGE, "ssh.service", "restart", OPERATORS), None),
        ((MANAGE, "kernel-supervisor-x.service", "restart", OPERATORS), None),
        (("org.freedesktop.systemd1.manage-unit-files", ONE, "restart", OPERATORS), None),
    ],
)
def test_operators_may_start_stop_restart_and_reload_the_service_and_nothing_else(
    words: tuple[str, ...], answer: str | None
) -> None:
    rule = str(ROOT / "packaging/kernel-supervisor.rules")

    done = subprocess.run(["node", "-e", ASK, rule, *words], capture_output=True, timeout=60, check=True)

    assert answer == json.loads(done.stdout)
