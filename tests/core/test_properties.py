"""What holds of every story: random orders, files, deaths, delays, crashes and take-overs."""

from __future__ import annotations

from math import inf
from random import Random
from signal import SIGKILL

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from msgspec.structs import replace

from supervisor.core.actions import SignalGroup, Spawn
from supervisor.core.events import (
    Answered,
    BecameIdle,
    Delayed,
    Escaped,
    Event,
    Exited,
    Found,
    Interrupt,
    Load,
    Missed,
    NoRoom,
    Ready,
    Reset,
    Restart,
    RoomMade,
    SendSignal,
    Shutdown,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    Survivor,
    Tick,
)
from supervisor.core.machine import decide, next_deadline
from supervisor.core.model import Check, Reason, Running, State, Want
from supervisor.core.plan import plan
from supervisor.settings.config import (
    BackoffConfig,
    HeartbeatConfig,
    KernelConfig,
    ProbeConfig,
    StandbyConfig,
)
from tests.core.processes import ENDS
from tests.core.story import process
from tests.core.world import World

NAMES = ("a", "b", "c")

kernels = st.builds(
    KernelConfig,
    name=st.just("a"),
    kernelspec=st.just("python3"),
    cwd=st.sampled_from(["~", "~", "/x"]),
    enabled=st.sampled_from([True, True, True, False]),
    autostart=st.sampled_from([True, True, True, False]),
    warm_start=st.sampled_from(["off", "off", "standby"]),
    standby=st.just(StandbyConfig(max_age=inf)),
    on_config_change=st.sampled_from(["restart", "restart", "when-idle", "manual"]),
    restart=st.sampled_from(["always", "always", "on-failure", "never"]),
    max_restarts=st.sampled_from([0, 1, 5]),
    restart_window=st.sampled_from([2.0, 120.0]),
    backoff=st.builds(BackoffConfig, initial=st.sampled_from([0.0, 0.5]), max=st.just(4.0)),
    start_timeout=st.sampled_from([1.0, 5.0]),
    stop_timeout=st.sampled_from([0.0, 1.0]),
    heartbeat=st.builds(
        HeartbeatConfig, misses=st.integers(1, 3), action=st.sampled_from(["report", "restart", "off"])
    ),
    probe=st.builds(
        ProbeConfig, misses=st.integers(1, 3), action=st.sampled_from(["report", "restart", "off"])
    ),
)


def named(configs: dict[str, KernelConfig]) -> dict[str, KernelConfig]:
    """The same settings, each under its name."""
    return {name: replace(config, name=name) for name, config in configs.items()}


tables = st.dictionaries(st.sampled_from(NAMES), kernels, max_size=len(NAMES)).map(named)
files = st.builds(Load, tables, st.integers(1, 3))
names = st.sampled_from(NAMES)
orders = st.one_of(
    st.builds(Start, names),
    st.builds(Stop, names, st.booleans()),
    st.builds(Restart, names, st.booleans(), st.booleans()),
    st.builds(Reset, names),
)


