"""The lines at which keys stand."""

from __future__ import annotations

import pytest

from supervisor.settings.file import ConfigError, parse
from supervisor.settings.lines import Lines

TEXT = '''include = []            # 1
[supervisor]            # 2
log_level = "info"

[[hooks]]               # 5
events = ["kernel.died"]
[[hooks]]               # 7
events = [
  "kernel.ready",
]

[defaults.env]          # 12
A = """
[kernels.b]
B = 1
"""
[kernels."a.b"]         # 17
kernelspec = "python3"
env.C = "1"             # 19
heartbeat = { interval = 1.0, misses = 2 }

[kernels.b]             # 22
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("include",), 1),
        (("supervisor", "log_level"), 3),
        (("supervisor", "no_such"), 2),
        (("hooks", 1, "events"), 8),
        (("hooks", 1, "command"), 7),
        (("defaults", "env", "A"), 13),
        (("kernels", "a.b"), 17),
        (("kernels", "a.b", "env", "C"), 19),
        (("kernels", "a.b", "heartbeat", "misses"), 20),
        (("kernels", "b", "cwd"), 22),
        (("kernels", "c"), None),
        ((), None),
    ],
)
def test_a_key_stands_at_its_line(path: tuple[str | int, ...], line: int | None) -> None:
    assert line == Lines(TEXT).of(path)


def test_a_mistake_has_the_line_that_it_is_about() -> None:
    text = '[kernels.a]\nkernelspec = "python3"\nrestrat = "never"\n[kernels.b]\n'
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.toml")

    assert [3, 4] == [mistake.line for mistake in caught.value.mistakes]


def test_a_mistake_of_syntax_has_the_line_that_the_parser_tells() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("[kernels.a]\nkernelspec =\n", "f.toml")

    assert [2] == [mistake.line for mistake in caught.value.mistakes]


def test_what_is_in_no_line_has_none() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("", "f.toml")

    assert [None] == [mistake.line for mistake in caught.value.mistakes]
