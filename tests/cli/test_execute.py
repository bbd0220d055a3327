"""``exec`` and ``console`` against a real kernel, which a daemon without kernels pretends to own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from supervisor.cli import execute as execution
from supervisor.core import events
from tests.cli.tools import Done, begin, environment, read_until, run
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.kernels.using import is_ready
from tests.waiting import wait_for


class Owner(FakeSteering):
    """Interrupts and kills a real process when it is told to."""

    process: subprocess.Popen[bytes]

    async def order(self, order: events.Order, *, wait: bool, timeout: float | None) -> dict[str, Any]:
        if isinstance(order, events.Interrupt):
            self.process.send_signal(signal.SIGINT)
        return await super().order(order, wait=wait, timeout=timeout)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    directory = tmp_path_factory.mktemp("kernel")
    file, _ = write_connection_file(str(directory / "kernel-robot.json"))
    env = environment(directory, IPYTHONDIR=str(directory))
    with subprocess.Popen([sys.executable, "-m", "ipykernel_launcher", "-f", file], env=env) as process:
        try:
            client = BlockingKernelClient(connection_file=file)
            client.load_connection_file()
            client.start_channels()
            wait_for(lambda: is_ready(client))
            client.stop_channels()
            yield process, Path(file)
        finally:
            process.kill()


@pytest.fixture
def owner(kernel: tuple[subprocess.Popen[bytes], Path], tmp_path: Path) -> Iterator[Owner]:
    owner = Owner(tmp_path)
    owner.process, file = kernel
    owner.views["robot"]["connection_file"] = str(file)
    with FakeDaemon(owner, tmp_path / "s"):
        yield owner


def waits_for(file: Path) -> str:
    """Code that ends when the file is there."""
    return f"import pathlib, time\nwhile not pathlib.Path({str(file)!r}).exists(): time.sleep(0.01)"


def execute(home: Path, code: str, *more: str, stdin: str = "") -> Done:
    return run(home, "exec", "robot", "--socket", str(home / "s"), *more, "--", code, stdin=stdin)


def test_streams_and_results_go_where_they_belong(owner: Owner, tmp_path: Path) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); 6 * 7"

    assert (0, "out\n42\n", "err\n") == execute(tmp_path, code)


def test_an_exception_is_1_with_its_traceback_without_colours(owner: Owner, tmp_path: Path) -> None:
    code, out, err = execute(tmp_path, "1 / 0")

    assert (1, "") == (code, out)
    assert "ZeroDivisionError: division by zero" in err
    assert "\x1b" not in err


def test_code_comes_from_stdin_and_may_begin_with_a_dash(owner: Owner, tmp_path: Path) -> None:
    assert (0, "3\n", "") == execute(tmp_path, "-", stdin="a = 1\na + 2\n")
    assert (0, "-1\n", "") == execute(tmp_path, "-2+1")


def test_rich_output_is_shown_as_text(owner: Owner, tmp_path: Path) -> None:
    code = "from IPython.display import HTML, display; display(HTML('<b>x</b>'))"

    assert (0, "<IPython.core.display.HTML object>\n", "") == execute(tmp_path, code)


def test_for_machines_every_output_is_a_line_of_json(owner: Owner, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in execute(tmp_path, "print('x'); 5", "--json").out.splitlines()]

    # The kernel sends what is printed in as many pieces as it likes.
    *printed, result, reply = lines
    assert {"stream"} == {line.get("output_type") for line in printed}
    assert "x\n" == "".join(line["text"] for line in printed)
    assert ("execute_result", "5") == (result["output_type"], result["data"]["text/plain"])
    assert "ok" == reply["status"]


def test_output_comes_as_it_is_written(owner: Owner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = f"print('first', flush=True)\n{waits_for(go)}\nprint('second')"
    process = begin(tmp_path, "exec", "robot", code, "--socket", str(tmp_path / "s"))
    read_until(process.stdout, "first")
    go.touch()
    read_until(process.stdout, "second")
    process.communicate(timeout=30)

    assert 0 == process.returncode


def test_the_code_may_not_ask_for_input(owner: Owner, tmp_path: Path) -> None:
    code, _, err = execute(tmp_path, "input()")

    assert 1 == code
    assert "StdinNotImplementedError" in err


def test_ctrl_c_interrupts_the_kernel_through_the_daemon(owner: Owner, tmp_path: Path) -> None:
    code = "import time; print('on', flush=True); time.sleep(1000)"
    process = begin(tmp_path, "exec", "robot", code, "--socket", str(tmp_path / "s"))
    read_until(process.stdout, "on")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert 1 == process.returncode
    assert "KeyboardInterrupt" in err
    assert [events.Interrupt("robot")] == owner.orders
    assert (0, "1\n", "") == execute(tmp_path, "1")


def test_the_second_ctrl_c_gives_up(owner: Owner, tmp_path: Path) -> None:
    stubborn = (
        "import signal\nbefore = signal.signal(signal.SIGINT, lambda *_: None)\nprint('on', flush=True)\n"
        f"{waits_for(tmp_path / 'go')}\n"
        "signal.signal(signal.SIGINT, before)"
    )
    process = begin(tmp_path, "exec", "robot", stubborn, "--socket", str(tmp_path / "s"))
    read_until(process.stdout, "on")
    process.send_signal(signal.SIGINT)
    read_until(process.stderr, "Ctrl-C again gives up")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    (tmp_path / "go").touch()

    assert 1 == process.returncode
    assert "given up; robot may still execute it" in err


def test_an_execution_that_takes_too_long_is_left_alone(owner: Owner, tmp_path: Path) -> None:
    go = tmp_path / "go"

    code, _, err = execute(tmp_path, waits_for(go), "--timeout", "0.5")
    go.touch()

    assert 1 == code
    assert "no end after 0.5 s; robot goes on executing it: kernel-supervisor interrupt robot" in err


def test_code_waits_for_a_kernel_that_another_client_keeps_busy(owner: Owner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    busy = f"print('on', flush=True)\n{waits_for(go)}"
    first = begin(tmp_path, "exec", "robot", busy, "--socket", str(tmp_path / "s"))
    read_until(first.stdout, "on")
    second = begin(tmp_path, "exec", "robot", "print('mine')", "--socket", str(tmp_path / "s"))
    threading.Timer(1.0, go.touch).start()
    out, _ = second.communicate(timeout=30)
    first.communicate(timeout=30)

    assert (0, "mine\n") == (second.returncode, out)


def end_meanwhile(owner: Owner, home: Path, **view: Any) -> str:
    """What is told when the kernel's view becomes this during an execution."""
    code = f"print('on', flush=True)\n{waits_for(home / 'go')}"
    process = begin(home, "exec", "robot", code, "--socket", str(home / "s"))
    read_until(process.stdout, "on")
    owner.views["robot"].update(view)
    _, err = process.communicate(timeout=30)
    (home / "go").touch()
    assert 1 == process.returncode
    return err


