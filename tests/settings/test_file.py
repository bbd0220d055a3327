"""Reading files and what they include: settings, files, digest."""

# ruff: noqa: E501 - messages are one line each

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.settings.config import BackoffConfig, Config, KernelConfig
from supervisor.settings.file import ConfigError, load, parse
from tests.settings.files import SPEC, mistakes, told_of, write


def kernel(body: str) -> KernelConfig:
    return parse(f"[kernels.a]\n{body}", "f.toml").kernels["a"]


def test_a_kernel_needs_no_more_than_a_kernelspec() -> None:
    assert Config(kernels={"a": KernelConfig(name="a", kernelspec="python3")}) == parse(
        f"[kernels.a]\n{SPEC}", "f.toml"
    )


def test_kernels_keep_the_order_of_the_file() -> None:
    names = ["zebra", "a.b", "M-1", "0"]
    text = "".join(f'[kernels."{name}"]\n{SPEC}' for name in names)

    assert names == list(parse(text, "f.toml").kernels)


def test_integers_are_taken_for_numbers() -> None:
    settings = kernel(SPEC + "stop_timeout = 3\nbackoff = { next = 1, max = 2 }")

    assert 3.0 == settings.stop_timeout
    assert isinstance(settings.stop_timeout, float)
    assert BackoffConfig(next=1.0, max=2.0) == settings.backoff


def test_defaults_stand_below_the_kernels_own_keys_and_nested_tables_merge_key_by_key() -> None:
    text = """
    [defaults]
    kernelspec = "python3"
    stop_timeout = 1
    env = { A = "default", B = "default" }
    backoff = { next = 3, max = 4 }
    [kernels.a]
    env = { B = "own" }
    backoff = { max = 5 }
    [kernels.b]
    stop_timeout = 2
    """
    config = parse(text, "f.toml")

    assert {"A": "default", "B": "own"} == config.kernels["a"].env
    assert BackoffConfig(next=3.0, max=5.0) == config.kernels["a"].backoff
    assert BackoffConfig(next=3.0, max=4.0) == config.kernels["b"].backoff
    assert (1.0, 2.0) == tuple(kernel.stop_timeout for kernel in config.kernels.values())


@pytest.mark.parametrize(
    ("default", "own"),
    [('argv = ["x", "{connection_file}"]\n', SPEC), (SPEC, 'argv = ["x", "{connection_file}"]\n')],
)
def test_a_kernels_own_command_replaces_the_default_one_of_the_other_kind(default: str, own: str) -> None:
    assert kernel(own) == parse(f"[defaults]\n{default}[kernels.a]\n{own}", "f.toml").kernels["a"]


def test_fragments_are_read_sorted_and_under_the_defaults_of_the_main_file(tmp_path: Path) -> None:
    main = write(
        tmp_path / "main", f'include = ["d/*.toml", "one"]\n[defaults]\n{SPEC}cwd = "/"\n[kernels.m]'
    )
    for name in ("d/z.toml", "d/b.toml", "one", "d/b.txt"):
        write(tmp_path / name, f'[kernels."{name.replace("/", "-")}"]')
    loaded = load(main)

    assert ["m", "d-b.toml", "d-z.toml", "one"] == list(loaded.config.kernels)
    assert {"/"} == {settings.cwd for settings in loaded.config.kernels.values()}
    assert tuple(tmp_path / name for name in ("main", "d/b.toml", "d/z.toml", "one")) == loaded.files


def test_a_relative_cwd_begins_where_the_file_is_in_which_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "main", f'include = ["d/*"]\n[defaults]\n{SPEC}cwd = "data"\n[kernels.m]\n')
    write(tmp_path / "d/1", '[kernels.a]\ncwd = "../own"\n[kernels.b]\n[kernels.c]\ncwd = "~/x"\n')
    monkeypatch.chdir(tmp_path)
    expected = {
        "m": f"{tmp_path}/data",
        "a": f"{tmp_path}/d/../own",
        "b": f"{tmp_path}/data",
        "c": "~/x",
    }

    for path in (Path("main"), tmp_path / "main", tmp_path / "d/../main", Path("d/../main")):
        assert expected == {name: kernel.cwd for name, kernel in load(path).config.kernels.items()}


def test_a_pattern_without_files_is_no_mistake_but_a_missing_file_is(tmp_path: Path) -> None:
    main = write(tmp_path / "main", f'include = ["d/*"]\n[kernels.m]\n{SPEC}')
    assert ["m"] == list(load(main).config.kernels)

    write(main, f'include = ["d"]\n[kernels.m]\n{SPEC}')
    assert ["main: include[0]: d: no such file: create it, or name another"] == told_of(main)


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory into which every user may look, unlike pytest's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.mark.parametrize(
    ("include", "told"),
    [
        ("closed/a", "closed/a: permission denied: let the user of this process read it (chmod, chown)"),
        ("closed/*", "closed: cannot be looked into: Permission denied"),
        ("d", "d: is a directory: name a file in it"),
    ],
)
def test_what_is_included_and_cannot_be_read_is_a_mistake_of_the_line_that_includes_it(
    passable: Path, include: str, told: str
) -> None:
    tmp_path = passable
    main = write(tmp_path / "main", f'include = ["{include}"]\n[kernels.m]\n{SPEC}')
    write(tmp_path / "closed/a")
    (tmp_path / "closed").chmod(0)
    (tmp_path / "d").mkdir()
    user = os.geteuid()
    try:
        if user == 0:  # root reads everything
            os.chown(tmp_path / "closed", 65534, -1)
            os.seteuid(65534)
        found = told_of(main)
    finally:
        os.seteuid(user)
        (tmp_path / "closed").chmod(0o700)

    assert [f"main: include[0]: {told}"] == found


