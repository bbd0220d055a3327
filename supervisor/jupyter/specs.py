"""Supervised kernels among the kernelspecs of a Jupyter server, by their names.

Owns the names: where a kernelspec is installed that has the name of a
supervised kernel, the installed one keeps it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

if TYPE_CHECKING:
    from supervisor.jupyter.kernels import SupervisedKernels

Fields = dict[str, Any]

PROVISIONER = "kernel-supervisor"
MARK = "kernel_supervisor"
# Whose logo a kernel has that is launched by a command.
_BY_LANGUAGE = {"python": "python3"}


def spec_of(view: Fields, resource_dir: str = "", **daemon: str) -> KernelSpec:
    """A kernelspec that means the living kernel, to whatever reads it; ``daemon`` tells whose it is."""
    chosen = {"provisioner_name": PROVISIONER, "config": {"name": view["name"], **daemon}}
    return KernelSpec(
        argv=["kernel-supervisor", "connection", view["name"]],
        display_name=view["display_name"],
        language=view["language"] or "",
        interrupt_mode="signal",  # by the provisioner, which has the daemon do it in the kernel's own way
        metadata={"kernel_provisioner": chosen, MARK: {"id": view["id"]}},
        resource_dir=resource_dir or str(Path(__file__).parent),
    )


class SupervisedSpecs(KernelSpecManager):  # type: ignore[misc]
    """The installed kernelspecs as ever, and one for each supervised kernel."""

    kernels: SupervisedKernels | None = None

    @property
    def _installed(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self.parent)

    def _names(self, installed: Fields) -> dict[str, str]:
        """The kernel of each name that we add; those that ``jupyter kernelspecs`` has written are ours."""
        if self.kernels is None:
            return {}
        taken = {name.lower() for name, found in installed.items() if MARK not in found["spec"]["metadata"]}
        return {
            f"{name}-supervised" if name.lower() in taken else name: name for name in self.kernels.supervised
        }

    def kernel_of(self, spec_name: str | None) -> str:
        """The supervised kernel of a kernelspec, ``""`` if it is none."""
        return self._names(self._installed.get_all_specs()).get(spec_name or "", "")

    def _spec(self, name: str, installed: Fields) -> KernelSpec:
        assert self.kernels is not None, "only what is supervised is asked for"
        view = self.kernels.supervised[name].view
        looks = (view["launch"].lower(), _BY_LANGUAGE.get(view["language"]))
        return spec_of(
            view, next((installed[like]["resource_dir"] for like in looks if like in installed), "")
        )

    def get_all_specs(self) -> Fields:
        """All of them."""
        installed = self._installed.get_all_specs()
        mine = {spec: self._spec(name, installed) for spec, name in self._names(installed).items()}
        return installed | {
            spec: {"resource_dir": it.resource_dir, "spec": it.to_dict()} for spec, it in mine.items()
        }

    def find_kernel_specs(self) -> Fields:
        """The names of all, and where their resources are."""
        return {name: found["resource_dir"] for name, found in self.get_all_specs().items()}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """One of them.  Raises NoSuchKernel."""
        installed = self._installed.get_all_specs()
        if name := self._names(installed).get(kernel_name):
            return self._spec(name, installed)
        return super().get_kernel_spec(kernel_name)
