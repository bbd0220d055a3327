"""The settings as values, and the example file that shows them."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from supervisor.settings.config import (
    LAUNCH_KEYS,
    RELOAD_ACTIONS,
    BackoffConfig,
    Config,
    File,
    KernelConfig,
    Settings,
    SlurmConfig,
    SupervisorConfig,
    changed_keys,
    changed_launch_keys,
    reload_actions,
)
from supervisor.settings.file import load, parse
from supervisor.settings.keys import keys_of

EXAMPLE = Path(__file__).parents[2] / "config" / "kernels.toml"
TABLES = (SupervisorConfig, *(key.table for key in keys_of(KernelConfig).values() if key.table), KernelConfig)


def kernel(**settings: object) -> KernelConfig:
    return msgspec.structs.replace(KernelConfig(name="a", kernelspec="python3"), **settings)


def test_every_key_but_the_name_has_a_reload_action() -> None:
    assert set(keys_of(KernelConfig)) - {"name"} == set(RELOAD_ACTIONS)
    assert set(keys_of(SupervisorConfig)) == set(reload_actions(SupervisorConfig))
    assert set(RELOAD_ACTIONS.values()) == {"live", "next-start", "restart"}


@pytest.mark.parametrize("table", TABLES)
def test_the_defaults_are_within_the_bounds(table: type[Settings]) -> None:
    given = {"name": "a"} if table is KernelConfig else {}
    value = table(**given)

    assert value == msgspec.convert(msgspec.to_builtins(value), table)


def test_changed_keys_are_those_that_differ_and_launch_keys_those_that_need_a_restart() -> None:
    old, new = kernel(), kernel(cwd="/tmp", backoff=BackoffConfig(max=3.0), hold_ports=False)

    assert ("cwd", "backoff", "hold_ports") == changed_keys(old, new)
    assert ("cwd",) == changed_launch_keys(old, new)
    assert () == changed_keys(old, kernel())


def test_launch_keys_are_what_a_running_process_cannot_change() -> None:
    expected = {"kernelspec", "argv", "extra_arguments", "user", "cwd", "env", "transport", "ip", "ports"}
    expected |= {"slurm"}

    assert expected == set(LAUNCH_KEYS)


def test_the_values_of_the_environment_are_not_in_the_repr() -> None:
    config = Config(kernels={"a": kernel(env={"TOKEN": "s3cret"})})

    assert "s3cret" not in f"{config!r} {config} {config.kernels['a'].__rich_repr__()}"
    assert "TOKEN" in repr(config)


def test_settings_go_through_json_unchanged() -> None:
    settings = kernel(env={"TOKEN": "s3cret"}, argv=("a", "{connection_file}"), kernelspec=None)

    assert settings == msgspec.json.decode(msgspec.json.encode(settings), type=KernelConfig)


# The example


def test_the_example_declares_two_ipykernel_kernels_with_defaults_and_a_warm_start() -> None:
    config = load(EXAMPLE).config

    assert ["analysis", "scratch"] == list(config.kernels)
    assert SupervisorConfig() == config.supervisor
    assert KernelConfig(name="analysis", kernelspec="python3") == config.kernels["analysis"]
    scratch = KernelConfig(name="scratch", kernelspec="python3", warm_start="fork")
    assert scratch == config.kernels["scratch"]


COMMENTED = re.compile(r"^#([a-z_]+) = ", re.MULTILINE)


def test_the_example_shows_every_key() -> None:
    text = EXAMPLE.read_text()
    shown = set(COMMENTED.findall(text)) | set(re.findall(r"^([a-z_]+) = ", text, re.MULTILINE))

    assert set(keys_of(SupervisorConfig)) | set(keys_of(KernelConfig)) - {"name"} | {
        "include",
        "hooks",
    } == shown - {""}
    for table in (File, *TABLES):
        for key in keys_of(table).keys() - {"name"}:
            assert re.search(rf"\b{key}\b", text), key


def test_what_the_example_shows_as_defaults_are_the_defaults() -> None:
    examples = (
        "user",
        "operators",
        "readers",
        "runtime_dir",
        "state_dir",
        "socket",
        "argv",
        "include",
        "hooks",
        "interrupt_mode",
        "display_name",
        "preload",
        "startup",
        "startup_file",
        "limits",
        "nice",
        "oom_score_adj",
        "slurm",
    )
    text = COMMENTED.sub(
        lambda found: found[0] if found[1] in examples else found[0][1:], EXAMPLE.read_text()
    )

    assert load(EXAMPLE).config == parse(text, "all.toml")


@pytest.mark.parametrize(
    "key",
    [
        *("runtime_dir", "state_dir", "socket", "argv", "interrupt_mode", "display_name"),
        *("preload", "startup", "startup_file", "limits", "nice", "oom_score_adj"),
    ],
)
def test_the_other_examples_can_be_uncommented(key: str) -> None:
    text = EXAMPLE.read_text().replace(f"#{key} = ", f"{key} = ")
    if key == "argv":
        text = text.replace('kernelspec = "python3"', "", 1)

    assert load(EXAMPLE).config != parse(text, "one.toml")


def test_a_stop_of_a_job_is_given_the_time_that_its_cluster_takes() -> None:
    here, there = KernelConfig(name="a"), KernelConfig(name="a", slurm=SlurmConfig())

    assert [10.0, 70.0] == [here.longest_stop, there.longest_stop]
