"""Supervised kernels among the kernelspecs of a Jupyter server, by their names.

Owns the names: where a kernelspec is installed that has the name of a
supervised kernel, the installed one keeps it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel

if TYPE_CHECKING:
    from supervisor.jupyter.kernels import SupervisedKernels

Fields = dict[str, Any]

PROVISIONER = "kernel-supervisor"
MARK = "kernel_supervisor"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
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

    def _names(self, installed: Any) -> dict[str, str]:
        """The kernel of each name that we add."""
        if self.kernels is None:
            return {}
        taken = {name.lower() for name in installed if not self._is_ours(name)}
        return {
            f"{name}-supervised" if name.lower() in taken else name: name for name in self.kernels.supervised
        }

    def _is_ours(self, name: str) -> bool:
        """Whether an installed kernelspec is one that ``jupyter kernelspecs`` has written."""
        if self.kernels is None or name not in {kernel.lower() for kernel in self.kernels.supervised}:
            return False
        try:
            return MARK in super().get_kernel_spec(name).metadata
        except NoSuchKernel:
            return False

    def kernel_of(self, spec_name: str | None) -> str:
        """The supervised kernel of a kernelspec, ``""`` if it is none."""
        if not spec_name or self.kernels is None or not self.kernels.supervised:
            return ""
        return self._names(super().find_kernel_specs()).get(spec_name, "")

    def _spec(self, name: str) -> KernelSpec:
        assert self.kernels is not None, "only what is supervised is asked for"
        view = self.kernels.supervised[name].view
        like = view["launch"] if _NAME.fullmatch(view["launch"]) else _BY_LANGUAGE.get(view["language"], "")
        try:
            return spec_of(view, super().get_kernel_spec(like).resource_dir if like else "")
        except NoSuchKernel:
            return spec_of(view)

    def find_kernel_specs(self) -> Fields:
        """The names of all, and where their resources are."""
        found = dict(super().find_kernel_specs())
        return found | {spec: self._spec(name).resource_dir for spec, name in self._names(found).items()}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """One of them.  Raises NoSuchKernel."""
        if name := self.kernel_of(kernel_name):
            return self._spec(name)
        return super().get_kernel_spec(kernel_name)

    def get_all_specs(self) -> Fields:
        """All of them."""
        found = {}
        for name, where in super().find_kernel_specs().items():
            try:
                found[name] = {"resource_dir": where, "spec": super().get_kernel_spec(name).to_dict()}
            except NoSuchKernel:
                self.log.warning("kernelspec %s cannot be read", name)
        for spec, name in self._names(found).items():
            mine = self._spec(name)
            found[spec] = {"resource_dir": mine.resource_dir, "spec": mine.to_dict()}
        return found
