"""Whom to trust with a path: its owners and modes, up to the root, on the way through links too."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from supervisor.disk import privacy
from supervisor.disk.privacy import is_ours, let_in, reason_not_to_trust

GID = 77_777


def test_what_only_we_and_root_may_write_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert None is reason_not_to_trust(tmp_path / "file")
    assert None is reason_not_to_trust(tmp_path / "missing/file")


def test_a_link_is_judged_by_the_way_to_it_and_by_the_way_on(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open/file").touch()
    (tmp_path / "link").symlink_to("open/file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "open").chmod(0o777)

    assert f"{tmp_path}/open: others may write to it" == reason_not_to_trust(tmp_path / "link")
    assert None is reason_not_to_trust(tmp_path / "loop")
    (tmp_path / "open").chmod(0o1777)
    assert None is reason_not_to_trust(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(("members", "is_private"), [([], True), (["me"], True), (["me", "other"], False)])
def test_a_group_that_has_its_user_alone_is_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[str], is_private: bool
) -> None:
    """As where each user has a group and the umask is 002."""
    os.chown(tmp_path, -1, GID)
    tmp_path.chmod(0o770)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="me", pw_gid=GID))
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_name="me", gr_mem=members))

    assert is_private == (reason_not_to_trust(tmp_path) is None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_another_user_owns_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 4242, -1)

    assert not is_ours(tmp_path / "file")
    assert is_ours(tmp_path / "missing")
    assert (
        reason_not_to_trust(tmp_path / "file") == f"{tmp_path}/file: another user (uid 4242) may write to it"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(
    ("users", "is_outside"), [("0 1000 1\n", True), ("         0          0 4294967295\n", False)]
)
def test_who_is_outside_of_our_user_namespace_is_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: str, is_outside: bool
) -> None:
    os.chown(tmp_path, 65534, -1)
    (tmp_path.parent / "map").write_text(users)
    (tmp_path.parent / "nobody").write_text("65534\n")
    monkeypatch.setattr(privacy, "USER_NAMESPACE", (tmp_path.parent / "map", tmp_path.parent / "nobody"))

    assert is_outside == (reason_not_to_trust(tmp_path) is None)


def reached(path: Path, uid: int, *gids: int) -> bool:
    """Whether a process of this user and these groups can list a directory."""
    groups = {"user": uid, "group": uid, "extra_groups": gids}
    return subprocess.run(["ls", str(path)], capture_output=True, check=False, **groups).returncode == 0  # type: ignore[call-overload]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_those_who_are_let_in_get_in_and_nobody_else(open_path: Path) -> None:
    tmp_path = open_path / "place"
    tmp_path.mkdir(mode=0o700)

    let_in(tmp_path, 5, users=[4242])
    let_in(tmp_path, 5, groups=[GID])

    assert reached(tmp_path, 4242)
    assert reached(tmp_path, 4243, GID)
    assert not reached(tmp_path, 4243)
    assert 0o750 == stat.S_IMODE(tmp_path.stat().st_mode)
    assert 0 == tmp_path.stat().st_gid
    assert None is reason_not_to_trust(tmp_path)
    let_in(tmp_path, 5, users=[4243], anew=True)
    assert [False, True] == [reached(tmp_path, uid) for uid in (4242, 4243)]
    let_in(tmp_path, 5, anew=True)
    assert not reached(tmp_path, 4243)
    tmp_path.chmod(0o755)
    let_in(tmp_path, 1, users=[4242])
    assert reached(tmp_path, 4242), "who is let in has no less than all others"
