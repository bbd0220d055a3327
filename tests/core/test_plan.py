"""What a reload would do, told without doing it."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.core.events import Found, Stop, Survivor
from supervisor.core.model import State, Want
from supervisor.core.plan import RENAMED, Planned, plan
from tests.core.story import CRASHED, NOT_FOUND, Story, config, declare, running

NEW = {"cwd": "/elsewhere"}


def planned(story: Story, *configs: object) -> list[Planned]:
    """The plan of a file, which leaves the story where it is."""
    before = story.state
    plans = plan(story.state, declare(*configs), story.now)  # type: ignore[arg-type]
    assert before == story.state
    return list(plans)


def test_without_a_daemon_the_plan_is_what_a_start_would_do() -> None:
    load = declare(config("a"), config("b", autostart=False), config("c", enabled=False))

    assert (
        Planned("a", "start"),
        Planned("b", "none", note="autostart = false"),
        Planned("c", "none", note="enabled = false"),
    ) == plan(State(), load, 0.0)


def test_more_kernels_than_start_at_a_time_are_started_all_the_same() -> None:
    plans = plan(State(), declare(*(config(name) for name in "abc"), max_concurrent_starts=1), 0.0)

    assert ["start"] * 3 == [one.action for one in plans]


MANUAL, WHEN_IDLE = {"on_config_change": "manual"}, {"on_config_change": "when-idle"}
BY_HAND = 'on_config_change = "manual": waits for a restart by hand'
ONCE_IDLE = 'on_config_change = "when-idle": restarts once it is idle; without a restart: max_restarts'


@pytest.mark.parametrize(
    ("launched", "file", "action", "keys", "note"),
    [
        ({}, {}, "none", (), ""),
        ({}, {"max_restarts": 9}, "apply", ("max_restarts",), ""),
        ({}, {"autostart": False}, "apply", ("autostart",), "from its next start: autostart"),
        (MANUAL, MANUAL | NEW, "pending", ("cwd",), BY_HAND),
        (WHEN_IDLE, WHEN_IDLE | NEW | {"max_restarts": 9}, "pending", ("cwd",), ONCE_IDLE),
    ],
)
def test_what_an_edit_does_to_a_kernel_that_runs(
    launched: dict[str, Any], file: dict[str, Any], action: Any, keys: tuple[str, ...], note: str
) -> None:
    assert [Planned("a", action, keys, note)] == planned(running(**launched), config(**file))


def test_a_restart_names_what_differs_from_what_was_launched_and_not_from_the_last_file() -> None:
    story = running(on_config_change="manual")
    story.load(config(on_config_change="manual", **NEW))

    assert [Planned("a", "restart", ("cwd",))] == planned(story, config(**NEW))


def test_kernels_come_and_go() -> None:
    story = running()
    story.load(config(), config("b", autostart=False))

    assert [
        Planned("c", "start"),
        Planned("a", "remove", note="once it has been stopped"),
        Planned("b", "remove"),
    ] == planned(story, config("c", **NEW))


def test_a_kernel_that_is_leaving_already_needs_nothing_more() -> None:
    story = running()
    story.load()

    assert [Planned("a", "none", note="has left the file and is being stopped")] == planned(story)


def test_a_new_name_is_a_new_kernel() -> None:
    story = running(**NEW)

    assert [Planned("b", "start", note=RENAMED), Planned("a", "remove", note=RENAMED)] == planned(
        story, config("b", **NEW)
    )
    assert "renamed? a new name is a new kernel: this is a stop and a start" == RENAMED


def test_a_new_kernel_with_other_settings_is_no_renaming() -> None:
    assert RENAMED not in [one.note for one in planned(running(), config("b", **NEW))]


def test_disabling_plans_a_stop_and_enabling_a_start() -> None:
    story = running()
    off = config(enabled=False)
    assert [Planned("a", "stop", ("enabled",), "enabled = false")] == planned(story, off)

    story.load(off)
    assert [Planned("a", "none")] == planned(story, off)
    assert [Planned("a", "start", ("enabled",), "once its stop has ended")] == planned(story, config())
    story.exited()
    assert [Planned("a", "start", ("enabled",))] == planned(story, config())


def test_disabling_what_has_no_run_stops_nothing() -> None:
    story = Story()
    story.load(config())
    story.spawn_failed(NOT_FOUND)

    assert [Planned("a", "none", ("enabled",), "enabled = false")] == planned(story, config(enabled=False))


def test_a_kernel_that_comes_back_while_stopping_is_started_after_that() -> None:
    story = running()
    story.load()

    assert [Planned("a", "start", (), "once its stop has ended")] == planned(story, config())
    assert [Planned("a", "none")] == planned(story, config(autostart=False))


def test_a_failed_kernel_is_mended_by_a_launch_key() -> None:
    story = Story()
    story.load(config(kernelspec="gone"))
    story.spawn_failed(NOT_FOUND)

    note = "had failed; tried again with the edited settings"
    assert [Planned("a", "start", ("kernelspec",), note)] == planned(story, config())
    assert [Planned("a", "apply", ("max_restarts",), "in force at its next start")] == planned(
        story, config(kernelspec="gone", max_restarts=9)
    )


def test_a_kernel_that_waits_after_a_death_is_started_at_once_by_a_launch_key() -> None:
    story = running()
    story.exited()
    story.runs()
    story.exited(CRASHED)
    assert "Backoff" == story.phase

    assert [Planned("a", "start", ("cwd",))] == planned(story, config(**NEW))


def test_a_stopped_kernel_has_its_settings_at_its_next_start() -> None:
    story = running()
    story.tell(Stop("a"))
    assert [Planned("a", "apply", ("cwd",), "in force once its stop has ended")] == planned(
        story, config(**NEW)
    )
    story.exited()

    assert [Planned("a", "apply", ("cwd",), "in force at its next start")] == planned(story, config(**NEW))
    assert [Planned("a", "none")] == planned(story, config())


@pytest.mark.parametrize(("autostart", "action"), [(True, "start"), (False, "none")])
def test_after_an_orderly_shutdown_the_file_decides(autostart: bool, action: str) -> None:
    story = Story()
    story.tell(Found((Survivor("a", config(autostart=autostart), 3, None),)))

    assert [action] == [one.action for one in planned(story, config(autostart=autostart))]
    assert Want.UP is story.kernel().want
