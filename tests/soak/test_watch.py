"""The soak's own eyes: what must never be is seen when it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from supervisor.records.record import MARK_VARIABLE, mark
from tests.e2e.daemon import Scene
from tests.soak.soak import Soak
from tests.soak.watch import Usage, Violated, Watch
from tests.waiting import wait_for


@contextmanager
def process(scene: Scene, kernel: str, generation: int) -> Iterator[int]:
    """A process with the mark of a run."""
    env = os.environ | {MARK_VARIABLE: mark(scene.state_dir, kernel, generation)}
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(argv, env=env, start_new_session=True) as started:
        wait_for(lambda: started.pid in scene.leaders(), "it is there")
        yield started.pid
        started.kill()


def test_two_processes_of_a_kernel_are_seen_and_one_of_each_of_two_is_well(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    watch = Watch(scene)
    with ExitStack() as stack:
        for kernel in ("a", "b"):
            stack.enter_context(process(scene, kernel, 1))
        watch.look()
        assert [] == watch.violations

        stack.enter_context(process(scene, "a", 2))
        watch.look()

    assert ["two processes of a"] == [line.partition(":")[0] for line in watch.violations]


def test_a_second_process_that_only_it_knew_of_is_seen(tmp_path: Path) -> None:
    watch = Watch(Scene(tmp_path))
    (tmp_path / "alone" / "a.two").write_text("2 was started while 1 lived\n")

    watch.look()

    assert 1 == len(watch.violations)


def test_an_address_that_changes_is_seen_unless_the_kernel_was_removed(tmp_path: Path) -> None:
    watch = Watch(Scene(tmp_path))
    file = tmp_path / "runtime" / "kernel-a.json"
    file.parent.mkdir()
    watch.removals["a"] = 1
    for content in ("one", "two"):
        file.write_text(content)
        watch.look()
    assert [] == watch.violations

    file.write_text("three")
    watch.look()

    assert ["the address of a has changed"] == watch.violations


def test_what_a_process_holds_is_counted(tmp_path: Path) -> None:
    before = Usage.of(os.getpid())
    with (tmp_path / "file").open("w"), subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        after = Usage.of(os.getpid())

    assert before.descriptors + 1 == after.descriptors
    assert before.zombies + 1 == after.zombies


def test_a_kernel_that_is_not_as_was_last_wanted_ends_the_soak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.soak.soak.SETTLE", 3.0)
    soak = Soak(tmp_path, seed=1, kernels=2, seconds=60)
    soak.intents.write(soak.scene)
    try:
        soak.scene.start("k0", "k1")
        soak.check()
        soak.intents.of["k0"].is_up = False  # and nobody is told
        with pytest.raises(Violated, match=r"k0 .* running"):
            soak.check()
        soak.intents.of["k0"].is_up = True
        soak.intents.of["k1"].round += 1  # and it is not in the file
        with pytest.raises(Violated, match=r"k1 .* running"):
            soak.check()
        soak.intents.of["k1"].round -= 1
        (soak.scene.state_dir / "kernels" / ".left.tmp").write_text("")
        with pytest.raises(Violated, match=r"left over: \.left\.tmp"):
            soak.check()
    finally:
        soak.scene.clean_up()
