"""Mistakes in the file, and things that the machine lacks: a clear line each, nothing harmed."""

from __future__ import annotations

import json
import sys

import pytest

from tests.e2e.daemon import Scene, table

# One of each kind: of a key, of a value, of what the machine cannot do.  All others are in tests/settings.
MISTAKES = {
    "unknown key": ('kernelspec = "python3"\nstop_timout = 2.0', "stop_timout", "did you mean"),
    "wrong type": ('kernelspec = "python3"\nmax_restarts = "many"', "kernels.bad.max_restarts", "integer"),
    "no placeholder": ('argv = ["true"]', "kernels.bad.argv", "{connection_file}"),
}


@pytest.fixture(scope="module")
def running(shared_scene: Scene) -> Scene:
    shared_scene.write(shared_scene.mini("well"))
    shared_scene.start("well")
    return shared_scene


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_clear_line_and_the_kernels_run_on(running: Scene, mistake: str) -> None:
    lines, key, word = MISTAKES[mistake]
    pids = running.pids()
    rejected = len(running.events("config.rejected"))
    good = running.config.read_text()
    running.write(running.mini("well"), f"[kernels.bad]\n{lines}")
    try:
        reloaded = running.command("reload", "--config", str(running.config))

        assert 78 == reloaded.code
        (line,) = reloaded.err.splitlines()
        assert line.startswith(f"{running.config}: ")
        assert key in line
        assert word in line
        event = running.wait_event("config.rejected", rejected + 1)
        assert [line] == event["mistakes"]
        assert pids == running.pids()
    finally:
        running.config.write_text(good)
        assert 0 == running.command("reload", "--config", str(running.config)).code


def test_a_start_with_a_bad_file_tells_every_mistake_exits_78_and_does_nothing(scene: Scene) -> None:
    scene.write(
        scene.mini("a"),
        "[kernels.bad]\nargv = ['true']\nstop_timout = 2.0\nrestart = 'allways'",
        "[kernels.worse]\nkernelspec = 'python3'\nmax_restarts = -1",
        supervisor="log_levle = 'info'",
    )
    before = sorted(scene.directory.rglob("*"))

    done = scene.command("run", str(scene.config))

    assert 78 == done.code
    for key in ("bad.argv", "bad.stop_timout", "bad.restart", "worse.max_restarts", "log_levle"):
        assert 1 == sum(f"{key}: " in line for line in done.err.splitlines()), (key, done.err)
    assert 5 == len(done.err.splitlines())
    assert before == sorted(scene.directory.rglob("*"))
    assert [] == scene.processes()


def test_a_start_without_a_file_exits_78_and_does_nothing(scene: Scene) -> None:
    done = scene.command("run", str(scene.config))

    assert 78 == done.code
    assert f"{scene.config}: no such file" in done.err
    assert not scene.state_dir.exists()


def test_a_directory_that_may_not_be_entered_fails_only_its_kernel(scene: Scene) -> None:
    closed = scene.directory / "closed"
    closed.mkdir(mode=0o000)
    argv = json.dumps([sys.executable, "-c", "0", "{connection_file}"])
    scene.write(table("shut", argv=argv, cwd=f'"{closed}"'), scene.mini("well"))
    try:
        scene.start("well", weak=True)

        reason = scene.wait_phase("shut", "failed")["reason"]
        assert str(closed) in reason
        assert "may not be entered" in reason
        assert "running" == scene.kernel("well")["phase"]
    finally:
        closed.chmod(0o700)
