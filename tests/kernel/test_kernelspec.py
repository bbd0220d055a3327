"""Kernelspecs are found by name along Jupyter's path, and mistakes in them are told."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.model import Cause
from supervisor.kernel.kernelspec import LaunchError, find, installed

ARGV = ["prog", "{connection_file}"]


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two directories of kernelspecs, the only ones on the search path."""
    both = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(
        "jupyter_core.paths.jupyter_path", lambda *_: [str(tmp_path / "none"), *map(str, both)]
    )
    return both


def install(directory: Path, name: str, **content: Any) -> Path:
    path = directory / name / "kernel.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"argv": ARGV} | content))
    return path.parent


def test_all_that_a_kernelspec_says_is_there(directories: tuple[Path, Path]) -> None:
    there = install(
        directories[0],
        "deno",
        env={"A": "${B}"},
        interrupt_mode="message",
        metadata={"debugger": True},
        display_name="Deno",
        language="typescript",
    )

    spec = find("deno")

    assert ("deno", tuple(ARGV), {"A": "${B}"}, "message") == (
        spec.name,
        spec.argv,
        spec.env,
        spec.interrupt_mode,
    )
    assert ({"debugger": True}, "Deno", "typescript") == (spec.metadata, spec.display_name, spec.language)
    assert str(there) == spec.resource_dir
    assert "${B}" not in repr(spec)


def test_names_are_the_same_in_any_case(directories: tuple[Path, Path]) -> None:
    install(directories[0], "IR")

    assert "ir" == find("iR").name
    assert ["ir"] == list(installed())


def test_the_first_on_the_path_counts(directories: tuple[Path, Path]) -> None:
    install(directories[1], "same")
    first = install(directories[0], "same")

    assert str(first) == find("same").resource_dir
    assert {"same": first} == installed()


def test_what_is_no_kernelspec_is_passed_over(directories: tuple[Path, Path]) -> None:
    install(directories[0], "good")
    (directories[0] / "empty").mkdir()
    (directories[0] / "a file").write_text("")
    install(directories[0], "bad name")

    assert ["good"] == list(installed())


def test_an_unknown_name_gets_the_closest_and_what_is_installed(directories: tuple[Path, Path]) -> None:
    install(directories[0], "deno")
    install(directories[1], "octave")

    with pytest.raises(LaunchError) as told:
        find("octve")

    assert Cause.NOT_FOUND is told.value.cause
    assert 'kernelspec "octve" is not installed: did you mean "octave"? installed: "deno", "octave"' == str(
        told.value
    )


def test_nothing_installed_is_said_so(directories: tuple[Path, Path]) -> None:
    with pytest.raises(LaunchError, match=r'"deno" is not installed, nor is any other: install a kernel'):
        find("deno")


@pytest.mark.parametrize("name", ["../../etc", "", "a/b", "/", "\0"])
def test_a_name_is_never_a_path(directories: tuple[Path, Path], name: str) -> None:
    install(directories[0], "good")

    with pytest.raises(LaunchError, match="is not installed"):
        find(name)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe\xfd", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", '"argv" is not a list of strings'),
        (b'{"argv": []}', '"argv" is not a list of strings'),
        (b'{"argv": "prog"}', '"argv" is not a list of strings'),
        (b'{"argv": ["a", 1]}', '"argv" is not a list of strings'),
        (b'{"argv": ["a"], "env": ["A"]}', '"env" is not an object'),
        (b'{"argv": ["a"], "env": {"A": 7311}}', '"env": the value of "A" is not a string'),
        (b'{"argv": ["a"], "interrupt_mode": "shout"}', '"shout" is not one of "signal", "message"'),
    ],
)
def test_a_damaged_kernel_json_is_told_by_path_and_mistake(
    directories: tuple[Path, Path], content: bytes, what: str
) -> None:
    path = install(directories[0], "broken") / "kernel.json"
    path.write_bytes(content)

    with pytest.raises(LaunchError) as told:
        find("broken")

    assert Cause.NOT_FOUND is told.value.cause
    assert str(told.value).startswith(f"{path}: ")
    assert what in str(told.value)
    assert "7311" not in str(told.value)


def test_a_provisioner_that_is_not_local_is_refused(directories: tuple[Path, Path]) -> None:
    install(directories[0], "far", metadata={"kernel_provisioner": {"provisioner_name": "k8s-provisioner"}})
    install(
        directories[0], "near", metadata={"kernel_provisioner": {"provisioner_name": "local-provisioner"}}
    )

    with pytest.raises(LaunchError, match=r'"far" needs the kernel provisioner "k8s-provisioner"'):
        find("far")
    assert "near" == find("near").name


@pytest.mark.parametrize("name", ["python", "python3", "Python3"])
def test_python_means_python3(directories: tuple[Path, Path], name: str) -> None:
    installed_here = install(directories[0], "python3")

    assert ("python3", str(installed_here)) == (find(name).name, find(name).resource_dir)


def test_a_spec_that_is_called_python_is_itself(directories: tuple[Path, Path]) -> None:
    install(directories[0], "python3")
    own = install(directories[0], "python")

    assert str(own) == find("python").resource_dir


def test_python_without_a_kernelspec_is_the_ipykernel_of_this_environment(
    directories: tuple[Path, Path],
) -> None:
    expected = (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")

    assert ("python3", expected, "python") == (
        find("python").name,
        find("python").argv,
        find("python3").language,
    )


def test_python_without_a_kernelspec_and_without_ipykernel_is_not_installed(
    directories: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(LaunchError, match='"python3" is not installed'):
        find("python3")
