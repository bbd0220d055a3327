"""What is a mistake in a file, and how it is told."""

# ruff: noqa: E501 - messages are one line each

from __future__ import annotations

import os
import pwd
from types import SimpleNamespace

import pytest

from supervisor.settings.file import ConfigError, parse

SPEC = 'kernelspec = "python3"\n'


def mistakes(text: str | bytes) -> list[str]:
    """The mistakes in a text, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.toml")

    assert all("f.toml" == mistake.file for mistake in caught.value.mistakes)
    assert "\n".join(map(str, caught.value.mistakes)) == str(caught.value)
    return [str(mistake).removeprefix("f.toml: ") for mistake in caught.value.mistakes]


def test_the_examples_of_the_style_are_told_as_they_stand_there() -> None:
    text = f'[kernels.analysis]\n{SPEC}restart = "allways"\nstop_timout = 3'
    with pytest.raises(ConfigError) as caught:
        parse(text, "config/kernels.toml")

    assert str(caught.value).split("\n") == [
        'config/kernels.toml: kernels.analysis.restart: "allways" is not one of "always", "on-failure", "never"',
        'config/kernels.toml: kernels.analysis.stop_timout: no such key; did you mean "stop_timeout"?',
    ]


KEY_MISTAKES = [
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
        'slurm = { directory = "/x", memory = "much" }',
        'slurm.memory: "much" is not a size: write bytes, or such as "512M" or "48G"',
    ),
    ("stop-timeout = 3", 'stop-timeout: no such key; did you mean "stop_timeout"?'),
    ("stopTimeout = 3", 'stopTimeout: no such key; did you mean "stop_timeout"?'),
    ('log_level = "info"', "log_level: no such key here; it belongs in [supervisor]"),
    ("misses = 3", "misses: no such key here; it belongs in heartbeat or in probe"),
    (
        'include = ["x"]',
        "include: no such key here; it belongs at the top of the file, above the first table",
    ),
    ('name = "b"', "name: no such key; the name of a kernel is that of its table, [kernels.NAME]"),
    ("b = {}", 'b: no such key; if the dot is part of the kernel\'s name, quote it: [kernels."a.b"]'),
    (
        'FOO = "S3"',
        'FOO: no such key; a variable of the environment goes into env: write env = { FOO = "…" }',
    ),
    ("heartbeat = { intervall = 1 }", 'heartbeat.intervall: no such key; did you mean "interval"?'),
    ("probe = { zz = 1 }", 'probe.zz: no such key; the keys here are "interval", "misses", "action"'),
    ('stop_timeout = "10"', 'stop_timeout: "10" is a string, not a number: write 10 without quotes'),
    ("stop_timeout = true", "stop_timeout: true is a boolean, not a number: write one, such as 10.0"),
    ("stop_timeout = -1", "stop_timeout: -1 is out of range: write a number not below 0"),
    ("stop_timeout = nan", "stop_timeout: nan is not a finite number: write one, such as 10.0"),
    ("stop_timeout = -inf", "stop_timeout: -inf is not a finite number: write one, such as 10.0"),
    ("start_timeout = 0", "start_timeout: 0 is out of range: write a number above 0"),
    ("max_restarts = 5.0", "max_restarts: 5.0 is a float, not an integer: write 5"),
    ("max_restarts = false", "max_restarts: false is a boolean, not an integer: write one, such as 5"),
    (
        "max_restarts = 99999999999999999999",
        "max_restarts: this huge number has more than 64 bits: write a smaller one, such as 5",
    ),
    ("backoff = { jitter = 2 }", "backoff.jitter: 2 is out of range: write a number from 0 to 1"),
    ("backoff = 2", "backoff: 2 is an integer, not a table: write backoff = { initial = 0.0 }"),
    ("ports = { hb = 65536 }", "ports.hb: 65536 is out of range: write an integer from 0 to 65535"),
    ("ports = [1, 2]", "ports: is an array, not a table: write ports = { shell = 0 }"),
    ('hold_ports = "True"', 'hold_ports: "True" is a string, not a boolean: write true without quotes'),
    (
        'limits = { memory = "48X" }',
        'limits.memory: "48X" is not a size: write bytes, or such as "512M" or "48G"',
    ),
    ("hold_ports = 1", "hold_ports: 1 is an integer, not a boolean: write true or false"),
    ("restart = true", 'restart: true is not one of "always", "on-failure", "never"'),
    ("cwd = 2020-01-01", "cwd: 2020-01-01 is a date, not a string: put it in quotes"),
    ('cwd = ["~"]', "cwd: is an array, not a string: write a string"),
    ("restart = [1]", 'restart: this array is not one of "always", "on-failure", "never"'),
    ("restart = 07:32:00", 'restart: 07:32:00 is not one of "always", "on-failure", "never"'),
    ("stop_timeout = 1e400", "stop_timeout: inf is not a finite number: write one, such as 10.0"),
    ('max_restarts = "five"', 'max_restarts: "five" is a string, not an integer: write one, such as 5'),
    ('cwd = ""', 'cwd: "" is empty: write a value, or remove the key'),
    (
        'cwd = "~no-such-user/x"',
        'cwd: "~no-such-user/x": no user of this name is known here: write the whole path',
    ),
    (
        r'cwd = "a\u0000"',
        "cwd: contains a NUL character, which the operating system does not take: remove it",
    ),
    ('extra_arguments = "-v"', 'extra_arguments: "-v" is a string, not an array of strings: write ["-v"]'),
    ('extra_arguments = ["a", 5]', "extra_arguments[1]: 5 is an integer, not a string: put it in quotes"),
    ("env = { A = 1 }", "env.A: is an integer, not a string: put it in quotes"),
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


@pytest.mark.parametrize(("line", "told"), KEY_MISTAKES)
def test_a_mistake_in_a_kernel_is_told_with_its_path_and_what_to_do(line: str, told: str) -> None:
    assert [f"kernels.a.{told}"] == mistakes(f"[kernels.a]\n{SPEC}{line}")


FILE_MISTAKES = [
    ("", "no kernel is declared: add a [kernels.NAME] table"),
    ("[kernels]", "no kernel is declared: add a [kernels.NAME] table"),
    (f"[kernel.a]\n{SPEC}[kernels.b]\n{SPEC}", 'kernel: no such key; did you mean "kernels"?'),
    (f"[ana]\n{SPEC}[kernels.b]\n{SPEC}", "ana: no such table; a kernel is declared by [kernels.ana]"),
    ("kernels = 3", "kernels: is an integer, not a table: write [kernels.NAME] for each kernel"),
    ('kernels.a = "S3"', "kernels.a: is a string, not a table: write [kernels.a]"),
    (f"supervisor = 1\n[kernels.a]\n{SPEC}", "supervisor: is an integer, not a table: write [supervisor] and its keys below it"),
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
    (r'[kernels.a]' "\n" r'argv = ["{connection_file}\u0000"]', "kernels.a.argv[0]: contains a NUL character, which the operating system does not take: remove it"),
    ("[kernels.a]\nargv = []", "kernels.a.argv: the array is empty: fill it, or remove the key"),
    ('[kernels.a]\nkernelspecs = "x"', 'kernels.a.kernelspecs: no such key; did you mean "kernelspec"?'),
    ('[kernels.a]\nkernelspec = "../x"', 'kernels.a.kernelspec: "../x" is not a name: use letters, digits, ".", "_" and "-"'),
    (
        f'[kernels."a b"]\n{SPEC}',
        'kernels."a b": "a b" is not a name for a kernel: use letters, digits, ".", "_" and "-", a letter or digit first, at most 64',
    ),
    (
        f"[kernels.a]\n{SPEC}[kernels.A]\n{SPEC}",
        "kernels.A: differs only by case from kernels.a, and their files may collide: choose another name",
    ),
    (
        f"[defaults]\nports.shell = 70000\n[kernels.a]\n{SPEC}[kernels.b]\n{SPEC}",
        "defaults.ports.shell: 70000 is out of range: write an integer from 0 to 65535",
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
    ("include = [" + "'x', " * 1001 + f"]\n[kernels.a]\n{SPEC}", "include: more than 1000 files: include fewer"),
    (f"include = 3\n[kernels.a]\n{SPEC}", "include: 3 is an integer, not an array of strings: write strings in brackets"),
    (f'include = ["**"]\n[kernels.a]\n{SPEC}', 'include[0]: "**" is not a file or pattern: write one, such as "kernels.d/*.toml"'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), FILE_MISTAKES)
def test_a_mistake_in_a_file_is_told_once(text: str, told: str) -> None:
    assert [told] == mistakes(text)


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


def test_all_mistakes_are_told_at_once() -> None:
    lines = [line for line, _ in KEY_MISTAKES if "\n" not in line]
    text = "".join(f"[kernels.k{index}]\n{SPEC}{line}\n" for index, line in enumerate(lines))

    assert len(lines) == len(mistakes(text))


def test_a_file_of_mistakes_only_is_told_up_to_a_bound() -> None:
    text = f"[kernels.a]\n{SPEC}" + "".join(f"key{number} = 1\n" for number in range(50_000))

    assert 501 == len(mistakes(text))
    assert "more than 500 mistakes: mend these first" == mistakes(text)[-1]


def test_a_line_stays_a_line_and_short_whatever_it_quotes() -> None:
    text = f'[kernels."a\\nb\\u2028c\\u0085"]\n{SPEC}cwd = "x"\nrestart = "{"y" * 5000}"\n"{"k" * 5000}" = 1'

    assert 3 == len(mistakes(text))
    assert 3 == len("\n".join(mistakes(text)).splitlines())
    assert 2000 > len("".join(mistakes(text)))


def test_values_of_the_environment_are_in_no_message() -> None:
    env = (
        r'{ A = ["S3"], B = { S3 = 1 }, "C=" = "S3", D = "S3\u0000", E = 2020-01-01, JPY_PARENT_PID = "S3" }'
    )
    text = f'[kernels.a]\n{SPEC}env = {env}\n[kernels.b]\n{SPEC}env = "S3"\n[defaults]\nenv = ["S3"]'

    assert 8 == len(mistakes(text))
    assert "S3" not in "".join(mistakes(text))


def test_the_error_of_a_wrong_syntax_does_not_carry_the_text() -> None:
    with pytest.raises(ConfigError) as caught:
        parse('[kernels.a]\nenv = { A = "S3" \n[', "f.toml")

    chain: BaseException | None = caught.value
    while chain is not None:
        assert "S3" not in repr(vars(chain)) + repr(chain.args)
        chain = chain.__context__


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
