"""PYTHON [options] launch.py WHAT FD [arguments]: an ipykernel that is prepared, or a zygote of such.

Given by path to the kernel's own interpreter.  FD is open on what the supervisor orders, in JSON.  Nothing
may be seen of it afterwards: not in ``sys.path``, ``sys.argv``, ``sys.orig_argv`` or ``__main__``.
"""

import importlib
import os
import runpy
import sys
import types
from typing import Any

NAME = "kernel_supervisor_inside"


def load(part: str) -> Any:
    """A module of the folder of this file, which is not on the path of the user's imports."""
    package = sys.modules[NAME] = types.ModuleType(NAME)
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    return importlib.import_module(NAME + "." + part)


if __name__ == "__main__":
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]  # this folder; IPython adds the working directory
    if sys.version_info >= (3, 9) or sys.argv[1] != "prepared":
        load(sys.argv[1]).main(int(sys.argv[2]), sys.argv[3:])
    else:
        sys.stderr.write("kernel-supervisor: not prepared: Python is older than 3.9\n")
        del sys.argv[1:3]
        runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
