"""Supervised kernels among the installed kernelspecs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_client.kernelspec import NoSuchKernel

from supervisor.jupyter.specs import MARK, PROVISIONER, SupervisedSpecs, spec_of


def view(name: str, **more: Any) -> dict[str, Any]:
    known = {"display_name": name.title(), "language": "python", "launch": "robot", "id": f"id of {name}"}
    return {"name": name, **known, **more}


def install(folder: Path, name: str, **metadata: Any) -> None:
    (folder / "kernels" / name).mkdir(parents=True)
    content = {"argv": ["true"], "display_name": name, "language": "x", "metadata": metadata}
    (folder / "kernels" / name / "kernel.json").write_text(json.dumps(content))


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SupervisedSpecs:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    install(tmp_path, "robot")
    install(tmp_path, "ours", **{MARK: {"id": "x"}})
    made = SupervisedSpecs()
    views = {name: view(name) for name in ("analysis", "Robot", "ours")}
    made.supervised = {name: SimpleNamespace(view=it) for name, it in views.items()}
    return made


def test_a_kernelspec_means_the_living_kernel_to_whatever_reads_it() -> None:
    spec = spec_of(view("a", language=None), socket="/s").to_dict()

    assert ("A", "", "signal") == (spec["display_name"], spec["language"], spec["interrupt_mode"])
    assert {
        "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": {"name": "a", "socket": "/s"}},
        MARK: {"id": "id of a"},
    } == spec["metadata"]


def test_an_installed_one_keeps_its_name_but_one_that_we_have_written(specs: SupervisedSpecs) -> None:
    found = specs.get_all_specs()

    assert {"analysis", "robot", "Robot-supervised", "ours", "python3"} <= found.keys()
    assert "robot" == found["robot"]["spec"]["display_name"]
    assert "Ours" == found["ours"]["spec"]["display_name"]
    assert {name: it["resource_dir"] for name, it in found.items()} == specs.find_kernel_specs()


def test_a_kernel_is_found_by_the_name_of_its_kernelspec(specs: SupervisedSpecs) -> None:
    assert ["analysis", "Robot", "", ""] == [
        specs.kernel_of(name) for name in ("analysis", "Robot-supervised", "robot", None)
    ]
    assert "Robot" == specs.get_kernel_spec("Robot-supervised").display_name
    assert "robot" == specs.get_kernel_spec("robot").display_name
    with pytest.raises(NoSuchKernel):
        specs.get_kernel_spec("nobody")


def test_it_looks_like_what_it_is_launched_by(specs: SupervisedSpecs, tmp_path: Path) -> None:
    assert str(tmp_path / "kernels" / "robot") == specs.get_kernel_spec("analysis").resource_dir


def test_without_supervised_kernels_all_is_as_installed(specs: SupervisedSpecs) -> None:
    specs.supervised = {}

    assert ("", "ours") == (specs.kernel_of("analysis"), specs.get_kernel_spec("ours").display_name)
