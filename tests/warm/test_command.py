"""Which command lines are ipykernels, and what runs them prepared."""

from __future__ import annotations

import os
import shlex

import pytest

from supervisor.warm.command import IPython, NotWarm, prepared, read_command, write_order


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("python3 -m ipykernel_launcher -f c.json", (("python3",), "ipykernel_launcher", ("-f", "c.json"))),
        ("/a/python -m ipykernel -f c --x", (("/a/python",), "ipykernel", ("-f", "c", "--x"))),
        (
            "python3.13 -X dev -Wonce -I -m ipykernel_launcher -f c",
            (("python3.13", "-X", "dev", "-Wonce", "-I"), "ipykernel_launcher", ("-f", "c")),
        ),
    ],
)
def test_an_ipykernel_is_known_by_its_command(line: str, parts: tuple[object, ...]) -> None:
    assert IPython(*parts) == read_command(shlex.split(line))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [
        "deno jupyter --kernel --conn c",
        "python3 -m bash_kernel -f c",
        "python3 kernel.py -m ipykernel_launcher",
        "conda run python -m ipykernel_launcher -f c",
        "python3 -c ipykernel_launcher",
        "python3 -m",
        "python3",
    ],
)
def test_what_is_none_says_so(line: str) -> None:
    with pytest.raises(NotWarm):
        read_command(shlex.split(line))


def test_the_options_of_the_interpreter_and_the_words_of_the_kernel_are_kept() -> None:
    parts = read_command(["python3", "-I", "-m", "ipykernel_launcher", "-f", "c"])

    command = prepared(parts, 7)

    assert (["python3", "-I"], ["prepared", "7", "-f", "c"]) == (command[:2], command[3:])


def test_an_order_is_read_from_its_descriptor() -> None:
    fd = write_order({"run": 3})

    with os.fdopen(fd) as file:
        assert '{"run": 3}' == file.read()
