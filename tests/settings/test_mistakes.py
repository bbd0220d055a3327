"""What is a mistake in a file, and how it is told."""

# ruff: noqa: E501 - messages are one line each

from __future__ import annotations

import pytest

from supervisor.settings.file import ConfigError, parse
from tests.settings import test_rules, test_values
from tests.settings.files import SPEC, mistakes


def test_the_examples_of_the_style_are_told_as_they_stand_there() -> None:
    text = f'[kernels.analysis]\n{SPEC}restart = "allways"\nstop_timout = 3'
    with pytest.raises(ConfigError) as caught:
        parse(text, "config/kernels.toml")

    assert str(caught.value).split("\n") == [
        'config/kernels.toml: kernels.analysis.restart: "allways" is not one of "always", "on-failure", "never"',
        'config/kernels.toml: kernels.analysis.stop_timout: no such key; did you mean "stop_timeout"?',
    ]


def test_all_mistakes_are_told_at_once() -> None:
    lines = [line for line, _ in (*test_rules.IN_A_KERNEL, *test_values.IN_A_KERNEL) if "\n" not in line]
    text = "".join(f"[kernels.k{index}]\n{SPEC}{line}\n" for index, line in enumerate(lines))

    assert len(lines) == len(mistakes(text))


def test_a_file_of_mistakes_only_is_told_up_to_a_bound() -> None:
    text = f"[kernels.a]\n{SPEC}" + "".join(f"key{number} = 1\n" for number in range(50_000))

    assert 501 == len(mistakes(text))
    assert "more than 500 mistakes: mend these first" == mistakes(text)[-1]


def test_a_line_stays_a_line_and_short_whatever_it_quotes() -> None:
    text = f'[kernels."a\\nb\\u2028c\\u0085"]\n{SPEC}cwd = "x"\nrestart = "{"y" * 5000}"\n"{"k" * 5000}" = 1'

    assert 3 == len(mistakes(text))
    assert 3 == len("\n".join(mistakes(text)).splitlines())
    assert 2000 > len("".join(mistakes(text)))


def test_values_of_the_environment_are_in_no_message() -> None:
    env = (
        r'{ A = ["S3"], B = { S3 = 1 }, "C=" = "S3", D = "S3\u0000", E = 2020-01-01, JPY_PARENT_PID = "S3" }'
    )
    text = f'[kernels.a]\n{SPEC}env = {env}\n[kernels.b]\n{SPEC}env = "S3"\n[defaults]\nenv = ["S3"]'

    assert 8 == len(mistakes(text))
    assert "S3" not in "".join(mistakes(text))
