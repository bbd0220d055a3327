"""Supervised kernels among the kernelspecs of a Jupyter server, by their names.

Owns the names: where a kernelspec is installed that has the name of a
supervised kernel, the installed one keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

if TYPE_CHECKING:
    from supervisor.jupyter.kernels import SupervisedKernel

Fields = dict[str, Any]

PROVISIONER = "kernel-supervisor"
MARK = "kernel_supervisor"


def spec_of(view: Fields, **daemon: str) -> KernelSpec:
    """A kernelspec that means the living kernel, to whatever reads it; ``daemon`` tells whose it is."""
    chosen = {"provisioner_name": PROVISIONER, "config": {"name": view["name"], **daemon}}
    return KernelSpec(
        argv=["kernel-supervisor", "connection", view["name"]],
        display_name=view["display_name"],
        language=view["language"] or "",
        interrupt_mode="signal",  # by the provisioner, which has the daemon do it in the kernel's own way
        metadata={"kernel_provisioner": chosen, MARK: {"id": view["id"]}},
    )


class SupervisedSpecs(KernelSpecManager):  # type: ignore[misc]
    """The installed kernelspecs as ever, and one for each supervised kernel."""

    supervised: Mapping[str, SupervisedKernel] = MappingProxyType({})

    def _find(self) -> tuple[Fields, dict[str, Fields]]:
        """What is installed, and what we add; a name that ``jupyter kernelspecs`` has written is ours."""
        installed = KernelSpecManager(parent=self.parent).get_all_specs()
        taken = {name.lower() for name, found in installed.items() if MARK not in found["spec"]["metadata"]}
        views = [(name, kernel.view) for name, kernel in self.supervised.items()]
        return installed, {f"{name}-supervised" if name.lower() in taken else name: it for name, it in views}

    def kernel_of(self, spec_name: str | None) -> str:
        """The supervised kernel of a kernelspec, ``""`` if it is none."""
        return str(self._find()[1].get(spec_name or "", {}).get("name", ""))

    def get_all_specs(self) -> Fields:
        """All of them; what is supervised looks like the installed one by which it is launched."""
        installed, mine = self._find()
        for name, view in mine.items():
            looks = installed.get(view["launch"].lower(), {"resource_dir": str(Path(__file__).parent)})
            installed[name] = {"resource_dir": looks["resource_dir"], "spec": spec_of(view).to_dict()}
        return installed

    def find_kernel_specs(self) -> Fields:
        """The names of all, and where their resources are."""
        return {name: found["resource_dir"] for name, found in self.get_all_specs().items()}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """One of them.  Raises NoSuchKernel."""
        if not self.kernel_of(kernel_name):
            return super().get_kernel_spec(kernel_name)
        found = self.get_all_specs()[kernel_name]
        return KernelSpec(resource_dir=found["resource_dir"], **found["spec"])
