"""Whatever is saved, in whatever order, ends where a fresh start on the last valid file would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.actions import AskToExit, Spawn
from supervisor.core.events import Event, Exited, Load, Ready, Spawned
from supervisor.core.machine import decide
from supervisor.core.model import Cause, Exit, ProcessId, Running, State
from supervisor.daemon.settings_file import Rejected, SettingsFile
from supervisor.settings.config import Config, KernelConfig, changed_launch_keys

NAMES = ("a", "b", "c")
# One key of each reload action, and two that need a restart.
KEYS = st.fixed_dictionaries(
    {},
    optional={
        "cwd": st.sampled_from(['"/"', '"/tmp"']),
        "extra_arguments": st.sampled_from(["[]", '["-x"]']),
        "stop_timeout": st.sampled_from(["1", "2.5"]),
        "max_restarts": st.sampled_from(["0", "7"]),
        "hold_ports": st.sampled_from(["true", "false"]),
        "enabled": st.sampled_from(["true", "false"]),
    },
)
VALID = st.dictionaries(st.sampled_from(NAMES), KEYS, min_size=1).map(
    lambda kernels: "".join(
        f'[kernels.{name}]\nkernelspec = "python3"\n'
        + "".join(f"{key} = {value}\n" for key, value in keys.items())
        for name, keys in kernels.items()
    )
)
INVALID = st.sampled_from(
    ["", "[", "[kernels.a]\nkernelspec = 3\n", "[kernels.a]\nkernelspce = 'x'\n", "\x00", "[kernels]\n"]
)


class World:
    """A machine on which everything works at once."""

    def __init__(self) -> None:
        self.state = State()
        self.spawned: list[tuple[str, KernelConfig]] = []

    def submit(self, event: Event) -> None:
        pending: list[Event] = [event]
        while pending:
            self.state, actions = decide(self.state, pending.pop(0), 0.0)
            for action in actions:
                match action:
                    case Spawn(kernel=name, generation=run, config=config):
                        self.spawned.append((name, config))
                        pending += [Spawned(name, run, ProcessId(run, run, "boot")), Ready(name, run)]
                    case AskToExit(kernel=name, generation=run):
                        pending.append(Exited(name, run, Exit(Cause.EXITED, 0)))

    def load(self, config: Config) -> None:
        self.submit(Load(config.kernels, config.supervisor.max_concurrent_starts))

    def running(self) -> dict[str, KernelConfig]:
        return {
            name: kernel.phase.launched
            for name, kernel in self.state.kernels.items()
            if isinstance(kernel.phase, Running)
        }


@given(st.lists(st.one_of(VALID, INVALID), min_size=1, max_size=8))
def test_any_sequence_of_files_ends_as_a_fresh_start_on_the_last_valid_one(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("edits") / "kernels.toml"
    file, world, last = SettingsFile(path), World(), Config()

    for text in texts:
        path.write_text(text)
        before = world.running()
        spawned = len(world.spawned)
        seen = file.look()
        if seen is None or isinstance(seen, Rejected):
            assert before == world.running()
            continue
        file.accept(seen)
        world.load(seen)
        last = seen
        for name, launched in world.spawned[spawned:]:
            assert name not in before or changed_launch_keys(before[name], launched)

    fresh = World()
    fresh.load(last)
    assert fresh.running().keys() == world.running().keys()
    for name, launched in world.running().items():
        assert () == changed_launch_keys(launched, fresh.running()[name])
