"""A file before it has a meaning: what cannot be read, and its bytes."""

# ruff: noqa: E501 - messages are one line each

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from supervisor.settings.file import ConfigError, load, parse
from tests.settings.files import SPEC, mistakes, told_of, write


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    text = f"\ufeff[kernels.a]\n{SPEC}".replace("\n", "\r\n").encode()

    assert ["a"] == list(parse(text, "f.toml").kernels)


def test_what_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    write(tmp_path / "big", " " * (1024 * 1024 + 1))
    write(tmp_path / "loop").unlink()
    (tmp_path / "loop").symlink_to("loop")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    server.close()

    assert ["none: no such file: create it, or name another"] == told_of(tmp_path / "none")
    assert ["fifo: is not a regular file: name a TOML file"] == told_of(tmp_path / "fifo")
    assert ["big: is larger than 1 MiB: is it the right file?"] == told_of(tmp_path / "big")
    assert ["loop: cannot be read: Too many levels of symbolic links"] == told_of(tmp_path / "loop")
    assert ["socket: cannot be read: No such device or address"] == told_of(tmp_path / "socket")
    with pytest.raises(ConfigError, match="is a directory: name a file in it"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="embedded null byte"):
        load("a\0b")


def test_an_unreadable_file_is_a_mistake(tmp_path: Path) -> None:
    write(tmp_path / "f").chmod(0)
    user = os.geteuid()
    if user == 0:  # root reads everything
        os.seteuid(65534)
    try:
        told = told_of(tmp_path / "f")
    finally:
        os.seteuid(user)

    assert ["f: permission denied: let the user of this process read it (chmod, chown)"] == told


def test_reading_leaves_no_descriptor_open(tmp_path: Path) -> None:
    write(tmp_path / "f")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        load(tmp_path / "f")
        told_of(tmp_path / "none")
        with pytest.raises(ConfigError):
            load(tmp_path)

    assert before == len(list(Path("/proc/self/fd").iterdir()))


SYNTAX = [
    ("[kernels.a]\nrestart = always", "line 2, column 11: invalid value: strings need quotes, booleans are true and false"),
    ("[kernels.a]\n[kernels.a]", "line 2, column 11: [kernels.a] is declared twice: put its keys together"),
    ("a = 1\na = 2\n", "line 2, column 6: cannot overwrite a value: a key stands in a table once; remove one"),
    ('[kernels.a]\ncwd = "~', "line 2, column 9: unterminated string: close the quote"),
    ("[kernels.a", "line 1, column 11: expected ']' at the end of a table declaration: close the bracket"),
    ("a = [1,", "line 1, column 8: the text ends where a value is due: complete it"),
    ("a = " + "9" * 5000, "a number has too many digits: write a shorter one"),
    ("a = " + "[" * 100_000, "is nested too deeply: a table, array or key has too many levels"),
    ("a = " + "{a=" * 100_000, "is nested too deeply: a table, array or key has too many levels"),
    ("a" + ".a" * 100_000 + " = 1", "is nested too deeply: a table, array or key has too many levels"),
    (b"a = 1\nb = '\xff'", "line 2: byte 0xff is not UTF-8: save the file in this encoding"),
    ("a = '\ud800'", "line 1: byte 0xed is not UTF-8: save the file in this encoding"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), SYNTAX)
def test_a_mistake_of_syntax_is_told_with_its_line(text: str | bytes, told: str) -> None:
    assert [told] == mistakes(text)


def test_the_error_of_a_wrong_syntax_does_not_carry_the_text() -> None:
    with pytest.raises(ConfigError) as caught:
        parse('[kernels.a]\nenv = { A = "S3" \n[', "f.toml")

    chain: BaseException | None = caught.value
    while chain is not None:
        assert "S3" not in repr(vars(chain)) + repr(chain.args)
        chain = chain.__context__
