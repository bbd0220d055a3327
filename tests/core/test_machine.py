"""The table of the machine in ARCHITECTURE.md, cell by cell.

A line of TABLE is a cell: the phase before, then the phase and the want after
and what is to be done.  What has no line changes nothing, and nothing is to be
done.  ``launching`` is Starting and ``unspawned`` is Stopping while the spawn is
in flight; ``returning`` is Stopping while wanted up.
"""

from __future__ import annotations

from signal import SIGKILL, SIGTERM

import pytest

from supervisor.core.actions import Action, AskToExit, SignalGroup, Spawn
from supervisor.core.events import (
    Answered,
    BecameIdle,
    Delayed,
    Event,
    Exited,
    Missed,
    Ready,
    Reset,
    Restart,
    Shutdown,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    Tick,
)
from supervisor.core.model import Check, Stopping
from supervisor.settings.config import BackoffConfig, HeartbeatConfig
from tests.core.story import CLEAN, CRASHED, NOT_FOUND, Story, config, declare, process

SETTINGS = {
    "backoff": BackoffConfig(initial=1.0, jitter=0.0),
    "heartbeat": HeartbeatConfig(misses=1, action="restart"),
}
KERNEL = config(**SETTINGS)


def story_in(phase: str) -> Story:
    """A story in which kernel ``a`` has come to ``phase`` in its own way."""
    story = Story()
    if phase == "queued":
        story.load(config("b"), KERNEL, max_concurrent_starts=1)
        return story
    story.load(config(**SETTINGS, autostart=phase != "stopped"))
    match phase:
        case "starting":
            story.spawned()
        case "running" | "stopping" | "returning":
            story.runs()
        case "backoff":
            story.spawn_failed()
        case "failed":
            story.spawn_failed(NOT_FOUND)
    if phase in ("stopping", "unspawned"):
        story.tell(Stop("a"))
    if phase == "returning":
        story.tell(Restart("a"))
    return story


def event_called(name: str, story: Story) -> Event:
    """The event of a row of the table, about the current run."""
    generation = story.kernel().generation
    others = [config("b")] if "b" in story.state.kernels else []
    autostart = story.kernel().declared.autostart  # type: ignore[union-attr]
    same = config(**{**SETTINGS, "autostart": autostart}, max_restarts=9)
    new = config(**{**SETTINGS, "autostart": autostart}, cwd="/elsewhere")
    limit = story.state.max_concurrent_starts
    events: dict[str, Event] = {
        "Start": Start("a"),
        "Stop": Stop("a"),
        "Stop now": Stop("a", now=True),
        "Restart": Restart("a"),
        "Restart now": Restart("a", now=True),
        "Restart with new ports": Restart("a", new_ports=True),
        "Reset": Reset("a"),
        "Spawned": Spawned("a", generation, process(generation)),
        "SpawnFailed": SpawnFailed("a", generation, CRASHED),
        "Ready": Ready("a", generation),
        "probes missed to the limit": Missed("a", generation, Check.HEARTBEAT),
        "probes answered": Answered("a", generation, Check.HEARTBEAT),
        "BecameIdle": BecameIdle("a", generation),
        "Exited": Exited("a", generation, CLEAN),
        "Load, same launch key": declare(same, *others, max_concurrent_starts=limit),
        "Load, new launch key": declare(new, *others, max_concurrent_starts=limit),
        "Load, gone from the file": declare(*others, max_concurrent_starts=limit),
        "deadline passed": Tick(),
        "Shutdown": Shutdown(),
        "Shutdown now": Shutdown(now=True),
    }
    return events[name]


def spell_action(action: Action) -> str:
    """An action, as the table spells it."""
    match action:
        case Spawn(generation=generation):
            return f"spawn {generation}"
        case AskToExit(restart=restart):
            return "ask, restart" if restart else "ask"
        case SignalGroup(signum=signum):
            return {SIGTERM: "terminate", SIGKILL: "kill"}[signum]
        case _:
            return type(action).__name__.lower()


def spell_kernel(story: Story) -> str:
    """The phase and the want of kernel ``a``, as the table spells them."""
    if "a" not in story.state.kernels:
        return "gone"
    kernel = story.kernel()
    phase = type(kernel.phase).__name__.lower()
    if isinstance(kernel.phase, Stopping):
        phase += f"/{kernel.phase.step.name.lower()}"
    return f"{phase} {kernel.want.value if kernel.declared else 'undeclared'}"


