"""Where daemon and clients look; both use the same functions, so they agree."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from supervisor.control import lookup
from supervisor.control.lookup import (
    BadPath,
    NoConfig,
    default_config,
    default_socket,
    default_state_dir,
    lead,
)

STATE = Path("/state")


def test_the_state_directory_is_systemds_where_there_is_one() -> None:
    assert Path("/var/lib/one") == default_state_dir({"STATE_DIRECTORY": "/var/lib/one:/var/lib/two"})


@pytest.mark.parametrize("state_home", [None, "/elsewhere"])
def test_the_state_directory_is_the_one_of_platformdirs(
    monkeypatch: pytest.MonkeyPatch, state_home: str | None
) -> None:
    monkeypatch.setenv("HOME", "/home/user")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    environ = {"HOME": "/home/user"}
    if state_home:
        monkeypatch.setenv("XDG_STATE_HOME", state_home)
        environ["XDG_STATE_HOME"] = state_home

    assert platformdirs.user_state_path("kernel-supervisor", appauthor=False) == default_state_dir(environ)


@pytest.mark.parametrize(
    ("environ", "is_given", "expected"),
    [
        ({}, False, "/state/control.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, False, "/run/user/7/kernel-supervisor/control.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, True, "/state/control.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/7", "RUNTIME_DIRECTORY": "/run/ks"}, True, "/run/ks/control.sock"),
    ],
)
def test_the_socket_is_the_units_then_the_state_directorys_then_the_users(
    environ: dict[str, str], is_given: bool, expected: str
) -> None:
    assert Path(expected) == default_socket(environ, STATE, state_dir_is_given=is_given)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_socket_comes_before_all_else(here: Path) -> None:
    (here / "k.toml").write_text('[supervisor]\nsocket = "/c.sock"\n')
    environ = {"KERNEL_SUPERVISOR_SOCKET": "/e.sock", "HOME": "/h"}

    assert (Path("/s.sock"),) == lead(environ, socket="/s.sock", config="k.toml").sockets
    assert Path("/c.sock") == lead(environ, config="k.toml").sockets[0]
    assert (Path("/e.sock"),) == lead(environ).sockets


def test_the_users_state_directory_leads_to_the_daemon_else_the_machines_service(here: Path) -> None:
    found = lead({"HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/7"})

    usual = Path("/h/.local/state/kernel-supervisor")
    assert (usual / "control.sock", Path("/run/kernel-supervisor/control.sock")) == found.sockets
    assert (usual, None, False) == (found.state_dir, found.runs, found.named)


@pytest.mark.parametrize(
    ("file", "unit"), [("kernels.toml", "kernel-supervisor"), ("team.toml", "kernel-supervisor-team")]
)
def test_the_file_of_a_service_leads_to_its_own_socket_and_state(
    monkeypatch: pytest.MonkeyPatch, here: Path, file: str, unit: str
) -> None:
    monkeypatch.setattr(lookup, "_ETC", here)
    (here / file).touch()

    found = lead({"HOME": "/h"}, config=file)

    assert Path("/run", unit, "control.sock") == found.sockets[0]
    assert (Path("/var/lib", unit), here / file) == (found.state_dir, found.runs)


def test_a_configuration_with_a_state_directory_leads_there_and_nowhere_else(here: Path) -> None:
    (here / "k.toml").write_text('[supervisor]\nstate_dir = "state"\n')

    found = lead({"HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/7"}, config="k.toml")

    assert ((here / "state/control.sock",), here / "state") == (found.sockets, found.state_dir)


def test_the_configuration_that_run_would_take_counts_as_named(here: Path) -> None:
    (here / "kernels.toml").write_text('[supervisor]\nsocket = "own.sock"\n')

    assert here / "own.sock" == lead({"HOME": "/h"}).sockets[0]


def test_a_socket_that_the_file_names_is_not_the_only_way_to_a_daemon_that_began_before(here: Path) -> None:
    (here / "k.toml").write_text('[supervisor]\nstate_dir = "state"\nsocket = "new.sock"\n')

    found = lead({"HOME": "/h"}, config="k.toml")

    assert ((here / "new.sock", here / "state/control.sock"), None) == (found.sockets, found.runs)


@pytest.mark.parametrize("config", ["kernels.toml", None])
def test_at_the_usual_state_directory_the_daemon_of_another_file_may_be(
    here: Path, config: str | None
) -> None:
    (here / "kernels.toml").write_text('[supervisor]\nsocket = "own.sock"\n')
    alias = Path("/h/.local/state/kernel-supervisor/control.sock")

    found = lead({"HOME": "/h"}, config=config)

    assert ((here / "own.sock", alias), here / "own.sock") == (found.sockets, found.certain)
    assert here / "kernels.toml" == found.runs


def test_at_the_usual_places_only_the_daemon_of_a_named_file_is_meant(here: Path) -> None:
    (here / "kernels.toml").touch()

    named, unnamed = lead({"HOME": "/h"}, config="kernels.toml"), lead({"HOME": "/h"})

    assert named.sockets == unnamed.sockets
    assert (here / "kernels.toml", None) == (named.runs, unnamed.runs)


def test_a_state_directory_of_its_own_leaves_no_doubt(here: Path) -> None:
    (here / "k.toml").write_text('[supervisor]\nstate_dir = "state"\n')

    assert lead({"HOME": "/h"}, config="k.toml").runs is None


@pytest.mark.usefixtures("here")
def test_a_name_that_is_too_long_is_no_obstacle() -> None:
    environ = {"HOME": "/h", "XDG_CONFIG_HOME": f"/{'x' * 300}"}

    assert default_config(environ) in {None, Path("/etc/kernel-supervisor/kernels.toml")}


@pytest.mark.parametrize("key", ["state_dir", "socket"])
def test_the_home_of_a_user_who_is_not_there_is_no_obstacle(here: Path, key: str) -> None:
    (here / "k.toml").write_text(f'[supervisor]\n{key} = "~no-such-user/x"\n')

    assert here / "~no-such-user/x" == getattr(lookup.named_in(here / "k.toml"), key)


def test_tables_without_end_are_no_obstacle(here: Path) -> None:
    (here / "k.toml").write_text(f'[supervisor]\nsocket = "s"\nx = {"[" * 100_000}\n')

    assert here / "s" == lookup.named_in(here / "k.toml").socket


def test_a_configuration_here_that_cannot_be_read_is_no_obstacle(here: Path) -> None:
    (here / "kernels.toml").write_text("[[[")

    assert Path("/run/kernel-supervisor/control.sock") in lead({"HOME": "/h"}).sockets


def test_a_half_edited_configuration_still_tells_where_its_daemon_is(here: Path) -> None:
    (here / "k.toml").write_text('[supervisor]\nstate_dir = "state"\n[[[')

    assert here / "state" == lead({}, config=str(here / "k.toml")).state_dir


def test_a_named_configuration_that_cannot_be_read_is_told(here: Path) -> None:
    with pytest.raises(BadPath, match=r"k\.toml: cannot be read"):
        lead({}, config="k.toml")
    with pytest.raises(BadPath, match="No such file"):
        lead({}, config="missing.toml")


def test_the_default_configuration_is_the_first_that_exists(here: Path) -> None:
    environ = {"HOME": str(here / "home")}
    own = here / "home/.config/kernel-supervisor/kernels.toml"

    assert default_config(environ) in {None, Path("/etc/kernel-supervisor/kernels.toml")}
    own.parent.mkdir(parents=True)
    own.touch()
    assert own == default_config(environ)
    (here / "config").mkdir()
    (here / "config/kernels.toml").touch()
    assert Path("config/kernels.toml") == default_config(environ)
    (here / "kernels.toml").touch()
    assert Path("kernels.toml") == default_config(environ)
    assert Path("/named.toml") == default_config(environ | {lookup.CONFIG_VARIABLE: "/named.toml"})


@pytest.fixture
def planted(here: Path) -> Path:
    (here / "kernels.toml").write_text('[supervisor]\nsocket = "/tmp/planted.sock"\n')
    return here


def open_to_others(here: Path) -> None:
    here.chmod(0o777)


def writable_file(here: Path) -> None:
    (here / "kernels.toml").chmod(0o666)


def of_another_user(here: Path) -> None:
    os.chown(here / "kernels.toml", 4242, -1)


def in_anothers_directory(here: Path) -> None:
    os.chown(here, 4242, -1)


@pytest.mark.parametrize("spoil", [open_to_others, writable_file, of_another_user, in_anothers_directory])
def test_a_configuration_that_others_may_have_put_here_is_not_obeyed_unless_it_is_named(
    planted: Path, spoil: Callable[[Path], None]
) -> None:
    if "another" in spoil.__name__ and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    spoil(planted)
    (planted / "config").mkdir(exist_ok=True)
    (planted / "config/kernels.toml").touch()

    with pytest.raises(NoConfig, match=r"kernels.toml is not obeyed: .*, name it: --config kernels.toml$"):
        lead({"HOME": "/h"})
    assert Path("/tmp/planted.sock") == lead({"HOME": "/h"}, config="kernels.toml").sockets[0]
    assert ("/s.sock",) == tuple(map(str, lead({"HOME": "/h"}, socket="/s.sock").sockets))


def test_a_configuration_below_a_directory_of_others_is_not_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared/mine").mkdir(parents=True)
    (tmp_path / "shared").chmod(0o777)
    monkeypatch.chdir(tmp_path / "shared/mine")
    Path("kernels.toml").touch()

    with pytest.raises(NoConfig, match=f"{tmp_path}/shared: others may write to it"):
        default_config({})
    (tmp_path / "shared").chmod(0o1777)
    assert Path("kernels.toml") == default_config({}), "nobody else may exchange it there"


def test_it_can_be_imported_where_there_is_no_uname() -> None:
    program = "import os; del os.uname; import supervisor.control.lookup"

    subprocess.run([sys.executable, "-c", program], timeout=30, check=True)
