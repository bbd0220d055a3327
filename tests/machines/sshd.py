"""A real sshd on loopback, to which any host name leads, and an ssh that knows it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.machines.test_relay import free_ports
from tests.waiting import DEADLINE, wait_for

_SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"


def reason_not_to_have_one() -> str | None:
    """Why there can be none here, in words."""
    lacking = [name for name in ("sshd", "ssh", "ssh-keygen") if shutil.which(name, path=_SBIN) is None]
    if lacking:
        return f"no {', '.join(lacking)}: apt-get install openssh-server"
    return None if os.geteuid() == 0 else "sshd lets nobody in but as root"


class Sshd:
    """It listens until it is stopped; ``path`` is a PATH with the ssh that is to be used."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700)
        self.place = free_ports(1)[0]
        for name in ("host", "mine"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(command, check=True, timeout=DEADLINE)
        (directory / "known").write_text("* " + (directory / "host.pub").read_text())
        (directory / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.place[1]}\nHostKey {directory}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {directory}/mine.pub\nStrictModes no\nPermitRootLogin prohibit-password\n"
        )
        (directory / "ssh_config").write_text(
            f"Host *\n HostName 127.0.0.1\n Port {self.place[1]}\n IdentityFile {directory}/mine\n"
            f" IdentitiesOnly yes\n UserKnownHostsFile {directory}/known\n HostKeyAlias node\n"
        )
        (directory / "bin").mkdir()
        (directory / "bin" / "ssh").write_text(
            f'#!/bin/sh\nexec {shutil.which("ssh")} -F {directory}/ssh_config "$@"\n'
        )
        (directory / "bin" / "ssh").chmod(0o755)
        self.path = f"{directory}/bin:{os.environ['PATH']}"
        self.start()

    def start(self) -> None:
        """Let people in."""
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd wants to be, as a service makes it
        command = [str(shutil.which("sshd", path=_SBIN)), "-D", "-e", "-f", f"{self.directory}/sshd_config"]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, start_new_session=True)
        wait_for(self._listens, self.told)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(self.place) == 0

    def told(self) -> str:
        """What it has to say, for an error."""
        return (self.directory / "log").read_text()

    def sessions(self) -> list[int]:
        """Its processes for those who are in."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def stop(self) -> None:
        """Let nobody in; those who are in stay."""
        self.process.terminate()
        self.process.wait(DEADLINE)


@contextmanager
def serving(directory: Path) -> Iterator[Sshd]:
    """One that serves; skips the test where there can be none."""
    if (reason := reason_not_to_have_one()) is not None:
        pytest.skip(reason)
    made = Sshd(directory)
    try:
        yield made
    finally:
        made.stop()