def test_all_kernels_may_stand_in_fragments(tmp_path: Path) -> None:
    write(tmp_path / "d/a")

    assert ["a"] == list(load(write(tmp_path / "main", 'include = ["d/*"]')).config.kernels)


def test_a_name_in_two_files_is_a_mistake_that_names_both(tmp_path: Path) -> None:
    main = write(tmp_path / "main", f'include = ["d/*"]\n[kernels.a]\n{SPEC}')
    write(tmp_path / "d/1")

    assert ["d/1: kernels.a: declared in main too: remove or rename one of them"] == told_of(main)


def test_fragments_contain_kernels_only(tmp_path: Path) -> None:
    main = write(tmp_path / "main", 'include = ["d/*"]')
    write(
        tmp_path / "d/1", f"include = []\n[defaults]\n[supervisor]\n[other]\n[kernels.a]\n{SPEC}stop_time = 1"
    )
    write(tmp_path / "d/2", "x")
    only = "only [kernels.NAME] tables may stand in an included file: move it to main"

    assert [
        *(f"d/1: {key}: {only}" for key in ("include", "defaults", "supervisor")),
        "d/1: other: no such table; a kernel is declared by [kernels.other]",
        "d/2: line 1, column 2: expected '=' after a key in a key/value pair: a line is key = value",
        'd/1: kernels.a.stop_time: no such key; did you mean "stop_timeout"?',
    ] == told_of(main)


def test_a_file_cannot_include_itself(tmp_path: Path) -> None:
    main = write(tmp_path / "main.toml", f'include = ["*.toml"]\n[kernels.m]\n{SPEC}')

    assert [
        'main.toml: include[0]: "*.toml" is this file too: put the others into a directory of their own'
    ] == told_of(main)


def test_the_digest_follows_the_bytes_of_all_files_and_nothing_else(tmp_path: Path) -> None:
    main = write(tmp_path / "main", 'include = ["d/*"]')
    fragment = write(tmp_path / "d/1")
    first = load(main).digest

    os.utime(main)
    assert first == load(main).digest
    write(fragment, fragment.read_text() + "#")
    assert first != load(main).digest
    second = load(main).digest
    write(tmp_path / "d/2", "")
    assert second != load(main).digest


def test_the_digest_of_a_rejected_file_changes_with_it(tmp_path: Path) -> None:
    digests = []
    for text in ("[", "[[", "[kernels]", None):
        path = write(tmp_path / "f", text or "")
        if text is None:
            path.unlink()
        with pytest.raises(ConfigError) as caught:
            load(path)
        digests.append(caught.value.digest)
        assert (path,) == caught.value.files

    assert 4 == len(set(digests))


def test_it_is_known_where_each_key_is_set(tmp_path: Path) -> None:
    file = tmp_path / "k.toml"
    file.write_text(
        '[defaults]\nkernelspec = "python3"\nenv = { A = "1" }\nrestart = "never"\n'
        '[kernels.a]\n[kernels.b]\nargv = ["x", "{connection_file}"]\nenv = { B = "2" }\n'
    )

    assert {
        "a": {"kernelspec": "defaults", "env": "defaults", "restart": "defaults"},
        "b": {"argv": "own", "env": "own", "restart": "defaults"},
    } == load(file).origins


IN_A_FILE = [
    ("", "no kernel is declared: add a [kernels.NAME] table"),
    ("[kernels]", "no kernel is declared: add a [kernels.NAME] table"),
    ("kernels = 3", "kernels: is an integer, not a table: write [kernels.NAME] for each kernel"),
    ('kernels.a = "S3"', "kernels.a: is a string, not a table: write [kernels.a]"),
    (f"supervisor = 1\n[kernels.a]\n{SPEC}", "supervisor: is an integer, not a table: write [supervisor] and its keys below it"),
    (
        f'[kernels."a b"]\n{SPEC}',
        'kernels."a b": "a b" is not a name for a kernel: use letters, digits, ".", "_" and "-", a letter or digit first, at most 64',
    ),
    ("include = [" + "'x', " * 1001 + f"]\n[kernels.a]\n{SPEC}", "include: more than 1000 files: include fewer"),
    (f"include = 3\n[kernels.a]\n{SPEC}", "include: 3 is an integer, not an array of strings: write strings in brackets"),
    (f'include = ["**"]\n[kernels.a]\n{SPEC}', 'include[0]: "**" is not a file or pattern: write one, such as "kernels.d/*.toml"'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), IN_A_FILE)
def test_what_is_no_file_of_kernels_is_told_once(text: str, told: str) -> None:
    assert [told] == mistakes(text)
