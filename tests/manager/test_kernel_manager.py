"""Each row of the API of IPython's KernelManager: never started, alive, dead, shut down."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
from math import inf, nan
from pathlib import Path
from typing import Any, ClassVar

import pytest
import zmq
from traitlets import Bool, Unicode
from traitlets.config import Config, LoggingConfigurable

from supervisor.kernel.connection import CHANNELS
from supervisor.manager import KernelManager
from supervisor.settings.config import BackoffConfig
from tests.kernels.using import MINI, mini
from tests.manager.managing import Make, die, environment, ready
from tests.waiting import DEADLINE, wait_for


def ports(manager: KernelManager) -> list[int]:
    return [getattr(manager, f"{channel}_port") for channel in CHANNELS]


# Attributes


def test_the_defaults_are_those_that_people_know(make: Make, tmp_path: Path) -> None:
    manager = KernelManager()

    assert "python3" == manager.kernel_name
    assert "127.0.0.1" == manager.ip
    assert "tcp" == manager.transport
    assert [0] * 5 == ports(manager)
    assert manager.autorestart is True
    assert 1.0 == manager.shutdown_wait_time
    assert manager.has_kernel is False
    assert f"{tmp_path}/kernel-{manager.kernel_id}.json" == manager.connection_file
    assert manager.key == manager.session.key
    assert 64 == len(manager.key)


def test_the_constructor_takes_the_attributes_as_keywords(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    manager = make(
        kernel_name="other",
        kernel_id="seven",
        connection_file=str(file),
        shell_port=23456,
        key="secret-of-mine",
        autorestart=False,
        shutdown_wait_time=3.0,
    )

    assert ("other", "seven", str(file)) == (manager.kernel_name, manager.kernel_id, manager.connection_file)
    assert (23456, False, 3.0) == (manager.shell_port, manager.autorestart, manager.shutdown_wait_time)
    assert b"secret-of-mine" == manager.key == manager.session.key
    assert 23456 == manager.shell_port


def test_a_key_and_ports_that_were_given_are_those_of_the_file(make: Make) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    manager = ready(make(key=b"secret-of-mine", shell_port=port))

    content = json.loads(Path(manager.connection_file).read_text())
    assert ("secret-of-mine", port) == (content["key"], content["shell_port"])


def test_settings_are_checked_like_those_of_a_file(make: Make) -> None:
    assert make(settings={"backoff": {"next": 2.0}}).settings["backoff"].next == 2.0
    with pytest.raises(ValueError, match="'argv' is not one of max_restarts"):
        make(settings={"argv": ["x"]})
    for wrong, mistake in (
        ({"max_restarts": -1}, "settings.max_restarts: -1 is out of range"),
        ({"restart_window": inf}, "settings.restart_window: inf is not a finite number"),
        ({"backoff": {"nxt": 1.0}}, 'settings.backoff.nxt: no such key; did you mean "next"'),
        ({"heartbeat": {"interval": nan}}, "settings.heartbeat.interval: nan is not a finite number"),
    ):
        with pytest.raises(ValueError, match=mistake):
            make(settings=wrong)
    given = {"start_timeout": inf, "backoff": BackoffConfig(next=3.0)}
    assert (inf, 3.0) == (
        make(settings=given).settings["start_timeout"],
        make(settings=given).settings["backoff"].next,
    )


def test_neither_key_nor_environment_are_in_the_repr(make: Make) -> None:
    manager = make(key="secret-of-mine")
    manager.start_kernel(env={**os.environ, "TOKEN": "hush-hush"})

    assert "secret-of-mine" not in repr(manager)
    assert "hush-hush" not in repr(manager) + repr(manager._carrier.launcher.launch)  # type: ignore[union-attr]


class Traits(KernelManager):
    """A subclass as it was written for traitlets."""

    autorestart = Bool(False).tag(config=True)
    shutdown_wait_time = 3.5
    kernel_cmd = MINI
    ip = "127.0.0.2"
    shell_port = 23456
    client_class = "jupyter_client.asynchronous.client.AsyncKernelClient"
    settings: ClassVar[dict[str, Any]] = {"max_restarts": 1}
    flavour = Unicode("plain", config=True)


class Further(Traits):
    kernel_name = "other"
    autorestart = True


def test_what_a_subclass_says_are_the_defaults_of_its_constructor(make: Make) -> None:
    manager, further = Traits(), Further(shell_port=0, flavour="sweet")

    assert (False, 3.5, MINI, "127.0.0.2", 23456) == (
        *(manager.autorestart, manager.shutdown_wait_time, manager.kernel_cmd),
        *(manager.ip, manager.shell_port),
    )
    assert ("never", "plain", "AsyncKernelClient") == (
        *(manager._config().restart, manager.flavour),
        type(manager.client()).__name__,
    )
    assert (True, 0, "other", 3.5, "sweet") == (
        *(further.autorestart, further.shell_port, further.kernel_name),
        *(further.shutdown_wait_time, further.flavour),
    )
    further.autorestart = False
    assert "never" == further._config().restart
    assert (True, 0) == (make().autorestart, make().shell_port)


def test_a_configuration_of_traitlets_counts_less_than_a_keyword(make: Make) -> None:
    config = Config()
    config.KernelManager.autorestart = False
    config.KernelManager.shutdown_wait_time = 7.0
    config.Traits.shutdown_wait_time = 8.0
    config.Traits.no_such_attribute = 1
    parent = LoggingConfigurable(config=config)

    assert (False, 7.0) == ((m := make(config=config)).autorestart, m.shutdown_wait_time)
    assert 8.0 == Traits(parent=parent).shutdown_wait_time
    assert 9.0 == Traits(parent=parent, shutdown_wait_time=9.0).shutdown_wait_time


def test_keywords_of_the_originals_are_accepted_or_refused_by_name(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("mine")
    context = zmq.Context()
    with caplog.at_level(logging.DEBUG):
        manager = make(log=log, context=context, cache_ports=True, parent=None, data_dir="/no/such")

    assert (log, context) == (manager.log, manager.context)
    assert ["cache_ports: is of no use"] == [
        record.getMessage().partition(" to ")[0] for record in caplog.records if record.name == "mine"
    ]
    context.destroy()
    for wrong in ("shutdown_wait", "_carrier", "has_no_kernel"):
        with pytest.raises(TypeError, match=f"{wrong}: no such keyword"):
            make(**{wrong: 1})


def test_a_kernel_has_the_id_of_its_constructor_or_of_its_start(make: Make) -> None:
    given, started = make(kernel_id="one"), make()
    given.start_kernel(kernel_id="two")
    started.start_kernel(kernel_id="three")

    assert ("one", "three") == (given.kernel_id, started.kernel_id)


def test_what_the_originals_tell_is_told(make: Make) -> None:
    manager = make()
    assert (None, False, True) == (manager.kernel, manager.ready.done(), manager.owns_kernel)
    manager.start_kernel(env={**os.environ, "COLOUR": "red"})
    assert (None, False) == (manager.ready.result(0), manager.shutting_down)
    manager.update_env(env={"COLOUR": "blue"})
    assert "red" == environment(manager)["COLOUR"]
    manager.restart_kernel(now=True)
    assert "blue" == environment(manager)["COLOUR"]
    kernel = manager.kernel
    assert kernel is not None
    assert (manager.pid, None) == (kernel.pid, kernel.poll())

    manager.shutdown_kernel(now=True)

    assert (True, -signal.SIGKILL) == (manager.shutting_down, kernel.returncode)
    with pytest.raises(FileNotFoundError):
        manager.start_kernel(kernel_cmd=["/no/such/program"])
    assert isinstance(manager.ready.exception(0), FileNotFoundError)


def test_the_kernelspec_is_that_of_the_originals(make: Make) -> None:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    manager = make(kernel_name="python3")
    assert (True, "python") == (manager.ipykernel, manager.kernel_spec.language)
    assert isinstance(manager.kernel_spec_manager, KernelSpecManager)
    manager.kernel_name = "no-such-kernel"
    with pytest.raises(NoSuchKernel):
        _ = manager.kernel_spec
    assert manager.ipykernel is False


def test_it_is_registered_and_a_context_manager(make: Make) -> None:
    from jupyter_client.managerabc import KernelManagerABC

    assert issubclass(KernelManager, KernelManagerABC)
    with make() as manager:
        manager.start_kernel()
        assert manager.is_alive()
    assert (None, 0) == (manager.pid, manager.last_exit and manager.last_exit.code)


@pytest.mark.parametrize("end", ["raise SystemExit", "client.shutdown()"])
def test_an_end_that_was_asked_for_is_no_death(make: Make, end: str) -> None:
    manager = ready(make(kernel_cmd=[], settings={"backoff": {"next": 0.0}}))
    told: list[str] = []
    for event in ("restart", "dead", "restarted"):
        manager.add_restart_callback(lambda event=event: told.append(event), event)  # type: ignore[misc]
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=DEADLINE)

    client.shutdown() if end == "client.shutdown()" else client.execute("exit()")
    wait_for(lambda: not manager.is_alive())

    client.stop_channels()
    wait_for(lambda: not manager.has_kernel)
    assert ([], 0) == (told, manager.last_exit and manager.last_exit.code)
    manager.start_kernel()
    assert manager.is_alive()


def test_it_is_restarted_even_so_where_that_is_wished(make: Make) -> None:
    manager = make(kernel_cmd=mini("--exit-after", "0.05"), settings={"restart": "always", "max_restarts": 0})
    manager.start_kernel()
    pid = manager.pid

    wait_for(lambda: manager.pid not in (pid, None))
    assert "never" == make(settings={"restart": "always"}, autorestart=False)._config().restart


def test_resources_of_a_kernel_that_has_died_are_cleaned_up_for_good(make: Make) -> None:
    manager = ready(make(settings={"backoff": {"initial": 600.0}}))
    os.kill(manager.pid or 0, signal.SIGKILL)
    wait_for(lambda: manager.pid is None)
    assert manager.has_kernel

    manager.cleanup_resources(restart=True)
    assert manager.has_kernel
    manager.cleanup_resources()

    assert (False, False) == (manager.has_kernel, Path(manager.connection_file).exists())
    ready(manager)
    manager.cleanup_resources()
    assert manager.is_alive()


# start_kernel


def test_popen_keywords_are_passed_on_and_remembered(make: Make, tmp_path: Path) -> None:
    output = tmp_path / "output"
    manager = make()
    with output.open("wb") as file:
        ready(
            manager,
            cwd=str(tmp_path),
            env={**os.environ, "COLOUR": "red"},
            stderr=file,
            extra_arguments=["--say", "hello there"],
        )
        manager.restart_kernel(now=True)
        manager.wait_ready()

    assert tmp_path == Path(f"/proc/{manager.pid}/cwd").readlink()
    assert "red" == environment(manager)["COLOUR"]
    assert "hello there\nhello there\n" == output.read_text()


def test_a_kernel_inherits_nothing_that_is_about_us_alone_but_ends_with_us(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    tied, independent = make(), make()
    tied.start_kernel()
    independent.start_kernel(independent=True)

    assert "NOTIFY_SOCKET" not in environment(tied)
    assert str(os.getpid()) == environment(tied)["JPY_PARENT_PID"]
    assert "JPY_PARENT_PID" not in environment(independent)


def test_a_transport_that_there_is_not_is_named_before_anything_is_launched(make: Make) -> None:
    with pytest.raises(ValueError, match="transport: 'udp' is not one of 'tcp', 'ipc'"):
        make(transport="udp").start_kernel()


@pytest.mark.parametrize("name", ["kernel_cmd", "extra_arguments"])
def test_a_command_that_is_a_text_is_refused_and_not_taken_letter_by_letter(make: Make, name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: a list of words, not a text"):
        make(**{name: "python -m ipykernel_launcher"})
    with pytest.raises(TypeError, match=f"{name}: a list of words, not a text"):
        make().start_kernel(**{name: "python -m ipykernel_launcher"})


def test_an_address_that_is_not_local_is_a_runtime_error(make: Make) -> None:
    manager = make(ip="192.0.2.1")

    with pytest.raises(RuntimeError, match=r"'192\.0\.2\.1' is not an address of this machine"):
        manager.start_kernel()

    assert not Path(manager.connection_file).exists()


@pytest.mark.parametrize(
    ("command", "options", "error"),
    [
        (["/no/such/program", "{connection_file}"], {}, FileNotFoundError),
        (["no-such-program"], {}, FileNotFoundError),
        (["{executable_of_mine}"], {"executable_of_mine": "/no/such"}, FileNotFoundError),
        (["/etc/passwd"], {}, PermissionError),
        (MINI, {"cwd": "/no/such/directory"}, FileNotFoundError),
        (MINI, {"nonsense": 1}, TypeError),
    ],
)
def test_a_command_that_cannot_be_executed_leaves_nothing_behind(
    make: Make, tmp_path: Path, command: list[str], options: dict[str, Any], error: type[Exception]
) -> None:
    manager = make(kernel_cmd=command)
    told: list[str] = []
    manager.add_restart_callback(lambda: told.append("dead"), "dead")

    with pytest.raises(error):
        manager.start_kernel(**options)

    assert manager.has_kernel is False
    assert manager.is_alive() is False
    assert [] == list(tmp_path.iterdir())
    assert [] == told


def test_a_kernelspec_that_is_not_installed_is_no_such_kernel(make: Make) -> None:
    from jupyter_client.kernelspec import NoSuchKernel

    manager = make(kernel_cmd=(), kernel_name="no-such-kernel")

    with pytest.raises(NoSuchKernel):
        manager.start_kernel()
    with pytest.raises(NoSuchKernel):
        manager.format_kernel_cmd()


def test_a_taken_port_is_a_runtime_error(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        manager = make(shell_port=port)

        with pytest.raises(RuntimeError, match=f"port {port} on 127.0.0.1 is in use.*newports=True"):
            manager.start_kernel()


def test_a_start_after_shutdown_has_the_same_address(make: Make) -> None:
    manager = ready(make())
    before = Path(manager.connection_file).read_bytes()
    manager.shutdown_kernel()

    ready(manager)

    assert before == Path(manager.connection_file).read_bytes()


# restart_kernel


def test_a_restart_of_what_was_never_started_is_a_runtime_error(make: Make) -> None:
    with pytest.raises(RuntimeError, match="no kernel was started"):
        make().restart_kernel()


def test_a_restart_after_shutdown_or_death_is_a_start(make: Make) -> None:
    manager = ready(make(autorestart=False))
    manager.shutdown_kernel()

    manager.restart_kernel()
    assert manager.is_alive() is True

    die(manager)
    assert manager.has_kernel is False
    manager.restart_kernel()
    assert manager.is_alive() is True


def test_the_update_of_a_restart_persists(make: Make) -> None:
    manager = ready(make(), env={**os.environ, "COLOUR": "red"})

    manager.restart_kernel(now=True, env={**os.environ, "COLOUR": "blue"})
    manager.restart_kernel(now=True)

    assert "blue" == environment(manager)["COLOUR"]


def test_new_ports_are_had_on_demand_and_kept(make: Make) -> None:
    manager = ready(make())
    before, key = ports(manager), manager.key

    manager.restart_kernel(newports=True)
    after = ports(manager)
    manager.restart_kernel(now=True)

    assert not set(before) & set(after)
    assert after == ports(manager)
    assert key == manager.key


# shutdown_kernel, request_shutdown, finish_shutdown, cleanup


def test_without_a_kernel_a_shutdown_is_no_error_and_touches_no_file(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "of-somebody-else.json"
    file.write_text("{}")
    manager = make(connection_file=file)

    manager.shutdown_kernel()
    manager.shutdown_kernel(now=True)
    manager.request_shutdown()
    manager.finish_shutdown()
    manager.cleanup()

    assert file.exists()
    ready(manager)
    manager.shutdown_kernel()
    manager.shutdown_kernel()
    manager.finish_shutdown()
    assert not file.exists()


def test_a_shutdown_asks_and_removes_the_file(make: Make) -> None:
    manager = ready(make())

    manager.shutdown_kernel()

    assert manager.last_exit is not None
    assert 0 == manager.last_exit.code
    assert not Path(manager.connection_file).exists()
    assert (False, False) == (manager.is_alive(), manager.has_kernel)


def test_a_shutdown_now_kills(make: Make) -> None:
    manager = ready(make())

    manager.shutdown_kernel(now=True)

    assert manager.last_exit is not None
    assert "SIGKILL" == manager.last_exit.signal
    assert not Path(manager.connection_file).exists()


def test_a_shutdown_for_a_restart_keeps_file_and_ports(make: Make) -> None:
    manager = ready(make())
    before = Path(manager.connection_file).read_bytes()

    manager.shutdown_kernel(restart=True)

    assert before == Path(manager.connection_file).read_bytes()
    assert manager._carrier.connection.is_held  # type: ignore[union-attr]
    manager.start_kernel()
    assert before == Path(manager.connection_file).read_bytes()
    manager.shutdown_kernel(restart=True)
    manager.shutdown_kernel()
    assert not Path(manager.connection_file).exists()


def test_a_request_is_sent_without_waiting_and_the_kernel_does_not_come_back(make: Make) -> None:
    manager = ready(make())
    pid = manager.pid

    manager.request_shutdown()

    wait_for(lambda: not manager.has_kernel)
    assert manager.last_exit is not None
    assert 0 == manager.last_exit.code
    assert manager.is_alive() is False
    assert manager.pid != pid
    assert Path(manager.connection_file).exists()
    manager.cleanup()
    assert not Path(manager.connection_file).exists()


def test_a_request_is_not_followed_by_signals_and_a_death_after_it_is_final(make: Make) -> None:
    manager = ready(make(kernel_cmd=mini("--ignore-shutdown"), shutdown_wait_time=0.1))

    manager.request_shutdown()
    with pytest.raises(RuntimeError, match="a kernel runs already"):
        manager.start_kernel()
    until_later = 0.5
    with pytest.raises(AssertionError):
        _until_dead(manager, until_later)
    manager.signal_kernel(signal.SIGKILL)

    wait_for(lambda: not manager.has_kernel)
    assert manager.is_alive() is False


def _until_dead(manager: KernelManager, seconds: float) -> None:
    import select

    pidfd = os.pidfd_open(manager.pid or 0)
    try:
        assert select.select([pidfd], [], [], seconds)[0]
    finally:
        os.close(pidfd)


def test_finish_waits_then_signals_and_sends_no_request(make: Make) -> None:
    manager = ready(make())

    manager.finish_shutdown(waittime=0.2)

    assert manager.last_exit is not None
    assert "SIGTERM" == manager.last_exit.signal
    assert manager.has_kernel is False
    assert Path(manager.connection_file).exists()


def test_cleanup_keeps_the_file_on_demand_and_may_be_repeated(make: Make) -> None:
    manager = ready(make())
    manager.shutdown_kernel(restart=True)

    manager.cleanup(connection_file=False)
    assert Path(manager.connection_file).exists()
    assert not manager._carrier.connection.is_held  # type: ignore[union-attr]
    manager.cleanup()
    manager.cleanup()

    assert not Path(manager.connection_file).exists()


def test_cleanup_of_a_living_kernel_does_not_end_its_supervision(make: Make) -> None:
    manager = ready(make())
    address = ports(manager)

    manager.cleanup()
    assert not Path(manager.connection_file).exists()
    die(manager)

    wait_for(manager.is_alive)
    assert address == ports(manager)
    assert Path(manager.connection_file).exists()


# interrupt_kernel, signal_kernel, is_alive, has_kernel


def test_without_a_kernel_interrupt_and_signal_are_runtime_errors(make: Make) -> None:
    manager = make(autorestart=False)
    for _ in ("never started", "dead", "shut down"):
        with pytest.raises(RuntimeError, match="no kernel is running"):
            manager.interrupt_kernel()
        with pytest.raises(RuntimeError, match="no kernel is running"):
            manager.signal_kernel(0)
        assert (False, False) == (manager.is_alive(), manager.has_kernel)
        if _ == "never started":
            ready(manager)
            assert (True, True) == (manager.is_alive(), manager.has_kernel)
            die(manager)
        else:
            manager.shutdown_kernel()


def test_a_signal_reaches_the_group(make: Make) -> None:
    manager = ready(make())
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=30)
    reply = client.execute("import subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid)")
    child = int(_output(client, reply))
    client.stop_channels()
    manager.signal_kernel(0)
    assert manager.is_alive() is True
    with pytest.raises(ValueError, match="signum: 999 is not a signal"):
        manager.signal_kernel(999)

    manager.signal_kernel(signal.SIGKILL)

    wait_for(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text())


def _output(client: Any, message_id: str) -> str:
    while True:
        message = client.get_iopub_msg(timeout=30)
        if message["parent_header"].get("msg_id") == message_id and message["msg_type"] in (
            "stream",
            "error",
        ):
            return str(message["content"]["text"])


def test_an_interrupt_by_message_ends_what_is_executed(make: Make) -> None:
    manager = ready(make(settings={"interrupt_mode": "message"}))
    pid = manager.pid
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=30)
    message_id = client.execute("import time; print('begun', flush=True)\nwhile True: time.sleep(0.01)")
    wait_for(lambda: client.get_iopub_msg(timeout=30)["content"].get("execution_state") == "busy")

    def is_interrupted() -> bool:
        manager.interrupt_kernel()
        try:
            reply = client.get_shell_msg(timeout=0.2)
        except Exception:  # not yet: it had not begun to execute
            return False
        return (message_id, "KeyboardInterrupt") == (
            reply["parent_header"]["msg_id"],
            reply["content"].get("ename"),
        )

    wait_for(is_interrupted)
    client.stop_channels()
    assert pid == manager.pid


def test_an_interrupt_of_a_starting_kernel_waits_until_it_is_ready(make: Make) -> None:
    manager = make(kernel_cmd=mini("--start-delay", "0.3"))
    manager.start_kernel()
    pid = manager.pid

    manager.interrupt_kernel()
    manager.wait_ready()

    assert pid == manager.pid


def test_has_kernel_through_crashes_but_not_once_given_up(make: Make) -> None:
    manager = ready(make(settings={"max_restarts": 1, "backoff": {"initial": 0.3, "jitter": 0.0}}))
    dead: list[bool] = []
    manager.add_restart_callback(lambda: dead.append(True), "dead")
    pid = manager.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: manager.pid is None)

    assert (False, True) == (manager.is_alive(), manager.has_kernel)
    wait_for(manager.is_alive)
    die(manager)
    wait_for(lambda: dead)

    assert (False, False) == (manager.is_alive(), manager.has_kernel)
    wait_for(lambda: not Path(manager.connection_file).exists())
    ready(manager)
    assert manager.has_kernel is True


# client, format_kernel_cmd


def test_a_client_may_be_had_before_the_start(make: Make) -> None:
    manager = make()
    client = manager.client()
    client.start_channels()
    address = ports(manager)

    manager.start_kernel()
    client.wait_for_ready(timeout=30)
    client.stop_channels()

    assert address == ports(manager)
    assert 0 not in address


def test_a_client_is_of_the_class_and_has_the_keywords_that_are_given(make: Make) -> None:
    from jupyter_client.blocking.client import BlockingKernelClient

    class Mine(BlockingKernelClient):
        pass

    assert type(make().client()) is BlockingKernelClient
    assert isinstance(make(client_class=Mine).client(), Mine)
    named = make(client_class="jupyter_client.asynchronous.client.AsyncKernelClient").client()
    assert "AsyncKernelClient" == type(named).__name__
    client = make().client(hb_port=4711, ip="127.0.0.3")
    assert (4711, "127.0.0.3") == (client.hb_port, client.ip)


def test_the_command_is_filled_in_as_it_is_launched(make: Make) -> None:
    manager = make(kernel_cmd=["python3", *MINI[1:], "--say", "{prefix} {cwd} {unknown} {"])

    before = manager.format_kernel_cmd(["--deaf"])
    assert [sys.executable, MINI[1], "-f", manager.connection_file, "--say"] == before[:5]
    assert f"{sys.prefix} {{cwd}} {{unknown}} {{" == before[5]
    assert "--deaf" == before[6]

    ready(manager, cwd="/", extra_arguments=["--exit-code", "1"])
    arguments = Path(f"/proc/{manager.pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    assert manager.format_kernel_cmd() == arguments
    assert f"{sys.prefix} / {{unknown}} {{" == arguments[5]
    assert ["--exit-code", "1"] == arguments[6:]


def test_a_start_that_takes_too_long_is_a_death_only_where_it_is_restarted(make: Make) -> None:
    deaf = mini("--deaf")
    settings = {"start_timeout": 0.2, "max_restarts": 1, "backoff": {"next": 0.0}}
    manager = make(kernel_cmd=deaf, settings=settings)
    manager.start_kernel()

    with pytest.raises(RuntimeError, match="given up: died 2 times"):
        manager.wait_ready(30)

    assert manager.last_exit is not None
    assert "start-timeout" == manager.last_exit.cause
    assert 60.0 == make()._config().start_timeout
    assert float("inf") == make(autorestart=False)._config().start_timeout
