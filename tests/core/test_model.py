"""The state of a kernel, as far as its phase says it."""

from __future__ import annotations

from supervisor.core.events import Start
from supervisor.core.model import Executing, is_settled, is_to_run, launched_of, process_of
from tests.core.story import CRASHED, Story, config, declare, process, running


def test_where_a_kernel_is_settled_and_what_its_run_is() -> None:
    story = Story()
    story.load(config(autostart=False))
    assert is_settled(story.kernel())
    assert (None, None) == (launched_of(story.kernel()), process_of(story.kernel()))
    story.tell(Start("a"))
    assert not is_settled(story.kernel())
    story.spawned()
    assert not is_settled(story.kernel())
    story.ready()
    assert is_settled(story.kernel())
    assert (config(autostart=False), process()) == (launched_of(story.kernel()), process_of(story.kernel()))
    story.tell(declare(config(cwd="/elsewhere")))
    assert not is_settled(story.kernel())


def test_who_has_a_run_or_will_have_one_is_to_run() -> None:
    story = running(max_restarts=1)
    assert is_to_run(story.kernel())
    story.exited(CRASHED)
    assert is_to_run(story.kernel())
    story.runs()
    story.exited(CRASHED)
    assert not is_to_run(story.kernel()), "it is given up"


def test_the_last_twenty_deaths_are_remembered_and_the_last_is_the_last() -> None:
    story = running(max_restarts=0)
    for _ in range(23):
        story.exited()
        if story.phase == "Backoff":
            story.tick()
        story.runs()

    deaths = story.kernel().deaths
    assert list(range(4, 24)) == [death.generation for death in deaths]
    assert deaths[-1] == story.kernel().last_death


def test_the_code_of_others_is_in_no_log() -> None:
    assert "secret" not in repr(Executing(3, "2026-01-01T00:00:00Z", "secret = 1"))
