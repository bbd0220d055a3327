"""What the verbs write into an environment of Jupyter, and what a server makes of it."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from pathlib import Path

import pytest
from jupyter_server.serverapp import ServerApp

from supervisor.cli.program import main
from supervisor.jupyter.extension import link
from supervisor.jupyter.recorder import Recorder
from supervisor.jupyter.serve import HeadlessServer
from tests.control.fake_steering import FakeDaemon, FakeSteering


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        monkeypatch.setenv(f"JUPYTER_{name}", str(tmp_path / name))
    (tmp_path / "CONFIG_DIR").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "CONFIG_DIR"


# jupyter_server 2.14 tells of the half file in a way of its own.
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")
def test_what_is_enabled_asks_the_daemon_that_was_named_and_a_file_of_the_users_is_left_alone(
    directory: Path,
) -> None:
    own = directory / "jupyter_server_config.json"
    own.write_text('{"half": ')

    assert 0 == main(["jupyter", "enable", "--user", "--config", "team.toml"])

    named = {"configuration": str(directory.parent / "team.toml")}
    app, headless, told = ServerApp(), HeadlessServer(), ServerApp()
    told.config.SupervisedKernels.configuration = "another"
    for each in (app, headless, told):
        link(each)
    assert named == app.config.SupervisedKernels
    assert {} == headless.config.SupervisedKernels
    assert {"configuration": "another"} == told.config.SupervisedKernels
    assert '{"half": ' == own.read_text()
    assert 0 == main(["jupyter", "disable", "--user"])
    assert [own] == [path for path in directory.rglob("*") if path.is_file()]
    assert 1 == main(["jupyter", "disable", "--user"])


def test_the_unit_has_the_words_of_its_command_line(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["serve", "--print-unit", "--root", "/a b/100%", "--port", "9", "--config", "/k.toml"])

    command = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("ExecStart="))
    words = shlex.split(command.removeprefix("ExecStart=").replace("%%", "%"))
    assert [sys.executable, "-m", "supervisor", "serve"] == words[:4]
    assert {"--root=/a b/100%", "--port=9", "--config=/k.toml", "--ip=127.0.0.1"} == set(words[4:])


def test_status_tells_that_nothing_is_enabled(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["jupyter", "status", "--json", "--socket", str(directory / "none")])

    found = json.loads(capsys.readouterr().out)
    assert ([], None) == (found["enabled"], found["kernels"])
    assert found["daemon"].startswith("does not answer")


@pytest.mark.parametrize(("number", "shown"), [(0, []), (2, ["b", "c"]), (10, ["a", "b", "c"])])
def test_the_last_cells_are_replayed(
    directory: Path, capsys: pytest.CaptureFixture[str], number: int, shown: list[str]
) -> None:
    steering, recording = FakeSteering(directory), Recorder("robot")
    steering.views["robot"]["id"] = "an-id"

    async def record() -> None:
        recording.record_to(directory / "recorder" / "an-id.sqlite", 1 << 20, 3600.0)
        for code in "abc":
            header = {"msg_id": code, "msg_type": "execute_request"}
            parts = [json.dumps(part).encode() for part in (header, {}, {"cellId": "cell"}, {"code": code})]
            recording.add("shell", "session", header, header, parts, missed=False)
        await recording.flush()

    asyncio.run(record())
    words = ["-n", str(number), "--json", "--socket", str(directory / "s")]
    with FakeDaemon(steering, directory / "s"):
        assert 0 == main(["replay", "robot", *words])
        assert 1 == main(["replay", "analysis", *words])

    assert shown == [json.loads(line)["code"] for line in capsys.readouterr().out.splitlines()]
