"""The value of a key: its kind, its bounds, and keys that there are not."""

# ruff: noqa: E501 - messages are one line each

from __future__ import annotations

import pytest

from tests.settings.files import SPEC, mistakes

IN_A_KERNEL = [
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
    ("cmd = {}", 'cmd: no such key; if the dot is part of the kernel\'s name, quote it: [kernels."a.cmd"]'),
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
        r'cwd = "a\u0000"',
        "cwd: contains a NUL character, which the operating system does not take: remove it",
    ),
    ('extra_arguments = "-v"', 'extra_arguments: "-v" is a string, not an array of strings: write ["-v"]'),
    ('extra_arguments = ["a", 5]', "extra_arguments[1]: 5 is an integer, not a string: put it in quotes"),
    ("env = { A = 1 }", "env.A: is an integer, not a string: put it in quotes"),
]


@pytest.mark.parametrize(("line", "told"), IN_A_KERNEL)
def test_a_value_that_a_key_does_not_take_is_told_with_its_path_and_what_to_do(line: str, told: str) -> None:
    assert [f"kernels.a.{told}"] == mistakes(f"[kernels.a]\n{SPEC}{line}")


IN_A_FILE = [
    (f"[kernel.a]\n{SPEC}[kernels.b]\n{SPEC}", 'kernel: no such key; did you mean "kernels"?'),
    (f"[ana]\n{SPEC}[kernels.b]\n{SPEC}", "ana: no such table; a kernel is declared by [kernels.ana]"),
    (r'[kernels.a]' "\n" r'argv = ["{connection_file}\u0000"]', "kernels.a.argv[0]: contains a NUL character, which the operating system does not take: remove it"),
    ("[kernels.a]\nargv = []", "kernels.a.argv: the array is empty: fill it, or remove the key"),
    ('[kernels.a]\nkernelspecs = "x"', 'kernels.a.kernelspecs: no such key; did you mean "kernelspec"?'),
    ('[kernels.a]\nkernelspec = "../x"', 'kernels.a.kernelspec: "../x" is not a name: use letters, digits, ".", "_" and "-"'),
    (
        f"[defaults]\nports.shell = 70000\n[kernels.a]\n{SPEC}[kernels.b]\n{SPEC}",
        "defaults.ports.shell: 70000 is out of range: write an integer from 0 to 65535",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), IN_A_FILE)
def test_a_value_of_any_table_is_told_once(text: str, told: str) -> None:
    assert [told] == mistakes(text)
