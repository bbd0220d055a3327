"""A whole life of the daemon, at its most talkative: it says no key and no environment value."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

from tests.e2e.daemon import Scene
from tests.waiting import DEADLINE, wait_for

SECRET = "hunter2-of-the-environment"
OTHER = "another-value-nobody-may-see"
# Where the key and the values belong, each 0600 and described in docs/security.md.
KEEPERS = re.compile(r"(kernels/[^/]*\.json.*|last-good\.toml|kernel-[^/]*\.json|kernels\.toml)$")
QUERIES = (
    "/v1/status",
    "/v1/kernels/a",
    "/v1/kernels/a/connection",
    "/v1/kernels/nobody",
    "/v1/events",
    "/v1/events?kernel=a&event=kernel.died",
    "/v1/openapi.json",
)


class Ears:
    """Collects whatever anybody can hear of a daemon."""

    def __init__(self, scene: Scene) -> None:
        self.heard: dict[str, str] = {}
        self._scene = scene

    def ask(self) -> None:
        """At the door."""
        for target in QUERIES:
            self._hear(f"GET {target}", self._get(target))
        for target, body in (
            ("/v1/plan", {}),
            ("/v1/plan", {"path": str(self._scene.config)}),
            ("/v1/reload", {}),
        ):
            self._hear(f"POST {target}", json.dumps(self._scene.ask("POST", target, body).body))

    def listen(self) -> None:
        """At the door, to the command line, and to the command lines of processes."""
        self.ask()
        # Not `check`, which prints what the file says that it is given.
        for words in (
            ("status",),
            ("status", "a", "--json"),
            ("plan", "--json"),
            ("logs", "-n", "100"),
            ("logs", "--json"),
            ("connection", "a", "--json"),
        ):
            done = self._scene.command(*words, *self._config(words))
            self._hear(" ".join(words), done.out + done.err)
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self._hear(str(place), place.read_bytes().decode("utf-8", "replace"))
            except OSError:
                continue

    def _get(self, target: str) -> str:
        """All of the answer, head and stream."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(str(self._scene.socket))
            sock.sendall(f"GET {target} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode("utf-8", "replace")

    def _config(self, words: tuple[str, ...]) -> tuple[str, ...]:
        file = str(self._scene.config)
        return (file,) if words[0] == "plan" else ("--config", file)

    def _hear(self, where: str, what: str) -> None:
        self.heard[where] = self.heard.get(where, "") + what

    def read_files(self) -> None:
        """What the daemon has written; what a kernel writes by itself is its own affair."""
        for place in (self._scene.state_dir, self._scene.runtime_dir, self._scene.log):
            for path in (place, *place.rglob("*")):
                if path.is_file() and not KEEPERS.search(str(path)) and path.parent.name != "output":
                    self._hear(str(path), path.read_text(errors="replace"))


def table(scene: Scene, value: str = SECRET, **keys: str) -> str:
    return scene.mini(
        "a", env=f'{{ API_TOKEN = "{value}" }}', backoff="{ initial = 0.0, next = 0.1 }", **keys
    )


def test_no_key_and_no_environment_value_is_in_anything_that_a_daemon_says(scene: Scene) -> None:
    debug = 'log_level = "debug"'
    scene.write(table(scene), supervisor=debug)
    scene.start("a")
    keys = {key_of(scene)}
    ears = Ears(scene)
    # It dies, with its key in its last words.
    file = str(scene.connection_file("a"))
    with scene.client("a") as client:
        client.execute(f"import os; os.write(2, open({file!r}).read().encode()); os._exit(7)")
        scene.wait_running("a", after=1)
    assert any("shell_port" in line for line in scene.events("kernel.died")[0]["output_tail"])
    ears.listen()
    # It is edited, well and badly.
    scene.write(table(scene, OTHER), supervisor=debug)
    scene.wait_running("a", after=2)
    for bad in (
        f'[kernels.b]\nenv = "{SECRET}"',
        f'[kernels.b]\nenv = {{ T = ["{SECRET}"] }}',
        f'[kernels.b]\nenv = {{ "A=B" = "{SECRET}" }}',
        f'[kernels.b]\nenvironment = {{ T = "{SECRET}" }}',
        f'[kernels.b]\nenv = {{ T = "{SECRET}',
    ):
        rejected = len(scene.events("config.rejected"))
        scene.config.write_text(scene.toml(table(scene, OTHER), bad, supervisor=debug))
        scene.wait_event("config.rejected", count=rejected + 1)
        ears.ask()
    ears.listen()
    failing = f'[kernels.c]\nargv = ["/nowhere/python", "{{connection_file}}"]\nenv = {{ T = "{SECRET}" }}'
    scene.write(table(scene, OTHER), failing, supervisor=debug)
    scene.wait_phase("c", "failed")
    # It gets another address; its key goes on.
    assert 200 == scene.order("restart", "a", new_ports=True).status
    keys.add(key_of(scene))
    # The daemon dies, and so does the kernel, with last words that nobody hears for now.
    scene.wait_recorded("a")
    scene.kill()
    pid = scene.leaders("a")[0]
    with scene.client("a") as client:
        client.execute(f"import os; os.write(2, open({file!r}).read().encode()); os._exit(7)")
        wait_for(lambda: pid not in scene.leaders("a"), "it has ended")
    scene.start("a")
    assert any(line["output_tail"] for line in scene.events("kernel.died", while_unsupervised=True))
    ears.listen()
    # The daemon dies, with a damaged record left; detaches; ends.
    scene.wait_recorded("a")
    scene.kill()
    scene.start("a")
    ears.listen()
    assert 0 == scene.stop(signal.SIGUSR2)
    record = scene.state_dir / "kernels" / "a.json"
    record.write_bytes(record.read_bytes()[:-20])
    scene.start("a")
    os.kill(scene.kernel("a")["pid"], signal.SIGSEGV)
    scene.wait_event("kernel.died", kernel="a", signal="SIGSEGV")
    ears.listen()
    assert 0 == scene.stop()
    wait_for(lambda: not scene.processes(), "all have ended")
    ears.read_files()

    assert {64} == {len(key) for key in keys}
    said = {
        (where, what[: max(0, what.find(secret)) + 80][-160:])
        for where, what in ears.heard.items()
        for secret in (*keys, SECRET, OTHER)
        if secret in what
    }
    assert set() == said
    assert len(ears.heard) > 20


def key_of(scene: Scene) -> Any:
    return json.loads(scene.connection_file("a").read_bytes())["key"]
