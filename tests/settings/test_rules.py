"""What may not be together, or not be here at all: mistakes that are in no key alone."""

# ruff: noqa: E501 - messages are one line each

from __future__ import annotations

import os
import pwd
from types import SimpleNamespace

import pytest

from supervisor.settings.file import ConfigError, parse
from tests.settings.files import SPEC, mistakes

IN_A_KERNEL = [
    ("slurm = {}", "slurm: directory is missing: name one that this machine and the nodes share"),
    ('slurm = { directory = "x" }', 'slurm.directory: "x" is not an absolute path: write one'),
    (
        'slurm = { directory = "/x", extra = ["--comment=x"] }',
        'slurm.extra[0]: "--comment" is said by the supervisor itself: remove it',
    ),
    (
        'slurm = { directory = "/x", extra = ["-Jx"] }',
        'slurm.extra[0]: "-Jx" is said by the supervisor itself: remove it',
    ),
    (
        'slurm = { directory = "/x", extra = ["reservation"] }',
        'slurm.extra[0]: "reservation": write an option with its value in one string, such as "--reservation=lab"',
    ),
    (
        'slurm = { directory = "/x", setup = ["a\\nb"] }',
        "slurm.setup[0]: contains a new line: write a string for each",
    ),
    (
        'slurm = { directory = "/x" }\nwarm_start = "fork"',
        'warm_start: a job of Slurm does not start warm: write warm_start = "off"',
    ),
    (
        'slurm = { directory = "/x" }\nstartup = "1"',
        "startup: startup is not done in a job of Slurm: remove one of the two",
    ),
    (
        'slurm = { directory = "/x" }\ntransport = "ipc"',
        'transport: a job of Slurm is reached by TCP: write transport = "tcp"',
    ),
    (
        'cwd = "~no-such-user/x"',
        'cwd: "~no-such-user/x": no user of this name is known here: write the whole path',
    ),
    ('env = { "A=B" = "1" }', 'env."A=B": the name of a variable cannot contain "=": rename it'),
    (r'env = { "A\u0000" = "1" }', 'env."A\\u0000": the name of a variable cannot contain NUL: rename it'),
    ('env = { "" = "1" }', 'env."": the name of a variable is empty: name it, or remove it'),
    (
        'env = { JPY_PARENT_PID = "1" }',
        "env.JPY_PARENT_PID: a kernel that is given it exits as soon as that process ends: remove it",
    ),
    (
        "backoff = { next = 61 }",
        "backoff.next: backoff.next, 61, is more than backoff.max, 60: lower next, or raise max",
    ),
    (
        "backoff = { max = 0.1 }",
        "backoff.max: backoff.next, 0.5, is more than backoff.max, 0.1: lower next, or raise max",
    ),
    ('argv = ["{connection_file}"]', "argv: argv and kernelspec are both given: keep one of them"),
    ("ports = { shell = 5, hb = 5 }", "ports.hb: 5 is the shell port too: give each channel its own"),
    (
        'ip = "example.org"',
        'ip: "example.org" is not an IP address: write one, such as "127.0.0.1", or "localhost"',
    ),
    ('ip = "/run/x"', 'ip: "/run/x" is not an IP address: for a path set transport = "ipc"'),
    (
        'transport = "ipc"\nip = "run/x"',
        'ip: "run/x" is not a path: for ipc write an absolute one, or remove the key',
    ),
    (
        f'transport = "ipc"\nip = "/{"é" * 50}"',
        "ip: a path of 101 bytes; for ipc it has at most 100: choose a shorter one",
    ),
    (
        'transport = "ipc"\nports = { shell = 6 }',
        "ports.shell: 6 is not a port of ipc: write 1 to 5, or remove the key",
    ),
    (
        'transport = "ipc"\nports = { shell = 1, hb = 1 }',
        "ports.hb: 1 is the shell port too: give each channel its own",
    ),
]


@pytest.mark.parametrize(("line", "told"), IN_A_KERNEL)
def test_what_cannot_be_so_in_a_kernel_is_told_with_its_path_and_what_to_do(line: str, told: str) -> None:
    assert [f"kernels.a.{told}"] == mistakes(f"[kernels.a]\n{SPEC}{line}")


IN_A_FILE = [
    (
        f'[supervisor]\nstate_dir = "~no-such-user"\n[kernels.a]\n{SPEC}',
        'supervisor.state_dir: "~no-such-user": no user of this name is known here: write the whole path',
    ),
    (
        f'[supervisor]\nsocket = "/{"x" * 107}"\n[kernels.a]\n{SPEC}',
        "supervisor.socket: a path of 108 bytes; a socket's has at most 107: choose a shorter one",
    ),
    (
        "[kernels.a]",
        'kernels.a: neither kernelspec nor argv is given: add kernelspec = "python3", or argv = ["…", "{connection_file}"]',
    ),
    (
        '[kernels.a]\nargv = ["python"]',
        'kernels.a.argv: does not contain {connection_file}: add it, for example "-f", "{connection_file}"',
    ),
    ('[kernels.a]\nargv = ["", "{connection_file}"]', 'kernels.a.argv[0]: "" is empty: remove it'),
    (
        f"[kernels.a]\n{SPEC}[kernels.A]\n{SPEC}",
        "kernels.A: differs only by case from kernels.a, and their files may collide: choose another name",
    ),
    (
        f"[defaults]\nbackoff.max = 0\n[kernels.a]\n{SPEC}[kernels.b]\n{SPEC}",
        "defaults.backoff.max: backoff.next, 0.5, is more than backoff.max, 0: lower next, or raise max",
    ),
    (
        f"[defaults]\nports.hb = 7000\n[kernels.a]\n{SPEC}[kernels.b]\n{SPEC}",
        "defaults.ports.hb: 7000 is used by kernels.a (hb) and kernels.b (hb): give each kernel its own",
    ),
    (
        f'[defaults]\n{SPEC}argv = ["{{connection_file}}"]\n[kernels.a]\n[kernels.b]\n',
        "defaults.argv: argv and kernelspec are both given: keep one of them",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), IN_A_FILE)
