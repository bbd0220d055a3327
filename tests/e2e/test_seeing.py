"""What the daemon tells of its kernels to who asks: usage, counts, settings, output, hooks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor.control.client import Client
from tests.e2e.daemon import Scene
from tests.waiting import DEADLINE, wait_for


def asked(scene: Scene, path: str) -> dict[str, Any]:
    answer = scene.ask("GET", path)
    assert 200 == answer.status, answer.body
    return answer.body


HOOKS = """
[[hooks]]
name = "good"
events = ["kernel.*"]
command = ["sh", "-c", "cat > told"]
[[hooks]]
events = ["kernel.died"]
command = ["false"]
"""


@pytest.fixture(scope="module")
def seen(shared_scene: Scene) -> Scene:
    a = shared_scene.mini("a", env='{ SECRET = "hidden" }')
    others = shared_scene.mini("b"), shared_scene.mini("c", autostart="false")
    shared_scene.write(a, *others, head=HOOKS, defaults="stop_timeout = 3.0")
    shared_scene.start("a", "b")
    return shared_scene


def test_usage_is_of_the_kernels_that_are_asked_for_and_have_a_process(seen: Scene) -> None:
    assert {"a", "b"} == asked(seen, "/v1/usage")["usage"].keys()
    used = asked(seen, "/v1/usage?kernel=a&kernel=c")["usage"]
    assert ["a"] == list(used)
    assert used["a"]["memory"] > 1_000_000
    assert 0 == used["a"]["children"]
    assert asked(seen, "/v1/kernels/c/usage")["usage"] is None
    assert 404 == seen.ask("GET", "/v1/usage?kernel=nobody").status
    table = seen.command("status", "--usage", "a").out
    assert "MEMORY" in table
    assert " MB " in table


def test_counts_are_since_the_start_of_the_daemon_and_a_status_tells_which_events_are_in_it(
    seen: Scene,
) -> None:
    before, seq = asked(seen, "/v1/counts"), asked(seen, "/v1/status")["seq"]
    assert seen.events()[-1]["seq"] == seq

    seen.order("restart", "b")

    found = asked(seen, "/v1/counts")
    assert {"b": {"ordered": 1}} == found["restarts"]
    assert [1, 2] == [sum(counts["ready"]["b"]["buckets"]) for counts in (before, found)]
    assert {"accepted": 1, "rejected": 0} == found["loads"]
    assert found["daemon"]["descriptors"] > 5
    done = seen.command("metrics")
    assert 'kernel_supervisor_kernel_restarts_total{cause="ordered",kernel="b"} 1.0' in done.out
    assert 'kernel_supervisor_kernel_threads{kernel="b"}' in done.out
    assert seq < asked(seen, "/v1/status")["seq"] == seen.events()[-1]["seq"]


def test_settings_are_told_with_their_origin_and_without_values_of_the_environment(seen: Scene) -> None:
    rows = {row["key"]: row for row in asked(seen, "/v1/kernels/a/settings")["settings"]}

    assert {"key": "stop_timeout", "value": "3.0", "origin": "defaults"} == rows["stop_timeout"]
    assert {"key": "env", "value": '{ SECRET = "…" }', "origin": "own"} == rows["env"]
    assert "built in" == rows["restart"]["origin"]


def test_output_is_told_and_followed(seen: Scene) -> None:
    file = seen.state_dir / "output" / "a.log"
    with file.open("ab") as log:
        log.write("one\ntwo \xff\n".encode("latin-1"))

    with Client([seen.socket]).connect() as connection:
        connection.send("GET", "/v1/kernels/a/output?last=2&follow=1")
        assert connection.open_stream() is None
        lines = connection.lines(30.0)
        assert "one\ntwo �\n" == next(lines)["text"]
        with file.open("ab") as log:
            log.write(b"three\n")
        assert "three\n" == next(lines)["text"]


def test_a_hook_is_tested_where_it_will_run(seen: Scene) -> None:
    done = seen.command("hooks", "test", "good")
    assert (0, "hook good: ended well\n") == (done.code, done.out)
    assert "sample" == json.loads((seen.directory / "told").read_text())["kernel"]
    done = seen.command("hooks", "test", "false")
    assert (1, True) == (done.code, "failed with exit code 1" in done.err)
    done = seen.command("hooks", "test", "nobody")
    assert (1, True) == (done.code, "there are: good, false" in done.err)


def test_mistakes_are_told_with_their_place(seen: Scene) -> None:
    good = seen.config.read_text()
    text = good + 'restrat = "never"\n'
    seen.config.write_text(text)
    wait_for(lambda: asked(seen, "/v1/status")["config"]["mistakes_at"])

    (mistake,) = asked(seen, "/v1/status")["config"]["mistakes_at"]
    assert (str(seen.config), "kernels.c.restrat") == (mistake["file"], mistake["key"])
    assert 'restrat = "never"' == text.splitlines()[mistake["line"] - 1]
    assert 'no such key; did you mean "restart"?' == mistake["text"]
    seen.config.write_text(good)
    wait_for(lambda: not asked(seen, "/v1/status")["config"]["mistakes_at"])


def test_events_of_any_length_arrive_whole(scene: Scene) -> None:
    scene.write(scene.mini("a", autostart="false"))
    scene.state_dir.mkdir(0o700)
    past = {"event": "kernel.died", "kernel": "a", "seq": 1, "output_tail": ["x" * 300_000, "é" * 300_000]}
    line = json.dumps({"timestamp": "2026-01-02T03:04:05.000Z", "level": "info", **past}, ensure_ascii=False)
    (scene.state_dir / "events.jsonl").write_text(f"{line}\n")
    scene.start()

    with Client([scene.socket]).connect() as connection:
        connection.send("GET", "/v1/events?follow=1")
        assert connection.open_stream(timeout=DEADLINE) is None
        following = connection.lines(DEADLINE)
        assert past["output_tail"] == next(following)["output_tail"]
        scene.write(*(f"[kernels.k{number}]\n{'y' * 600}{number} = 1" for number in range(500)))
        live = next(event for event in following if event["event"] == "config.rejected")

    assert len(json.dumps(live)) > 200_000
    assert len(live["mistakes"]) > 500
    assert live == scene.wait_event("config.rejected")
    for words in ((), ("-n", "100"), ("--since", "9000d"), ("--event", "config.rejected")):
        told = [json.loads(line) for line in scene.command("logs", "--json", *words).out.splitlines()]
        assert live in told
        assert [past["output_tail"]] * ("--event" not in words) == [
            event["output_tail"] for event in told if event["event"] == "kernel.died"
        ]
