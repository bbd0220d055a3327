"""The file as the daemon sees it: what is in force, what is ahead of it, and what was good last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.daemon.life import named_state_dir
from supervisor.daemon.settings_file import (
    LAST_GOOD,
    Rejected,
    SettingsFile,
    forget_last_good,
    keep_last_good,
)
from supervisor.settings.config import Config, KernelConfig, SupervisorConfig
from supervisor.settings.file import ConfigError

GOOD = """
[kernels.a]
argv = ["x", "{connection_file}"]
env = { TOKEN = "hush" }
"""
OTHER = GOOD + "stop_timeout = 1.0\n"
BAD = GOOD + "stop_timout = 1.0\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "kernels.toml"
    path.write_text(GOOD)
    return path


def started(path: Path) -> SettingsFile:
    file = SettingsFile(path)
    file.load_first(lambda: path.parent)
    return file


def accepted(file: SettingsFile) -> Config:
    seen = file.look()
    assert isinstance(seen, Config)
    file.accept(seen)
    return seen


def rejected(file: SettingsFile) -> Rejected:
    seen = file.look()
    assert isinstance(seen, Rejected)
    return seen


def test_the_first_reading_is_in_force(path: Path) -> None:
    file = SettingsFile(path)

    config = file.load_first(lambda: path.parent)

    assert ["a"] == list(config.kernels)
    assert None is file.look()
    assert ((), None, False) == (file.mistakes, file.ahead_since, file.last_good_in_use)
    assert file.loaded_at is not None


def test_an_edit_is_told_until_it_is_accepted(path: Path) -> None:
    file = started(path)
    path.write_text(OTHER)
    # As by a reload whose caller was gone before it could be applied.
    assert isinstance(file.look(), Config)

    assert 1.0 == accepted(file).kernels["a"].stop_timeout

    assert None is file.look()


def test_touch_and_saving_the_same_is_no_edit(path: Path) -> None:
    file = started(path)

    os.utime(path)
    assert None is file.look()
    path.write_text(GOOD)

    assert None is file.look()


def test_a_bad_file_is_new_once_and_stays_ahead_since_then(path: Path) -> None:
    file = started(path)
    path.write_text(BAD)

    first, again = rejected(file), rejected(file)

    assert (True, False) == (first.is_new, again.is_new)
    assert 'did you mean "stop_timeout"?' in first.mistakes[0]
    assert first.mistakes == file.mistakes
    since = file.ahead_since
    path.write_text(BAD + "x = 1\n")
    assert rejected(file).is_new
    assert since == file.ahead_since


def test_a_mended_file_is_accepted_once_though_it_says_what_was_in_force(path: Path) -> None:
    file = started(path)
    path.write_text(BAD)
    rejected(file)
    path.write_text(GOOD)

    accepted(file)

    assert ((), None) == (file.mistakes, file.ahead_since)
    assert None is file.look()


def test_the_last_good_one_stands_in_for_a_bad_file(path: Path, tmp_path: Path) -> None:
    config = SettingsFile(path).load_first(lambda: tmp_path)
    keep_last_good(config, tmp_path)
    path.write_text(BAD)
    file = SettingsFile(path)

    assert config == file.load_first(lambda: tmp_path)

    assert file.last_good_in_use
    assert 1 == len(file.mistakes)
    assert not rejected(file).is_new
    path.write_text(GOOD)
    accepted(file)
    assert not file.last_good_in_use


def test_an_account_that_is_gone_keeps_no_other_kernel_from_coming_back(path: Path, tmp_path: Path) -> None:
    gone = (
        SupervisorConfig(operators="no such group"),
        KernelConfig(name="b", kernelspec="x", user="no such user"),
    )
    kept = Config(supervisor=gone[0], kernels={**accepted(SettingsFile(path)).kernels, "b": gone[1]})
    keep_last_good(kept, tmp_path)
    path.write_text(GOOD + '[kernels.b]\nkernelspec = "x"\nuser = "no such user"\n')
    file = SettingsFile(path)

    assert kept == file.load_first(lambda: tmp_path)
    assert "no user of this name is known here" in file.mistakes[0]


def test_without_a_last_good_one_a_bad_file_is_refused_and_nothing_is_made(
    path: Path, tmp_path: Path
) -> None:
    path.write_text(BAD)

    with pytest.raises(ConfigError):
        SettingsFile(path).load_first(lambda: tmp_path / "state")

    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"[kernels", b"\xff", b"[kernels.a]\nnewer_key = 1\n"])
def test_a_last_good_one_that_cannot_be_used_does_not_hide_the_mistakes_of_the_file(
    path: Path, tmp_path: Path, content: bytes
) -> None:
    path.write_text(BAD)
    (tmp_path / LAST_GOOD).write_bytes(content)

    with pytest.raises(ConfigError, match="stop_timout"):
        SettingsFile(path).load_first(lambda: tmp_path)


def test_a_last_good_one_that_cannot_be_read_is_none(path: Path, tmp_path: Path) -> None:
    path.write_text(BAD)
    (tmp_path / LAST_GOOD).mkdir()

    with pytest.raises(ConfigError, match="stop_timout"):
        SettingsFile(path).load_first(lambda: tmp_path)


def test_the_last_good_one_is_ours_alone_and_can_be_forgotten(path: Path, tmp_path: Path) -> None:
    keep_last_good(SettingsFile(path).load_first(lambda: tmp_path), tmp_path)
    assert 0o600 == (tmp_path / LAST_GOOD).stat().st_mode & 0o777

    forget_last_good(tmp_path)
    forget_last_good(tmp_path)

    assert not (tmp_path / LAST_GOOD).exists()


def test_an_empty_directory_of_an_include_is_among_what_is_watched(tmp_path: Path) -> None:
    path = tmp_path / "kernels.toml"
    path.write_text('include = ["kernels.d/*.toml"]\n' + GOOD)
    fragments = tmp_path / "kernels.d"
    fragments.mkdir()
    file = started(path)
    assert fragments in {watched.parent for watched in file.files()}

    fragment = fragments / "b.toml"
    fragment.write_text(GOOD.replace("kernels.a", "kernels.b"))

    assert fragment in file.files()
    assert ["a", "b"] == list(accepted(file).kernels)
    fragment.unlink()
    assert ["a"] == list(accepted(file).kernels)


def test_what_was_watched_is_watched_while_the_file_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "kernels.toml"
    path.write_text('include = ["kernels.d/*.toml"]\n' + GOOD)
    file = started(path)
    path.write_text("[")

    rejected(file)

    assert tmp_path / "kernels.d/*.toml" in file.files()
    assert path in file.files()


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_the_state_directory_of_a_file_that_cannot_be_read_is_the_usual_one(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/usual")
    path = tmp_path / "kernels.toml"
    if kind == "directory":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)

    assert Path("/usual") == named_state_dir(path)
