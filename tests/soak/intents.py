"""What a soak wants of its kernels: the file, and the last order that was accepted.

Owns the configuration text.  Knows nothing of daemons and processes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from tests.e2e.daemon import IPYKERNEL, Scene, table

CHECK = '{ interval = 0.5, misses = 4, action = "restart" }'
BACKOFF = "{ initial = 0.0, next = 0.1, factor = 1.5, max = 1.0 }"
# What makes one kernel unlike another: a slow start, deaf ears, another transport, a short life; with
# ``None`` for options it is an ipykernel.
Kind = tuple[tuple[str, ...] | None, dict[str, str]]
KINDS: tuple[Kind, ...] = (
    ((), {}),
    ((), {"transport": '"ipc"'}),
    (("--start-delay", "0.7"), {}),
    (("--ignore", "SIGTERM,SIGINT", "--ignore-shutdown"), {"stop_timeout": "0.5"}),
    ((), {"on_config_change": '"when-idle"'}),
    (("--say", "hello"), {"output": "{ max_bytes = 2000, backups = 1 }"}),
    ((), {"hold_ports": "false"}),
    (("--exit-after", "4", "--exit-code", "3"), {}),
    *((None, {"warm_start": f'"{how}"'}) for how in ("off", "prepared", "fork", "standby")),
)
# Every fourth kernel is an ipykernel, as warm as this.
WARMTH = ("off", "prepared", "fork", "standby")


@dataclass
class Intent:
    """What is wanted of one kernel."""

    is_declared: bool = True
    is_up: bool = True
    round: int = 0
    live: float = 3.0


@dataclass
class Intents:
    """What is wanted of all kernels, and what their file says."""

    names: tuple[str, ...]
    of: dict[str, Intent] = field(default_factory=dict)
    is_bad: bool = False

    def __post_init__(self) -> None:
        self.of = {name: Intent() for name in self.names}

    def declared(self) -> list[str]:
        return [name for name in self.names if self.of[name].is_declared]

    def up(self) -> list[str]:
        """The kernels that are to run."""
        return [name for name in self.declared() if self.of[name].is_up]

    def is_restless(self, name: str) -> bool:
        """Whether the kernel ends by itself again and again, so that it is never where it stays."""
        return "--exit-after" in (self._kind(name)[0] or ())

    def is_off_disk(self, name: str) -> bool:
        """Whether the kernel stays, and writes and binds nothing on a disk while it lives."""
        options, keys = self._kind(name)
        if options is None:  # it has its history and what is pending
            return False
        return not {"--exit-after", "--say"} & set(options) and "transport" not in keys

    def accept(self, verb: str, name: str) -> None:
        """An order was accepted."""
        if verb in ("stop", "kill"):
            self.of[name].is_up = False
        elif verb in ("start", "restart", "reset"):
            self.of[name].is_up = True

    def write(self, scene: Scene) -> None:
        """Put the file in place."""
        text = scene.write(*(self._table(scene, name) for name in self.declared()))
        if self.is_bad:
            scene.config.write_text(text + "\n[kernels.bad]\nstop_timout = 3\n")

    def _kind(self, name: str) -> Kind:
        return KINDS[self.names.index(name) % len(KINDS)]

    def _table(self, scene: Scene, name: str) -> str:
        intent = self.of[name]
        options, keys = self._kind(name)
        shared = {
            "heartbeat": CHECK,
            "probe": '{ action = "report" }',
            "backoff": BACKOFF,
            "max_restarts": "0",
            "stop_timeout": "2.0",
            "start_timeout": "30.0",
            "restart_window": f"{100 + intent.live}",
            "env": f'{{ SOAK_ROUND = "{intent.round}", IPYTHONDIR = "ipython" }}',
        }
        if options is None:
            return table(name, argv=json.dumps(IPYKERNEL), **(shared | keys))
        return scene.mini(name, *options, **(shared | keys))
