"""The account of a service, for a command line that root has called: whether it is there, and being it."""

from __future__ import annotations

import os
import sys

from supervisor.cli.exits import FAILED, USAGE, Quit

# What systemd gives to services (systemd.exec(5)).
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def account_exists(name: str) -> bool:
    """Whether there is an account of this name."""
    try:
        import pwd

        pwd.getpwnam(name)
    except (ImportError, KeyError):
        return False
    return True


def become(name: str) -> None:
    """Be this account from now on, with the environment of a service; there is no way back.

    Raises Quit where that cannot be, or where a service of it could not even begin.
    """
    if not account_exists(name):
        raise Quit(USAGE, f"--run-as: there is no account {name!r}")
    import pwd

    account = pwd.getpwnam(name)
    if os.geteuid() == 0:
        os.initgroups(name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    elif os.geteuid() != account.pw_uid:
        raise Quit(FAILED, f"only root can judge as {name}", "call it with sudo")
    os.environ.clear()
    os.environ |= {"PATH": _PATH, "HOME": account.pw_dir, "USER": name, "LOGNAME": name}
    os.umask(0o077)
    for path, mode, what in (
        (account.pw_dir, os.X_OK, "enter its home; the service would fail with 200/CHDIR"),
        (sys.executable, os.X_OK, "execute the program; the service would fail with 203/EXEC"),
        (__file__, os.R_OK, "read the program"),
    ):
        if not os.access(path, mode):
            raise Quit(FAILED, f"{path}: {name} may not {what}")
