"""Where the files of the kernels are, and how a person reaches a kernel by them.

Owns the names of the files (DESIGN: Files).  Makes none.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir
from msgspec import Struct


class Places(Struct, frozen=True):
    """Where the files of the kernels are."""

    state_dir: Path
    runtime_dir: Path

    @property
    def records(self) -> Path:
        """The directory of the records."""
        return self.state_dir / "kernels"

    def connection_file(self, kernel: str) -> Path:
        """So that ``jupyter console --existing kernel-NAME.json`` finds it."""
        return self.runtime_dir / f"kernel-{kernel}.json"

    def output_file(self, kernel: str) -> Path:
        """What the kernel process itself writes."""
        return self.state_dir / "output" / f"{kernel}.log"

    def pending_file(self, kernel: str) -> Path:
        """What a prepared kernel has read and not answered, and what it executes."""
        return self.state_dir / "pending" / kernel


def files_of(places: Places) -> list[Path]:
    """What there is of ours below the state directory, by its names."""
    state_dir = places.state_dir
    patterns = ("lock", "last-good.toml", "events.jsonl*", "kernels/*.json*", "output/*.log*", "pending/*")
    return [file for pattern in patterns for file in state_dir.glob(pattern)]


def connect_command(connection_file: Path, user: str | None = None) -> str:
    """What a person types to get a prompt in the kernel, who may have another environment than a service.

    ``user`` is whose it is, if not ours.
    """
    beside = Path(sys.prefix, "bin", "jupyter")
    program = str(beside) if not shutil.which("jupyter") and beside.exists() else "jupyter"
    # systemd.exec(5): meant for this very process, not for one that has started us.
    is_service = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())
    is_known = user is None and connection_file.parent == Path(jupyter_runtime_dir())
    if is_service and "JUPYTER_RUNTIME_DIR" in os.environ:
        is_known = False  # the unit says where, and only to us
    file = connection_file.name if is_known else str(connection_file)
    command = f"{shlex.quote(program)} console --existing {shlex.quote(file)}"
    is_of_system = is_service and "MANAGERPID" not in os.environ and os.geteuid() != 0
    account = user or (_account() if is_of_system else "")
    return f"sudo -u {shlex.quote(account)} {command}" if account else command


def _account() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"#{os.geteuid()}"
