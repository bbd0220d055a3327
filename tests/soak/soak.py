"""Hours of an operator's life in minutes: orders, deaths, hangs, edits, bad disks, dead daemons, at random.

Owns the random choices: they depend on the seed alone, so that a run can be
had again.  Between them it waits until all is as was last wanted, and checks it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from supervisor.kernel import wire
from supervisor.kernel.connection import Address
from tests.e2e.daemon import Scene, View
from tests.soak.intents import Intents
from tests.soak.trouble import Trouble
from tests.soak.watch import Usage, Violated, Watch, environment_of, missing_events
from tests.waiting import DEADLINE, wait_for

# For all kernels to be as was last wanted, in seconds: hangs are noticed, ladders climbed, on a busy machine.
SETTLE = 3 * DEADLINE
ACTS_BETWEEN_CHECKS = 40
# What an exit may take, in seconds, and what a busy machine may add.
LAST_PATIENCE = 5.0 + DEADLINE / 3
LOST_OUTPUT = "is lost until its next launch"
# What a daemon may hold more than at its first check; memory in MB.
# The output of the kernel that ends by itself may be watched at one check and not at another.
ROOM = {"descriptors": 4, "threads": 4, "memory": 16.0, "watches": 1, "zombies": 0}


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
        self.longest_status = 0.0
        self.usages: list[Usage] = []
        self.trouble = Trouble(directory, self.scene.state_dir, self.scene.runtime_dir)
        self._last_event = 0

    def run(self) -> None:
        """Soak.  Raises Violated."""
        self.intents.write(self.scene)
        try:
            self.trouble.mount()
            self.scene.start()
            with self.watch:
                begin = time.monotonic()
                # Each once at least, however slow the machine is.
                self._act([*STEADY, *((act, 1) for act in DAEMONS)])
                while time.monotonic() < begin + self.seconds / 2:
                    self._act([*STEADY, *((act, 1) for act in DAEMONS)])
                # One daemon from here on: what it holds must not grow.
                self.check(census=True)
                self._act(STEADY)
                self.check(census=True)
                while time.monotonic() < begin + self.seconds:
                    self._act(STEADY)
                    self.check(census=True)
                self._leave()
        finally:
            self.trouble.ease()
            self.scene.clean_up()
            self.trouble.close()

    def _act(self, choices: list[tuple[Callable[[Soak], None], int]]) -> None:
        acts, weights = zip(*choices, *(DISKS if self.trouble.is_possible else ()), strict=True)
        for _ in range(ACTS_BETWEEN_CHECKS):
            (act,) = self.random.choices(acts, weights)
            name = self.random.choice(self.intents.names)
            act(self, name)
            self.counts[act.__name__] += 1
            self._refuse_violations()
            if self.trouble.lasts:
                self._ask_status()
            if self.trouble.is_over:
                self._ease()
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

    # What is done to the disks

    def freeze(self, _name: str) -> None:
        """For some seconds, in which all else goes on."""
        self.trouble.freeze(*self._which_and_how_long())

    def fill(self, _name: str) -> None:
        self.trouble.fill(*self._which_and_how_long())

    def _which_and_how_long(self) -> tuple[tuple[int, ...], float]:
        return self.random.choice(((0,), (0,), (1,), (0, 1))), self.random.choice((0.3, 1.0, 4.0, 8.0))

    def death_on_ice(self, _name: str) -> None:
        """While all is frozen: it is told, and the kernel restarted."""
        name = self.random.choice(self.names_off_disk)
        self._ease()
        if name not in self.intents.up() or self.intents.is_bad:
            return
        before = self._settled(name, 0)
        self.trouble.freeze((0, 1), 3 * SETTLE)
        self._signal(name, signal.SIGKILL)
        after = self._settled(name, before["generation"])
        if after["last_death"] is None or after["pid"] == before["pid"]:
            raise Violated(f"a death on a frozen disk was not told: {after}")
        self._ease()

    def _settled(self, name: str, generation: int) -> View:
        def settled() -> View | None:
            view = next(view for view in self._ask_status()["kernels"] if view["name"] == name)
            return view if view["phase"] == "running" and view["generation"] > generation else None

        found = wait_for(
            settled, lambda: f"{name} runs after {generation}: {self.scene.kernel(name)}", SETTLE
        )
        assert found is not None
        return found

    def _ask_status(self) -> dict[str, Any]:
        before = time.monotonic()
        status = self.scene.status()
        self.longest_status = max(self.longest_status, time.monotonic() - before)
        return status

    def _ease(self) -> bool:
        """End the trouble with the disks; whether there was any."""
        there_was = self.trouble.ease()
        self.counts["thaw or make room"] += there_was
        return there_was

    @property
    def names_off_disk(self) -> list[str]:
        """The kernels that stay, and need no disk to live and to end."""
        return [name for name in self.intents.names if self.intents.is_off_disk(name)]

    # What is done to the daemon

    def kill_daemon(self, name: str) -> None:
        is_forgetful = self._kill()
        self._begin_anew(name, is_forgetful=is_forgetful)

    def _kill(self) -> bool:
        """Kill the daemon; whether what it accepted last may not be on record, as the disk was bad."""
        assert self.scene.daemon is not None
        self.scene.daemon.kill()
        there_was = self._ease()  # not before: a process that waits for a frozen disk ends with the thaw
        self.scene.kill()
        return there_was

    def detach_on_ice(self, name: str) -> None:
        """It leaves while all is frozen; at the thaw if it was just writing."""
        assert self.scene.daemon is not None
        if self.trouble.is_possible:
            self.trouble.freeze((0, 1), SETTLE)
        self.scene.daemon.send_signal(signal.SIGUSR2)
        try:
            self.scene.daemon.wait(LAST_PATIENCE)
        except subprocess.TimeoutExpired:
            self.counts["left at the thaw"] += 1
        is_forgetful = self._ease()
        self._left("detach on ice")
        self._begin_anew(name, is_forgetful=is_forgetful)

    def detach(self, name: str) -> None:
        is_forgetful = self._ease()
        assert self.scene.daemon is not None
        self.scene.daemon.send_signal(signal.SIGUSR2)
        self._left("detach")
        self._begin_anew(name, is_forgetful=is_forgetful)

    def _left(self, what: str) -> None:
        assert self.scene.daemon is not None
        if (code := self.scene.daemon.wait(SETTLE)) != 0:
            raise Violated(f"{what}: exit code {code}: {self.scene.log_end()}")

    def kill_daemon_at_its_start(self, name: str) -> None:
        is_forgetful = self._kill()
        self.scene.begin()
        time.sleep(self.random.uniform(0.0, 0.8))
        self.scene.kill()
        self._begin_anew(name, is_forgetful=is_forgetful)

    def _begin_anew(self, name: str, *, is_forgetful: bool) -> None:
        if self.random.random() < 0.3:
            self._signal(name, signal.SIGKILL)
        time.sleep(self.random.choice((0.0, 0.0, 0.5)))
        if is_forgetful and self.intents.is_bad:
            self.spoil("")  # the last good file may be older than that
        self.scene.start()
        for each in self.intents.declared() if is_forgetful else ():
            self._send("start", each, {})

    # What must be so

    def check(self, *, census: bool = False) -> None:
        """Wait until all is as was last wanted; then nothing may be left over or have grown."""
        self._ease()
        if self.intents.is_bad:
            self.spoil("")
        if census:
            for name in self.intents.declared():
                self._send("start", name, {})
            for name in self.intents.names:
                if not self.intents.of[name].is_declared:
                    self.remove(name)
        until = time.monotonic() + SETTLE
        while wrong := self._wrong() or (self._unburied() if census else []):
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
        # What is launched onto a frozen disk writes to nowhere as long as it lives (docs/reliability.md).
        degraded = [
            line
            for line in status["degraded"]
            if not (self.trouble.is_possible and line.endswith(LOST_OUTPUT))
        ]
        wrong = [f"degraded: {line}" for line in degraded]
        for name in self.intents.names:
            leaders = [each.pid for each in processes if each.kernel == name and each.leads]
            if not self._is_as_wanted(name, views.get(name), leaders):
                phase = views[name]["phase"] if name in views else "unknown"
                wrong.append(f"{name} ({self.intents.of[name]}): {phase}, processes {leaders}")
        return wrong or self._left_over() or self._missing_events()

    def _missing_events(self) -> list[str]:
        """What has been told and is not on disk, or not in order."""
        missing, self._last_event = missing_events(self.scene, self._last_event)
        return missing

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
        expected = {"lock", "control.sock", "events.jsonl", "last-good.toml", "kernels", "output", "pending"}
        expected |= {f"events.jsonl.{number}" for number in range(1, 6)}
        left = {path.name for path in self.scene.state_dir.iterdir()} - expected
        declared = set(self.intents.declared())
        records = {f"{name}.json{end}" for name in declared for end in ("", ".previous")}
        left |= {path.name for path in (self.scene.state_dir / "kernels").iterdir()} - records
        left |= {path.name for path in self.scene.state_dir.glob("pending/*")} - set(self.intents.up())
        files = {path.name for path in self.scene.runtime_dir.iterdir()} - {"ipc"}
        wanted = {f"kernel-{name}.json" for name in self.intents.up()}
        return [f"left over: {name}" for name in sorted(left | (files ^ wanted))]

    def _unburied(self) -> list[str]:
        assert self.scene.daemon is not None
        return ["a zombie"] * Usage.of(self.scene.daemon.pid).zombies

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
        # A stub answers for some seconds.
        wait_for(lambda: not self.scene.helpers(), lambda: f"helpers end: {self.scene.helpers()}")
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
# Where the directories have file systems of their own.
DISKS: list[tuple[Callable[..., None], int]] = [(Soak.freeze, 2), (Soak.fill, 2), (Soak.death_on_ice, 1)]
DAEMONS: tuple[Callable[..., None], ...] = (
    Soak.kill_daemon,
    Soak.detach,
    Soak.detach_on_ice,
    Soak.kill_daemon_at_its_start,
)
