"""The verbs about configurations: check, schema, plan and reload."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supervisor.cli.program import main
from tests.cli.tools import ROOT, Cli, run
from tests.control.fake_steering import FakeSteering


def test_reload_and_plan_tell_what_changes(cli: Cli, steering: FakeSteering) -> None:
    assert (0, "robot: restart: env\n", "") == cli("reload")
    assert (0, "robot: restart: env\n", "") == cli("plan", "other.toml")
    assert str(steering.tmp / "other.toml") == steering.planned_path


@pytest.mark.parametrize("verb", ["reload", "plan"])
def test_reload_and_plan_tell_what_becomes_of_each_key_of_the_daemon_itself(
    cli: Cli, steering: FakeSteering, verb: str
) -> None:
    steering.edited = {"socket": "pending", "on_exit": "apply"}

    _, out, _ = cli(verb)

    own = ["[supervisor] socket: takes effect when the daemon is started anew"]
    own.append("[supervisor] on_exit: " + ("applied" if verb == "reload" else "would be applied"))
    assert [*own, "robot: restart: env"] == out.splitlines()


def test_a_plan_of_a_daemon_that_hangs_is_no_plan_of_a_start(
    hanging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "k.toml"
    file.write_text('[supervisor]\nsocket = "hanging"\n[kernels.a]\nkernelspec = "python3"\n')
    monkeypatch.setattr("supervisor.cli.files.READING_TIMEOUT", 0.1)

    assert 3 == main(["plan", "--config", str(file)])
    assert "" == capsys.readouterr().out


@pytest.mark.parametrize("verb", ["reload", "plan"])
def test_a_rejected_configuration_is_78_with_every_mistake(
    cli: Cli, steering: FakeSteering, verb: str
) -> None:
    steering.mistakes = ["k.toml: a: x", "k.toml: b: y"]

    assert (78, "", "k.toml: a: x\nk.toml: b: y\n") == cli(verb)
    assert (78, False) == ((done := cli(verb, "--json")).code, json.loads(done.out)["accepted"])


def test_a_file_is_planned_by_the_daemon_that_would_be_asked_anyway(
    tmp_path: Path, usual: FakeSteering
) -> None:
    (tmp_path / "team.toml").touch()

    assert 0 == run(tmp_path, "plan", "team.toml").code
    assert str(tmp_path / "team.toml") == usual.planned_path


def test_a_configuration_is_checked(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text('[kernels.a]\nkernelspec = "python3"\n')
    (tmp_path / "bad.toml").write_text('[kernels.a]\nkernelspce = "python3"\nrestart = "allways"\n')

    good, bad = run(tmp_path, "check", "good.toml"), run(tmp_path, "check", "bad.toml")

    assert (0, "") == (good.code, good.err)
    assert "[kernels.a]" in good.out
    assert (78, "") == (bad.code, bad.out)
    assert 2 <= len(bad.err.splitlines())
    assert 'did you mean "kernelspec"' in bad.err
    assert (
        "python3"
        == json.loads(run(tmp_path, "check", "--json", "good.toml").out)["config"]["kernels"]["a"][
            "kernelspec"
        ]
    )
    assert json.loads(run(tmp_path, "check", "--json", "bad.toml").out)["mistakes"]


@pytest.mark.parametrize("verb", ["run", "check"])
def test_no_configuration_at_all_is_78(tmp_path: Path, verb: str) -> None:
    code, _, err = run(tmp_path, verb)

    assert 78 == code
    assert "no configuration is named, and none is found: name one; looked for kernels.toml" in err


def test_the_schema_is_json(tmp_path: Path) -> None:
    assert "kernels" in json.loads(run(tmp_path, "schema").out)["properties"]


def test_the_example_of_the_readme_is_accepted_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "kernels.toml").write_text(
        (ROOT / "README.md").read_text().partition("```toml\n")[2].partition("```")[0]
    )

    code, out, err = run(tmp_path, "check", "kernels.toml")

    assert (0, "") == (code, err)
    assert "[kernels.analysis]" in out


def test_a_plan_without_a_daemon_tells_what_a_start_would_do(tmp_path: Path) -> None:
    file = tmp_path / "k.toml"
    file.write_text(
        '[supervisor]\nstate_dir = "state"\n[kernels.a]\nkernelspec = "python3"\n'
        '[kernels.b]\nkernelspec = "python3"\nenabled = false\n'
    )

    code, out, err = run(tmp_path, "plan", "--config", str(file))

    assert (0, "a: start\n") == (code, out)
    assert "no daemon answers" in err
    assert not (tmp_path / "state").exists()


def test_a_plan_of_a_bad_file_without_a_daemon_tells_its_mistakes(tmp_path: Path) -> None:
    (tmp_path / "k.toml").write_text("[kernels.a]\nkernelspce = 'x'\n")

    code, _out, err = run(tmp_path, "plan", "k.toml")

    assert 78 == code
    assert 'did you mean "kernelspec"?' in err


def test_names_of_which_one_is_part_of_another_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "k.toml").write_text(
        "".join(f'[kernels.{n}]\nkernelspec = "python3"\n' for n in ("data", "data2", "x"))
    )

    _, _, err = run(tmp_path, "check", "k.toml")

    told = "warning: kernels.data: the name is part of 'data2', so \"--existing data\" may mean either: "
    assert [
        f"kernel-supervisor: {told}use kernel-supervisor console data, or --existing kernel-data.json"
    ] == [line for line in err.splitlines() if "part of" in line]


@pytest.mark.parametrize(
    ("state_dir", "hint"),
    [
        ("new", "{0}/new is not there yet: a start makes it"),
        ("file/state", "{0}/file/state: a start could not write there: make {0}/file writable"),
    ],
)
def test_a_plan_of_a_start_tells_what_it_would_meet_at_the_state_directory(
    tmp_path: Path, state_dir: str, hint: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "k.toml").write_text(
        f'[supervisor]\nstate_dir = "{state_dir}"\n[kernels.a]\nkernelspec = "python3"\n'
    )

    code, out, err = run(tmp_path, "plan", "--config", "k.toml")

    assert (0, "a: start\n") == (code, out)
    assert f"kernel-supervisor: {hint.format(tmp_path)}" in err