TABLE = """
Start
    stopped    starting up                spawn 1
    stopping   stopping/ask up            -
    unspawned  stopping/ask up            -
    backoff    starting up                spawn 2
    failed     starting up                spawn 2
Stop
    queued     stopped down               withdraw
    launching  stopping/ask down          -
    starting   stopping/ask down          ask
    running    stopping/ask down          ask
    returning  stopping/ask down          -
    backoff    stopped down               withdraw
    failed     failed down                -
Stop now
    queued     stopped down               withdraw
    launching  stopping/kill down         -
    starting   stopping/kill down         kill
    running    stopping/kill down         kill
    stopping   stopping/kill down         kill
    returning  stopping/kill down         kill
    unspawned  stopping/kill down         -
    backoff    stopped down               withdraw
    failed     failed down                -
Restart
    stopped    starting up                spawn 1
    launching  stopping/ask up            -
    starting   stopping/ask up            ask, restart
    running    stopping/ask up            ask, restart
    stopping   stopping/ask up            -
    unspawned  stopping/ask up            -
    backoff    starting up                spawn 2
    failed     starting up                spawn 2
Restart now
    stopped    starting up                spawn 1
    launching  stopping/kill up           -
    starting   stopping/kill up           kill
    running    stopping/kill up           kill
    stopping   stopping/kill up           kill
    returning  stopping/kill up           kill
    unspawned  stopping/kill up           -
    backoff    starting up                spawn 2
    failed     starting up                spawn 2
Restart with new ports
    stopped    starting up                renew; spawn 1
    queued     queued up                  renew
    launching  stopping/ask up            renew
    starting   stopping/ask up            renew; ask, restart
    running    stopping/ask up            renew; ask, restart
    stopping   stopping/ask up            renew
    returning  stopping/ask up            renew
    unspawned  stopping/ask up            renew
    backoff    starting up                renew; spawn 2
    failed     starting up                renew; spawn 2
Reset
    stopped    starting up                spawn 1
    stopping   stopping/ask up            -
    unspawned  stopping/ask up            -
    backoff    starting up                spawn 2
    failed     starting up                spawn 2
Spawned
    stopped    stopped down               kill
    queued     queued up                  kill
    unspawned  stopping/ask down          ask
    backoff    backoff up                 kill
    failed     failed up                  kill
SpawnFailed
    launching  backoff up                 -
    unspawned  stopped down               withdraw
Ready
    starting   running up                 -
probes missed to the limit
    running    stopping/kill up           kill
probes answered
BecameIdle
Exited
    launching  backoff up                 -
    starting   backoff up                 -
    running    backoff up                 -
    stopping   stopped down               withdraw
    returning  starting up                spawn 2
    unspawned  stopped down               withdraw
Load, same launch key
    starting   starting up                apply
    running    running up                 apply
    stopping   stopping/ask down          apply
    returning  stopping/ask up            apply
Load, new launch key
    launching  stopping/ask up            -
    starting   stopping/ask up            apply; ask, restart
    running    stopping/ask up            apply; ask, restart
    stopping   stopping/ask down          apply
    returning  stopping/ask up            apply
    backoff    starting up                spawn 2
    failed     starting up                spawn 2
Load, gone from the file
    stopped    gone                       forget
    queued     gone                       forget
    launching  stopping/ask undeclared    -
    starting   stopping/ask undeclared    ask
    running    stopping/ask undeclared    ask
    stopping   stopping/ask undeclared    -
    returning  stopping/ask undeclared    -
    unspawned  stopping/ask undeclared    -
    backoff    gone                       forget
    failed     gone                       forget
deadline passed
    queued     starting up                spawn 1
    launching  backoff up                 -
    starting   stopping/kill up           kill
    stopping   stopping/terminate down    terminate
    returning  stopping/terminate up      terminate
    unspawned  stopped down               withdraw
    backoff    starting up                spawn 2
Shutdown
    queued     stopped down               withdraw
    launching  stopping/ask down          -
    starting   stopping/ask down          ask
    running    stopping/ask down          ask
    returning  stopping/ask down          -
    backoff    stopped down               withdraw
    failed     failed down                -
Shutdown now
    queued     stopped down               withdraw
    launching  stopping/kill down         -
    starting   stopping/kill down         kill
    running    stopping/kill down         kill
    stopping   stopping/kill down         kill
    returning  stopping/kill down         kill
    unspawned  stopping/kill down         -
    backoff    stopped down               withdraw
    failed     failed down                -
"""
PHASES = (
    *("stopped", "queued", "launching", "starting", "running"),
    *("stopping", "returning", "unspawned", "backoff", "failed"),
)


def cells() -> list[tuple[str, str, str, str]]:
    """The table as (event, phase before, kernel after, actions); of a cell that is not told: "", "-"."""
    told: dict[str, dict[str, tuple[str, str]]] = {}
    for line in TABLE.strip().splitlines():
        if not line.startswith(" "):
            rows = told[line] = dict.fromkeys(PHASES, ("", "-"))
            continue
        rows[line[4:14].strip()] = line[15:41].strip(), line[41:].strip()
    return [(event, phase, *cell) for event, rows in told.items() for phase, cell in rows.items()]


@pytest.mark.parametrize(("event", "phase", "after", "todo"), cells())
def test_each_event_does_in_each_phase_what_the_table_says(
    event: str, phase: str, after: str, todo: str
) -> None:
    story = story_in(phase)
    after = after or spell_kernel(story)
    happening = event_called(event, story)
    if event == "deadline passed":
        story.now += 1000

    actions = [spell_action(action) for action in story.tell(happening) if action.kernel == "a"]

    assert (after, todo) == (spell_kernel(story), "; ".join(actions) or "-")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fact", [Spawned, SpawnFailed, Ready, Missed, Answered, BecameIdle, Exited])
def test_a_fact_of_another_generation_changes_nothing_in_any_phase(phase: str, fact: type) -> None:
    story = story_in(phase)
    before = story.state
    detail = {
        Spawned: (process(9),),
        SpawnFailed: (CLEAN,),
        Exited: (CLEAN,),
        Missed: (Check.PROBE,),
        Answered: (Check.PROBE,),
    }

    for other in (story.kernel().generation - 1, story.kernel().generation + 1):
        # Its process comes too late: nobody waits for it.
        todo = [SignalGroup("a", other, SIGKILL)] if fact is Spawned else []
        assert todo == story.tell(fact("a", other, *detail.get(fact, ())))
        assert before == story.state


def test_while_the_supervisor_itself_stood_still_no_deadline_passes() -> None:
    story = Story()
    idle = config("d", autostart=False)
    story.load(config(start_timeout=10.0), config("b", stop_timeout=5.0), config("c"), idle)
    for name in ("a", "b"):
        story.spawned(name)
    story.tell(Stop("b"))
    story.now += 100.0

    assert [] == story.tell(Delayed(100.0))
    assert story.now + 5.0 == story.deadline
    assert [] == story.tell(Tick())
    story.ready("a")
    assert "Running" == story.phase
    assert [SignalGroup("b", 1, SIGTERM)] == story.tick()
