"""Judging a configuration as the account that its service would have."""

import os
import pwd
from pathlib import Path

import pytest

from tests.cli.tools import run

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")


def test_check_reads_the_file_as_the_account_would(tmp_path: Path) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    (tmp_path / "kernels.toml").write_text("[kernels.a]\nargv = ['/no/such/program', '{connection_file}']\n")

    code, out, err = run(tmp_path, "check", "--run-as", me, "kernels.toml", env={"JUPYTER_PATH": "/nowhere"})

    assert 0 == code
    assert "/no/such/program" in out
    assert "/no/such/program" in err


def test_an_account_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, "check", "--run-as", "nobody-has-this-name", "x.toml")

    assert (2, "kernel-supervisor: --run-as: there is no account 'nobody-has-this-name'\n") == (code, err)


@needs_root
def test_what_the_account_may_not_reach_is_told(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, "check", "--run-as", "nobody", "kernels.toml")

    assert 1 == code
    assert "nobody may not enter its home; the service would fail with 200/CHDIR" in err