class Supervision(RuleBasedStateMachine):
    """Everything that can happen, in any order; the world checks every step."""

    @initialize(seed=st.integers(0, 2**32), file=files)
    def begin(self, seed: int, file: Load) -> None:
        self.world = World(Random(seed))
        self.world.file = file
        self.world.take_over()

    @rule(steps=st.integers(1, 12))
    def time_passes(self, steps: int) -> None:
        for _ in range(steps):
            self.world.step()

    @rule(seconds=st.sampled_from([0.0, 0.01, 1.0]))
    def the_alarm_goes_off_early(self, seconds: float) -> None:
        alarm = next_deadline(self.world.state)
        if alarm is None or alarm > self.world.now + seconds:
            self.world.now += seconds
        self.world.submit(Tick())

    @rule(order=orders)
    def somebody_orders(self, order: Start | Stop | Restart | Reset) -> None:
        self.world.order(order)

    @rule(file=files)
    def the_file_is_edited(self, file: Load) -> None:
        self.world.load(file)

    @rule(name=names, config=kernels)
    def one_kernel_is_edited(self, name: str, config: KernelConfig) -> None:
        file = self.world.file
        self.world.load(Load({**file.kernels, **named({name: config})}, file.max_concurrent_starts))

    @rule(name=names)
    def one_kernel_is_removed(self, name: str) -> None:
        file = self.world.file
        rest = {other: config for other, config in file.kernels.items() if other != name}
        self.world.load(Load(rest, file.max_concurrent_starts))

    @rule(name=names, how=st.sampled_from(ENDS))
    def a_process_dies(self, name: str, how: object) -> None:
        if name in self.world.processes:
            self.world.die(self.world.processes[name], how)  # type: ignore[arg-type]

    @rule(name=names, check=st.sampled_from(Check), times=st.integers(1, 4))
    def a_check_is_missed(self, name: str, check: Check, times: int) -> None:
        for _ in range(times):
            kernel = self.world.state.kernels.get(name)
            if kernel is not None:
                self.world.submit(Missed(name, kernel.generation, check))

    @rule(name=names, check=st.sampled_from(Check))
    def a_check_is_answered(self, name: str, check: Check) -> None:
        kernel = self.world.state.kernels.get(name)
        if kernel is not None:
            self.world.submit(Answered(name, kernel.generation, check))

    @rule(name=names, back=st.integers(1, 3), fact=st.sampled_from([Spawned, SpawnFailed, Ready, Exited]))
    def a_fact_of_an_earlier_run_comes_late(self, name: str, back: int, fact: type) -> None:
        kernel = self.world.state.kernels.get(name)
        if kernel is not None and kernel.generation > back:
            what = {Spawned: (process(9),), SpawnFailed: (ENDS[1],), Exited: (ENDS[1],)}
            before = self.world.state
            late = fact(name, kernel.generation - back, *what.get(fact, ()))
            todo = [SignalGroup(name, kernel.generation - back, SIGKILL)] if fact is Spawned else []
            assert todo == self.world.submit(late)
            assert before == self.world.state

    @rule(edited=st.none() | files)
    def the_supervisor_crashes_and_the_next_takes_over(self, edited: Load | None) -> None:
        self.world.crash()
        self.world.file = edited or self.world.file
        self.world.take_over()

    @rule(order=orders, steps=st.integers(0, 3), edited=st.none() | files)
    def the_supervisor_crashes_amid_an_order(
        self, order: Start | Stop | Restart | Reset, steps: int, edited: Load | None
    ) -> None:
        self.world.settle()
        self.world.order(order)
        for _ in range(steps):
            self.world.step()
        self.the_supervisor_crashes_and_the_next_takes_over(edited)

    @rule(now=st.booleans(), steps=st.integers(0, 3))
    def the_supervisor_crashes_amid_a_shutdown(self, now: bool, steps: int) -> None:
        self.world.settle()
        self.world.submit(Shutdown(now))
        for _ in range(steps):
            self.world.step()
        self.the_supervisor_crashes_and_the_next_takes_over(None)

    @rule(
        now=st.booleans(), steps=st.integers(0, 3), again=st.none() | st.booleans(), orders=st.lists(orders)
    )
    def the_supervisor_is_stopped_and_started(
        self, now: bool, steps: int, again: bool | None, orders: list[Start | Stop | Restart | Reset]
    ) -> None:
        world = self.world
        world.submit(Shutdown(now))
        spawns = world.spawns
        for order in orders:
            world.order(order)
            for _ in range(steps):
                world.step()
        if again is not None:
            world.submit(Shutdown(again))
        world.submit(world.file)
        world.run_until_quiet()
        assert {} == world.processes
        assert spawns == world.spawns, "nothing is started after a shutdown"
        assert not world.connection_files
        world.crash()
        world.take_over()

    @rule()
    def all_is_well_for_a_while(self) -> None:
        self.world.settle()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()


Supervision.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestSupervision = Supervision.TestCase
# Only a failure takes long: hypothesis looks for the shortest story for up to five minutes.
TestSupervision.pytestmark = pytest.mark.timeout(600)