def death_of(generation: int) -> dict[str, Any]:
    return {"cause": "killed", "signal": "SIGKILL", "at": None, "generation": generation}


@pytest.mark.parametrize("then", [{"generation": 2}, {"phase": "backoff"}])
def test_a_kernel_that_dies_meanwhile_is_told(owner: Owner, tmp_path: Path, then: dict[str, Any]) -> None:
    err = end_meanwhile(owner, tmp_path, last_death=death_of(1), **then)

    assert "robot died: killed by SIGKILL; started again as run 2, its variables are lost.\n" in err


@pytest.mark.parametrize("old", [None, death_of(1)])
def test_an_end_that_was_ordered_meanwhile_is_not_told_as_an_old_death(
    owner: Owner, tmp_path: Path, old: dict[str, Any] | None
) -> None:
    owner.views["robot"].update({"generation": 2, "last_death": old})

    err = end_meanwhile(owner, tmp_path, generation=3)

    assert err.endswith("robot was restarted; started again as run 3, its variables are lost.\n")


def test_a_stop_that_was_ordered_meanwhile_is_told(owner: Owner, tmp_path: Path) -> None:
    owner.views["robot"].update({"generation": 2, "last_death": death_of(1)})

    err = end_meanwhile(owner, tmp_path, phase="stopped", pid=None)

    assert err.endswith("kernel-supervisor: robot was stopped.\n")


def test_a_kernel_that_is_not_running_is_told(owner: Owner, tmp_path: Path) -> None:
    owner.views["robot"]["phase"] = "stopped"

    code, _, err = execute(tmp_path, "1")

    assert (1, "kernel-supervisor: robot is stopped, not running: kernel-supervisor start robot\n") == (
        code,
        err,
    )


class NullParent:
    """A session and a socket at once; its kernel sends null for a parent that there is not."""

    session = property(lambda self: self)

    def __init__(self) -> None:
        self.messages = [{"parent_header": None}, {"parent_header": {"msg_id": "1"}}]

    def poll(self, _timeout: int) -> bool:
        return bool(self.messages)

    def recv(self, _socket: object, mode: int) -> tuple[None, dict[str, Any]]:
        return None, self.messages.pop(0)


def test_a_message_without_a_parent_is_nobodys_answer() -> None:
    talk = execution._Conversation.__new__(execution._Conversation)
    talk._channels, talk._request = NullParent(), "1"

    assert [{"parent_header": {"msg_id": "1"}}] == list(talk._messages(talk._channels))
