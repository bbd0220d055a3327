"""The verbs that lead to a kernel: connection and console."""

from __future__ import annotations

import json
import os

import pytest

from supervisor.cli import using
from supervisor.cli.program import main
from tests.cli.tools import Cli
from tests.control.fake_steering import FakeDaemon, FakeSteering


def test_connection_prints_the_path_or_the_content_without_the_key(cli: Cli) -> None:
    assert cli("connection", "robot").out.endswith("/kernel-robot.json\n")
    assert "key" not in json.loads(cli("connection", "robot", "--json").out)["content"]


def test_console_becomes_the_jupyter_console(
    daemon: FakeDaemon, steering: FakeSteering, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = steering.tmp / "kernel-robot.json"
    file.touch()
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda _file, command: became.append(command))
    monkeypatch.setattr(using, "console_command", lambda: ["jupyter-console"])
    main(["console", "robot", "--socket", str(daemon.path)])

    assert [["jupyter-console", "--existing", str(file)]] == became


def test_a_console_that_is_not_installed_is_told(
    daemon: FakeDaemon,
    steering: FakeSteering,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (steering.tmp / "kernel-robot.json").touch()
    monkeypatch.setattr(using, "console_command", lambda: None)

    assert 1 == main(["console", "robot", "--socket", str(daemon.path)])
    assert "jupyter-console is not installed: pip install jupyter-console" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("words", [["connection", "robot"], ["console", "robot"], ["exec", "robot", "1"]])
def test_a_connection_file_that_another_user_planted_is_given_to_nobody(
    cli: Cli, steering: FakeSteering, words: list[str]
) -> None:
    file = steering.tmp / "kernel-robot.json"
    file.write_text("{}")
    os.chown(file, 4242, -1)

    code, out, err = cli(*words)

    assert (1, "") == (code, out)
    assert f"{file}: another user (uid 4242) put it there: remove it" in err
