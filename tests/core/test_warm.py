"""Stories of kernels that begin warm, and of what is told of their ends."""

from __future__ import annotations

from supervisor.core.events import Missed, Noted, Spawned
from supervisor.core.model import Begun, Cause, Check, Executing, Exit
from tests.core.story import Story, config, process, running


def test_how_a_run_began_is_told_once_it_is_ready_and_kept_while_it_runs() -> None:
    story = Story()
    story.load(config())
    story.tell(Spawned("a", 1, process(), Begun("prepared", "its imports take long")))

    story.ready()

    told = story.said("kernel.ready").fields
    assert ("prepared", "its imports take long") == (told["how"], told["why"])
    assert Begun("prepared", "its imports take long") == story.kernel().phase.begun


def test_of_a_run_that_began_as_ever_there_is_nothing_to_tell() -> None:
    story = Story()
    story.load(config())
    story.spawned()

    story.ready()

    assert not {"how", "why"} & story.last_published[0].fields.keys()


def test_what_a_run_executed_when_it_died_is_told() -> None:
    story = running()

    story.exited(Exit(Cause.KILLED, signal="SIGKILL", executing=Executing(41, "then", "x = 1")))

    assert {"count": 41, "since": "then", "code": "x = 1"} == story.said("kernel.died").fields["executing"]


def test_a_kernel_that_became_silent_is_told_with_its_stacks() -> None:
    story = running()
    for _ in range(2):
        story.tell(Missed("a", 1, Check.HEARTBEAT))

    story.tell(Missed("a", 1, Check.HEARTBEAT, ("File x, line 1 in f",)))

    assert ["File x, line 1 in f"] == story.said("kernel.unresponsive").fields["stacks"]


def test_what_happens_to_a_zygote_is_told_whatever_has_become_of_the_kernel() -> None:
    story = Story()

    assert [] == story.tell(Noted("a", 1, "zygote.unfit", {"reason": "import x: ImportError"}))

    assert ("zygote.unfit", "warning") == (story.last_published[0].event, story.last_published[0].level)


def test_a_start_up_loop_is_a_crash_loop() -> None:
    story = Story()
    story.load(config(max_restarts=1))
    story.spawned()
    story.exited(Exit(Cause.STARTUP, code=70, detail="NameError: name 'x' is not defined"))
    story.spawned()

    story.exited(Exit(Cause.STARTUP, code=70, detail="NameError: name 'x' is not defined"))

    assert "NameError" in str(story.said("kernel.failed").fields["reason"])
