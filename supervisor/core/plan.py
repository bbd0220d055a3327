"""What a Load would do, kernel by kernel, without doing it.

Owns the words of ``plan``.  Decides nothing of its own: it asks ``decide``,
compares the two states, and performs none of the actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core.events import Load
from supervisor.core.lifecycle import pending_keys
from supervisor.core.loading import waits_for_idle
from supervisor.core.machine import decide
from supervisor.core.model import (
    Backoff,
    Failed,
    Kernel,
    Queued,
    Starting,
    State,
    Stopped,
    Stopping,
    Want,
    launched_of,
)
from supervisor.settings.config import LAUNCH_KEYS, RELOAD_ACTIONS, changed_keys

PlannedAction = Literal["none", "start", "stop", "restart", "apply", "pending", "remove"]

RENAMED = "renamed? a new name is a new kernel: this is a stop and a start"


class Planned(Struct, frozen=True):
    """What would become of one kernel, which of its keys it is due to, and a word on it where one helps."""

    kernel: str
    action: PlannedAction
    keys: tuple[str, ...] = ()
    note: str = ""


def plan(state: State, load: Load, now: float) -> tuple[Planned, ...]:
    """What ``load`` would do to each kernel at instant ``now``; an empty state plans a first start."""
    after, _ = decide(state, load, now)
    names = (*after.kernels, *(name for name in state.kernels if name not in after.kernels))
    planned = [_planned(name, state.kernels.get(name), after.kernels.get(name)) for name in names]
    return tuple(_with_renames(planned, state, after))


def _planned(name: str, before: Kernel | None, after: Kernel | None) -> Planned:
    if after is None:
        return Planned(name, "remove")
    if before is None:
        return (
            Planned(name, "start") if after.want is Want.UP else Planned(name, "none", note=_why_not(after))
        )
    if after.declared is None:
        if before.declared is None:
            return Planned(name, "none", note="has left the file and is being stopped")
        return Planned(name, "remove", note="once it has been stopped")
    if after.want is not before.want:
        return _turned(before, after)
    return _edited_in_place(before, after)


def _edited_in_place(before: Kernel, after: Kernel) -> Planned:
    """The file changes the settings of a kernel, and not what is wanted of it."""
    if isinstance(after.phase, Queued | Starting) and isinstance(before.phase, Stopped | Backoff | Failed):
        return Planned(after.name, "start", _edited(before, after), _mended(before))
    if isinstance(after.phase, Stopping):
        if isinstance(before.phase, Stopping):
            return _noted(before, after, "in force once its stop has ended")
        return Planned(after.name, "restart", pending_keys(after))
    if keys := pending_keys(after):
        return Planned(after.name, "pending", keys, _waiting_for(before, after))
    if launched_of(after) is None:
        return _noted(before, after, "in force at its next start")
    keys = _without_restart(before, after)
    return Planned(after.name, "apply", keys, _at_next_start(keys)) if keys else Planned(after.name, "none")


def _turned(before: Kernel, after: Kernel) -> Planned:
    """The file changes what is wanted: it enables, disables, or brings back."""
    if after.want is Want.UP:
        stopping = isinstance(after.phase, Stopping)
        note = "once its stop has ended" if stopping else ""
        return Planned(after.name, "start", _edited(before, after), note)
    nothing_ends = isinstance(before.phase, Stopped | Failed)
    return Planned(after.name, "none" if nothing_ends else "stop", _edited(before, after), _why_not(after))


def _noted(before: Kernel, after: Kernel, note: str) -> Planned:
    keys = _edited(before, after)
    return Planned(after.name, "apply", keys, note) if keys else Planned(after.name, "none")


def _edited(before: Kernel, after: Kernel) -> tuple[str, ...]:
    if before.declared is None or after.declared is None:
        return ()
    return changed_keys(before.declared, after.declared)


def _without_restart(before: Kernel, after: Kernel) -> tuple[str, ...]:
    return tuple(key for key in _edited(before, after) if key not in LAUNCH_KEYS)


def _why_not(kernel: Kernel) -> str:
    assert kernel.declared is not None, "only declared kernels are asked about"
    return "autostart = false" if kernel.declared.enabled else "enabled = false"


def _mended(before: Kernel) -> str:
    return "had failed; tried again with the edited settings" if isinstance(before.phase, Failed) else ""


def _waiting_for(before: Kernel, after: Kernel) -> str:
    waits = "restarts once it is idle" if waits_for_idle(after) else "waits for a restart by hand"
    chosen = after.declared.on_config_change if after.declared else ""
    note = f'on_config_change = "{chosen}": {waits}'
    others = _without_restart(before, after)
    return f"{note}; without a restart: {', '.join(others)}" if others else note


def _at_next_start(keys: Sequence[str]) -> str:
    later = [key for key in keys if RELOAD_ACTIONS[key] == "next-start"]
    return f"from its next start: {', '.join(later)}" if later else ""


def _with_renames(planned: Sequence[Planned], before: State, after: State) -> list[Planned]:
    """Say so where a kernel goes and another comes with the same settings."""
    gone = [one.kernel for one in planned if one.action == "remove"]
    new = [one.kernel for one in planned if one.kernel not in before.kernels]
    pairs = [
        (old, name) for old in gone for name in new if _is_same(before.kernels[old], after.kernels[name])
    ]
    same = {name for pair in pairs for name in pair}
    return [replace(one, note=RENAMED) if one.kernel in same else one for one in planned]


def _is_same(old: Kernel, new: Kernel) -> bool:
    """Whether two kernels differ in nothing but their name."""
    return (
        old.declared is not None and new.declared is not None and not changed_keys(old.declared, new.declared)
    )