def test_what_cannot_be_so_in_a_file_is_told_once(text: str, told: str) -> None:
    assert [told] == mistakes(text)


# Kernels together

TOGETHER = [
    ('ip = "127.0.0.1"', 'ip = "localhost"', True),
    ('ip = "127.0.0.1"', 'ip = "0.0.0.0"', True),
    ('ip = "0.0.0.0"', 'ip = "127.0.0.1"', True),
    ('ip = "0.0.0.0"', 'ip = "0.0.0.0"', True),
    ('ip = "127.0.0.1"', 'ip = "127.0.0.2"', False),
    ('ip = "127.0.0.1"', 'ip = "::"', False),
    ('ip = "::1"', 'ip = "::"', True),
    ('ip = "127.0.0.1"', 'transport = "ipc"', False),
    ('transport = "ipc"', 'transport = "ipc"', False),
    ('transport = "ipc"\nip = "/run/a"', 'transport = "ipc"\nip = "/run/b"', False),
    ('transport = "ipc"\nip = "/run/a"', 'transport = "ipc"\nip = "/run/a"', True),
]


@pytest.mark.parametrize(("one", "other", "collide"), TOGETHER)
def test_two_kernels_cannot_have_one_address(one: str, other: str, collide: bool) -> None:
    text = (
        f"[kernels.a]\n{SPEC}ports = {{ hb = 5 }}\n{one}\n[kernels.b]\n{SPEC}ports = {{ shell = 5 }}\n{other}"
    )

    if collide:
        (told,) = mistakes(text)
        assert told.startswith("kernels.b.")
        assert told.endswith(": give each kernel its own")
    else:
        assert 2 == len(parse(text, "f.toml").kernels)


HOOK = '[[hooks]]\nevents = ["kernel.died"]\ncommand = ["mail"]\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hooks = 1", "hooks: is an integer, not an array of tables: write [[hooks]] and its keys below it"),
        ("hooks = [1]", "hooks[0]: is an integer, not a table: write [[hooks]]"),
        (HOOK + "evnts = []", 'hooks[0].evnts: no such key; did you mean "events"?'),
        (HOOK + "timeout = 0", "hooks[0].timeout: 0 is out of range: write a number above 0"),
        (HOOK + "kernels = []", "hooks[0].kernels: the array is empty: fill it, or remove the key"),
        (
            '[[hooks]]\ncommand = ["mail"]',
            'hooks[0]: events is missing: of which events, such as "kernel.died" or "kernel.*"',
        ),
        (
            HOOK.replace("kernel.died", "kernel.dies"),
            'hooks[0].events[0]: "kernel.dies" is not an event; did you mean "kernel.died"?',
        ),
        (HOOK.replace("mail", ""), 'hooks[0].command[0]: "" is empty: remove it'),
        (
            HOOK.replace("mail", "~nobody-at-all/x"),
            'hooks[0].command[0]: "~nobody-at-all/x": no user of this name is known here: write the whole path',
        ),
    ],
)
def test_what_is_wrong_with_a_hook(text: str, told: str) -> None:
    assert [told] == mistakes(f"{text}\n[kernels.a]\n{SPEC}")


def test_an_account_is_one_that_there_is_and_that_the_daemon_can_become(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uids = {"alice": 4242, "bob": 4243, "toor": 0, "root": 0}
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=uids[name]))

    def of(uid: int, user: str, *, in_defaults: bool = False) -> list[str]:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        key = f'user = "{user}"'
        text = f"[defaults]\n{key}\n[kernels.a]\n{SPEC}" if in_defaults else f"[kernels.a]\n{SPEC}{key}"
        try:
            parse(text, "f.toml")
        except ConfigError:
            return mistakes(text)
        return []

    assert [] == of(0, "alice") + of(0, "root") + of(4242, "alice")
    unknown = '"bbo": no user of this name is known here: make the account, or mend the name'
    assert [f"kernels.a.user: {unknown}"] == of(0, "bbo")
    assert [f"defaults.user: {unknown}"] == of(0, "bbo", in_defaults=True)
    assert ['kernels.a.user: "toor" is root by another name: write "root" to mean it'] == of(0, "toor")
    for user in ("bob", "root"):
        takes = f'"{user}" takes a daemon that runs as root, and this is run by uid 4242'
        assert [f"kernels.a.user: {takes}: remove it, or run the daemon (and check) as root"] == of(
            4242, user
        )


@pytest.mark.parametrize("key", ["operators", "readers"])
def test_a_group_that_is_let_in_is_one_that_there_is(key: str) -> None:
    text = f'[supervisor]\n{key} = "no such group"\n[kernels.a]\n{SPEC}'

    what = '"no such group": no group of this name is known here: make it, or mend the name'
    assert [f"supervisor.{key}: {what}"] == mistakes(text)