def test_a_kernel_shut_down_while_dying_is_never_resurrected() -> None:
    for seed in range(1000):
        random = Random(seed)
        world = World(random)
        world.file = Load({"a": KernelConfig(name="a", kernelspec="python3", max_restarts=0)})
        world.take_over()
        for _ in range(random.randrange(12)):
            world.step()
        if random.random() < 0.3:
            world.order(Restart("a", now=random.random() < 0.5))
        if "a" in world.processes:
            world.die(world.processes["a"], random.choice(ENDS))
        for _ in range(random.randrange(4)):
            world.step()
        if random.random() < 0.5:
            world.order(Stop("a", now=random.random() < 0.5))
        else:
            world.submit(Shutdown(random.random() < 0.5))
        spawns = world.spawns
        world.run_until_quiet()

        assert spawns == world.spawns, seed
        assert {} == world.processes, seed
        assert Want.DOWN is world.state.kernels["a"].want


generations = st.integers(0, 4)
ends = st.sampled_from(ENDS)
checks = st.sampled_from(Check)
processes = st.builds(process, generations, names)
survivors = st.builds(
    Survivor,
    names,
    kernels,
    generations,
    st.sampled_from([None, Want.UP, Want.DOWN]),
    st.none() | processes,
    st.booleans(),
    st.floats(0, 1000),
    st.none() | ends,
    st.lists(st.floats(0, 1000), max_size=2).map(tuple),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from(["", "no such file"]),
    st.just(()),
    st.none() | processes,
    st.none() | st.sampled_from(Reason),
)
anything: st.SearchStrategy[Event] = st.one_of(
    orders,
    files,
    st.builds(Interrupt, names),
    st.builds(SendSignal, names, st.integers(0, 64)),
    st.builds(Shutdown, st.booleans()),
    st.builds(Found, st.lists(survivors, max_size=3).map(tuple), tables),
    st.builds(Spawned, names, generations, processes),
    st.builds(SpawnFailed, names, generations, ends),
    st.builds(NoRoom, names, generations, st.just("none")),
    st.builds(RoomMade, names, generations),
    st.builds(Ready, names, generations),
    st.builds(Missed, names, generations, checks),
    st.builds(Answered, names, generations, checks),
    st.builds(BecameIdle, names, generations),
    st.builds(Escaped, names, generations, st.just((5,))),
    st.builds(Exited, names, generations, ends),
    st.just(Tick()),
    st.builds(Delayed, st.floats(0, 100)),
)


@pytest.mark.timeout(600)
@settings(max_examples=200, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 10.0]), anything), max_size=40), files)
def test_no_event_in_any_state_raises_even_when_every_contract_is_broken(
    story: list[tuple[float, Event]], file: Load
) -> None:
    state, now = State(), 0.0
    for seconds, event in story:
        now += seconds
        spelled = repr(state)
        after, actions = decide(state, event, now)
        assert spelled == repr(state)
        assert {k.name: k.generation for k in state.kernels.values()}.items() >= {
            (action.kernel, action.generation - 1)
            for action in actions
            if isinstance(action, Spawn) and action.kernel in state.kernels
        }
        plan(after, file, now)
        deadline = next_deadline(after)
        assert deadline is None or not isinstance(event, Tick) or deadline > now
        state = after


def test_the_world_is_harsh_enough_to_be_worth_it() -> None:
    phases: set[str] = set()
    causes: set[str] = set()
    for seed in range(30):
        world = World(Random(seed))
        impatient = {"start_timeout": 1.0, "kernelspec": "python3", "backoff": BackoffConfig(initial=1.0)}
        world.file = Load({name: KernelConfig(name=name, **impatient) for name in NAMES}, 2)  # type: ignore[arg-type]
        world.take_over()
        for _ in range(100):
            world.step()
            phases |= {type(kernel.phase).__name__ for kernel in world.state.kernels.values()}
            deaths = [kernel.last_death for kernel in world.state.kernels.values()]
            causes |= {death.exit.cause.value for death in deaths if death}

    assert {"Queued", "Waiting", "Starting", "Running", "Stopping", "Backoff", "Failed"} == phases
    assert {"exited", "crashed", "killed", "start-timeout", "port-taken", "not-found"} == causes


@pytest.mark.parametrize("seed", range(20))
def test_left_alone_every_kernel_ends_up_running(seed: int) -> None:
    world = World(Random(seed))
    world.file = Load({name: KernelConfig(name=name, kernelspec="python3", max_restarts=0) for name in NAMES})
    world.is_kind = True
    world.take_over()
    world.settle()

    assert all(isinstance(kernel.phase, Running) for kernel in world.state.kernels.values())
    assert set(NAMES) == set(world.processes)
