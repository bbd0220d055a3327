"""Hours of an operator's life in minutes: orders, deaths, hangs, edits, dead daemons, at random.

Owns the random choices: they depend on the seed alone, so that a run can be
had again.  Between them it waits until all is as was last wanted, and checks it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import zmq

from supervisor.kernel import wire
from supervisor.kernel.connection import Address
from tests.e2e.daemon import Scene, View
from tests.soak.intents import Intents
from tests.soak.watch import Usage, Violated, Watch, environment_of

# For all kernels to be as was last wanted, in seconds: hangs are noticed, ladders climbed, on a busy machine.
SETTLE = 90.0
ACTS_BETWEEN_CHECKS = 40
# What a daemon may hold more than at its first check; memory in MB.
ROOM = {"descriptors": 4, "threads": 4, "memory": 16.0, "watches": 0, "zombies": 0}


class Soak:
    """One run."""

    def __init__(self, directory: Path, seed: int, kernels: int, seconds: float) -> None:
        self.scene = Scene(directory)
        self.random = random.Random(seed)
        self.intents = Intents(tuple(f"k{number}" for number in range(kernels)))
        self.watch = Watch(self.scene)
        self.context = zmq.Context.instance()
        self.seconds = seconds
        self.counts: Counter[str] = Counter()
        self.refused = 0
        self.longest_answer = 0.0
        self.usages: list[Usage] = []

    def run(self) -> None:
        """Soak.  Raises Violated."""
        self.intents.write(self.scene)
        begin = time.monotonic()
        try:
            self.scene.start()
            with self.watch:
                while time.monotonic() < begin + self.seconds / 2:
                    self._act([*STEADY, *((act, 1) for act in DAEMONS)])
                # One daemon from here on: what it holds must not grow.
                self.check(census=True)
                while time.monotonic() < begin + self.seconds:
                    self._act(STEADY)
                    self.check(census=True)
                self._leave()
        finally:
            self.scene.clean_up()

    def _act(self, choices: list[tuple[Callable[[Soak], None], int]]) -> None:
        acts, weights = zip(*choices, strict=True)
        for _ in range(ACTS_BETWEEN_CHECKS):
            (act,) = self.random.choices(acts, weights)
            name = self.random.choice(self.intents.names)
            act(self, name)
            self.counts[act.__name__] += 1
            self._refuse_violations()
            time.sleep(self.random.choice((0.0, 0.0, 0.02, 0.1, 0.3)))
        self.check()

    def _refuse_violations(self) -> None:
        if self.watch.violations:
            raise Violated("; ".join(self.watch.violations))
        assert self.scene.daemon is not None
        if (code := self.scene.daemon.poll()) is not None:
            raise Violated(f"the daemon has ended with {code}: {self.scene.log_end()}")

    # What is done

    def order(self, name: str) -> None:
        verb = self.random.choice(("start", "stop", "restart", "restart", "kill", "reset", "interrupt"))
        fields = {"now": self.random.random() < 0.3} if verb in ("stop", "restart") else {}
        self._send(verb, name, fields)

    def storm(self, name: str) -> None:
        """Many orders at once; the last one counts."""
        for _ in range(8):
            self._send(self.random.choice(("start", "stop", "restart")), name, {})

    def _send(self, verb: str, name: str, fields: dict[str, object]) -> None:
        before = time.monotonic()
        answer = self.scene.order(verb, name, wait=False, **fields)
        self.longest_answer = max(self.longest_answer, time.monotonic() - before)
        if answer.status == 202:
            self.intents.accept(verb, name)
        elif answer.status in (404, 409):
            self.refused += 1
        else:
            raise Violated(f"{verb} {name}: {answer.status} {answer.body}")

    def death(self, name: str) -> None:
        signum = self.random.choice(
            (signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
        )
        self._signal(name, signum)

    def massacre(self, _name: str) -> None:
        """All at once."""
        for name in self.intents.names:
            self._signal(name, signal.SIGKILL)

    def hang(self, name: str) -> None:
        self._signal(name, signal.SIGSTOP)

    def exit(self, name: str) -> None:
        """It ends itself."""
        code = self.random.choice(
            ("import os; os._exit(7)", "import os; os._exit(0)", "import os; os.abort()")
        )
        try:
            address = Address.from_mapping(json.loads(self.scene.connection_file(name).read_bytes()))
        except FileNotFoundError:
            return  # it is stopped
        # Not a client of Jupyter's: those wait for kernels that are gone or hang.
        socket = self.context.socket(zmq.DEALER)
        socket.connect(address.endpoint("shell"))
        content = {"code": code, "silent": True}
        socket.send_multipart(wire.request(address.key, "execute_request", content, "soak")[1])
        socket.close(linger=300)

    def _signal(self, name: str, signum: int) -> None:
        for pid in self.scene.leaders(name):
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                pass

    def edit(self, name: str) -> None:
        """Another environment: it is restarted; or another live key: it is not."""
        if self.random.random() < 0.7:
            self.intents.of[name].round += 1
        else:
            self.intents.of[name].live += 1
        self.intents.write(self.scene)
        if self.random.random() < 0.5:
            self._reload()

    def touch(self, _name: str) -> None:
        self.intents.write(self.scene)

    def remove(self, name: str) -> None:
        """Out of the file, or into it again."""
        intent = self.intents.of[name]
        intent.is_declared = not intent.is_declared
        if intent.is_declared:
            intent.is_up = True
        else:
            self.watch.removals[name] += 1
        self.intents.is_bad = False
        self.intents.write(self.scene)
        self._reload()

    def spoil(self, _name: str) -> None:
        """A file with a mistake, or a mended one."""
        self.intents.is_bad = not self.intents.is_bad
        self.intents.write(self.scene)

    def _reload(self) -> None:
        answer = self.scene.ask("POST", "/v1/reload")
        if answer.status != (422 if self.intents.is_bad else 200):
            raise Violated(f"reload: {answer.status} {answer.body}")

    # What is done to the daemon

    def kill_daemon(self, name: str) -> None:
        self.scene.kill()
        self._begin_anew(name)

    def detach(self, name: str) -> None:
        if (code := self.scene.stop(signal.SIGUSR2)) != 0:
            raise Violated(f"detach: exit code {code}")
        self._begin_anew(name)

    def kill_daemon_at_its_start(self, name: str) -> None:
        self.scene.kill()
        self.scene.begin()
        time.sleep(self.random.uniform(0.0, 0.8))
        self.scene.kill()
        self._begin_anew(name)

    def _begin_anew(self, name: str) -> None:
        if self.random.random() < 0.3:
            self._signal(name, signal.SIGKILL)
        time.sleep(self.random.choice((0.0, 0.0, 0.5)))
        self.scene.start()

    # What must be so

    def check(self, *, census: bool = False) -> None:
        """Wait until all is as was last wanted; then nothing may be left over or have grown."""
        if self.intents.is_bad:
            self.spoil("")
        if census:
            for name in self.intents.declared():
                self._send("start", name, {})
            for name in self.intents.names:
                if not self.intents.of[name].is_declared:
                    self.remove(name)
        until = time.monotonic() + SETTLE
        while wrong := self._wrong():
            self._refuse_violations()
            if time.monotonic() > until:
                raise Violated(f"not as was last wanted after {SETTLE:g} s: {'; '.join(wrong)}")
            time.sleep(0.1)
        self.counts["check"] += 1
        if census:
            self._measure()

    def _wrong(self) -> list[str]:
        """What is not as was last wanted."""
        status = self.scene.status()
        views = {view["name"]: view for view in status["kernels"]}
        processes = self.scene.processes()
        wrong = [f"degraded: {line}" for line in status["degraded"]]
        for name in self.intents.names:
            leaders = [each.pid for each in processes if each.kernel == name and each.leads]
            if not self._is_as_wanted(name, views.get(name), leaders):
                phase = views[name]["phase"] if name in views else "unknown"
                wrong.append(f"{name} ({self.intents.of[name]}): {phase}, processes {leaders}")
        return wrong or self._left_over()

    def _is_as_wanted(self, name: str, view: View | None, leaders: list[int]) -> bool:
        if name not in self.intents.declared():
            return view is None and not leaders
        if view is None:
            return False
        if name not in self.intents.up():
            return view["phase"] == "stopped" and not leaders
        if self.intents.is_restless(name):
            return view["want"] == "up" and len(leaders) <= 1
        if view["phase"] != "running" or leaders != [view["pid"]]:
            return False
        # With the settings that are in the file.
        return environment_of(leaders[0], "SOAK_ROUND") == str(self.intents.of[name].round)

    def _left_over(self) -> list[str]:
        """Files that nobody needs."""
        expected = {"lock", "control.sock", "events.jsonl", "last-good.toml", "kernels", "output"}
        expected |= {f"events.jsonl.{number}" for number in range(1, 6)}
        left = {path.name for path in self.scene.state_dir.iterdir()} - expected
        declared = set(self.intents.declared())
        records = {f"{name}.json{end}" for name in declared for end in ("", ".previous")}
        left |= {path.name for path in (self.scene.state_dir / "kernels").iterdir()} - records
        files = {path.name for path in self.scene.runtime_dir.iterdir()} - {"ipc"}
        wanted = {f"kernel-{name}.json" for name in self.intents.up()}
        return [f"left over: {name}" for name in sorted(left | (files ^ wanted))]

    def _measure(self) -> None:
        assert self.scene.daemon is not None
        usage = Usage.of(self.scene.daemon.pid)
        self.usages.append(usage)
        # The first measurement is of a daemon whose pools of threads have not filled yet.
        first = self.usages[min(1, len(self.usages) - 1)]
        for what, room in ROOM.items():
            if getattr(usage, what) > getattr(first, what) + room:
                raise Violated(f"the daemon holds ever more {what}: {self.usages}")

    def _leave(self) -> None:
        """An orderly end leaves nothing."""
        if (code := self.scene.stop()) != 0:
            raise Violated(f"SIGTERM: exit code {code}: {self.scene.log_end()}")
        if left := self.scene.processes():
            raise Violated(f"left after an orderly end: {left}")
        files = [file.name for file in self.scene.runtime_dir.glob("kernel-*")]
        if files or (self.scene.state_dir / "last-good.toml").exists():
            raise Violated(f"files left after an orderly end: {files}")


STEADY: list[tuple[Callable[..., None], int]] = [
    (Soak.order, 10),
    (Soak.storm, 1),
    (Soak.death, 6),
    (Soak.massacre, 1),
    (Soak.hang, 2),
    (Soak.exit, 2),
    (Soak.edit, 4),
    (Soak.touch, 1),
    (Soak.remove, 2),
    (Soak.spoil, 1),
]
DAEMONS: tuple[Callable[..., None], ...] = (Soak.kill_daemon, Soak.detach, Soak.kill_daemon_at_its_start)
