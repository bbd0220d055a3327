"""Configured ports that go from one kernel to another: whoever is to have them gets them, in the end."""

from __future__ import annotations

import json

import pytest

from supervisor.kernel.ports import search_range
from tests.e2e.daemon import Scene

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


def ports(scene: Scene, name: str) -> list[int]:
    content = json.loads(scene.connection_file(name).read_bytes())
    return [content[f"{channel}_port"] for channel in CHANNELS]


def pinned(given: list[int]) -> str:
    return f"{{ {', '.join(f'{channel} = {port}' for channel, port in zip(CHANNELS, given, strict=True))} }}"


def test_two_running_kernels_exchange_their_ports_by_one_edit(scene: Scene) -> None:
    keys = {"max_restarts": "1", "stop_timeout": "1.0"}
    scene.write(scene.mini("a", **keys), scene.mini("b", **keys))
    scene.start("a", "b")
    was = {name: ports(scene, name) for name in "ab"}

    scene.write(
        scene.mini("a", ports=pinned(was["b"]), **keys), scene.mini("b", ports=pinned(was["a"]), **keys)
    )
    scene.wait_running("a", "b", after=1)

    assert {"a": was["b"], "b": was["a"]} == {name: ports(scene, name) for name in "ab"}
    assert ["4", "4"] == [scene.run(name, "print(2 + 2)") for name in "ab"]
    assert [] == scene.events("kernel.failed")
    assert [] == scene.doubles()


def test_a_kernel_gets_another_name_and_keeps_its_ports_though_the_old_one_takes_long_to_stop(
    scene: Scene,
) -> None:
    scene.write(scene.mini("old"))
    scene.start("old")
    given = ports(scene, "old")
    keys = {
        "ports": pinned(given),
        "max_restarts": "2",
        "backoff": "{ next = 0.01, max = 0.02 }",
        "stop_timeout": "1.0",
    }
    stubborn = ("--ignore-shutdown", "--ignore", "SIGTERM,SIGINT")
    scene.write(scene.mini("old", *stubborn, **keys))
    scene.wait_running("old", after=1)

    scene.write(scene.mini("new", **keys))
    scene.wait_running("new")

    assert given == ports(scene, "new")
    assert [] == scene.events("kernel.failed")
    refused = scene.events("kernel.died", kernel="new")
    assert len(refused) > 2
    assert {"port-taken"} == {event["cause"] for event in refused}


@pytest.mark.parametrize("giver", ["running", "stopped"])
def test_a_port_that_an_edit_takes_from_one_kernel_and_gives_to_another_is_the_others(
    scene: Scene, giver: str
) -> None:
    taken = search_range()[17]
    fixed = {"ports": f"{{ shell = {taken} }}"}
    scene.write(scene.mini("a"), scene.mini("b", **fixed))
    scene.start("a", "b")
    if giver == "stopped":
        scene.order("stop", "b")

    scene.write(scene.mini("a", **fixed), scene.mini("b"))
    scene.wait_running("a", after=1)
    scene.order("start", "b")
    scene.wait_running("b", after=1)

    assert taken == ports(scene, "a")[0]
    assert taken not in ports(scene, "b")
    assert ["4", "4"] == [scene.run(name, "print(2 + 2)") for name in "ab"]
