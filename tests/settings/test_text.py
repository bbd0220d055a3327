"""Properties of reading and writing: settings go round, and nothing else than a mistake comes out."""

from __future__ import annotations

import getpass
import grp
import os
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from supervisor.settings.config import (
    BackoffConfig,
    Config,
    KernelConfig,
    PortsConfig,
    SlurmConfig,
    SupervisorConfig,
)
from supervisor.settings.file import ConfigError, Mistake, effective_toml, parse
from supervisor.settings.keys import Key, Kind, keys_of
from supervisor.settings.text import toml_value

SPEC = 'kernelspec = "python3"\n'


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
GROUPS = [None, *(group.gr_name for group in grp.getgrall()[:3])]
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


def values_of(key: Key) -> st.SearchStrategy[object]:
    low, high = key.ge if key.ge is not None else key.gt, key.le
    match key.kind:
        case Kind.CHOICE:
            return st.sampled_from(key.choices)
        case Kind.BOOLEAN:
            return st.booleans()
        case Kind.INTEGER:
            return st.integers(int(low or 0), int(high) if high is not None else 2**63 - 1)
        case Kind.NUMBER:
            return st.floats(low, high, exclude_min=key.gt is not None, allow_nan=False, allow_infinity=False)
        case Kind.STRINGS:
            return st.lists(TEXT).map(tuple)
        case Kind.MAPPING:
            return st.dictionaries(TEXT.filter(lambda name: name and "=" not in name), TEXT)
        case Kind.STRING:
            return st.from_regex(key.pattern, fullmatch=True) if key.pattern else TEXT.filter(bool)
        case Kind.TABLE:
            assert key.table is not None
            table = key.table
            return st.fixed_dictionaries({n: values_of(k) for n, k in keys_of(table).items()}).map(
                lambda v: table(**v)
            )


def settings_of(table: type[msgspec.Struct], **fixed: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    keys = {name: key for name, key in keys_of(table).items() if name != "name"}
    given = {name: fixed.get(name, values_of(key)) for name, key in keys.items()}
    return st.fixed_dictionaries({}, optional=given)


COMMANDS = st.one_of(
    NAMES.map(lambda name: {"kernelspec": name}),
    st.lists(TEXT.filter(bool)).map(lambda words: {"argv": (*words, "--f={connection_file}")}),
)
BACKOFFS = st.builds(
    lambda low, high, jitter: BackoffConfig(initial=low, next=low, max=low + high, jitter=jitter),
    st.floats(0, 1e9), st.floats(0, 1e300), st.floats(0, 1),
)  # fmt: skip
# As they are once a file was read: a relative one has been placed, and each "~" has its directory.
KNOWN_PATHS = TEXT.filter(lambda text: bool(text) and not os.path.expandvars(text).startswith("~"))
LINES = st.lists(TEXT.filter(lambda text: "\n" not in text)).map(tuple)
SLURM = st.builds(
    lambda values, place: SlurmConfig(**{**values, "directory": f"/{place}"}),
    settings_of(
        SlurmConfig,
        directory=st.just(None),
        memory=st.sampled_from(["1", "60G"]),
        extra=LINES.map(lambda words: tuple(f"--licenses={word}" for word in words)),
        setup=LINES,
    ),
    TEXT,
)
# What a job of Slurm cannot be as well.
AT_HOME = {"transport", "ip", "ports", "startup", "warm_start", "user"}
KERNELS = st.builds(
    lambda values, command: {
        key: value
        for key, value in (values | command).items()
        if not (values.get("slurm") and key in AT_HOME)
    },
    settings_of(
        KernelConfig,
        kernelspec=st.just(None),
        argv=st.just(None),
        cwd=st.one_of(TEXT.map("/{}".format), TEXT.map("~/{}".format)),
        backoff=BACKOFFS,
        transport=st.just("tcp"),
        ip=st.sampled_from(["127.0.0.1", "::1", "localhost", "0.0.0.0"]),
        ports=st.just(PortsConfig()),
        startup_file=st.just(None),
        user=st.sampled_from([None, getpass.getuser()]),
        slurm=st.one_of(st.none(), SLURM),
    ),
    COMMANDS,
)
CONFIGS = st.builds(
    lambda supervisor, kernels: Config(
        supervisor=SupervisorConfig(**supervisor),
        kernels={name: KernelConfig(name=name, **values) for name, values in kernels.items()},
    ),
    settings_of(
        SupervisorConfig,
        runtime_dir=KNOWN_PATHS,
        state_dir=KNOWN_PATHS,
        socket=KNOWN_PATHS.filter(lambda text: len(text.encode()) < 100),
        operators=st.sampled_from(GROUPS),
        readers=st.sampled_from(GROUPS),
    ),
    st.dictionaries(NAMES, KERNELS, min_size=1, max_size=3),
)


@given(CONFIGS)
def test_effective_settings_are_toml_that_reads_back_as_the_same(config: Config) -> None:
    assert config == parse(effective_toml(config), "f.toml")


def test_a_path_that_a_program_gave_is_written_as_text() -> None:
    assert '"/srv/work"' == toml_value(Path("/srv/work"))


def test_effective_settings_tell_every_key_and_comment_those_that_are_not_set() -> None:
    text = effective_toml(parse(f'[kernels."a.b"]\n{SPEC}ports = {{ hb = 7 }}', "f.toml"))

    assert '\n[kernels."a.b"]\nkernelspec = "python3"\n# argv is not set: ' in text
    assert "\nports = { shell = 0, iopub = 0, stdin = 0, control = 0, hb = 7 }\n" in text
    for key in (*keys_of(SupervisorConfig), *keys_of(KernelConfig)):
        assert "name" == key or f"\n{key} = " in text or f"\n# {key} is not set: " in text


def parses_or_reports(text: str | bytes) -> None:
    try:
        assert parse(text, "f.toml").kernels
    except ConfigError as caught:
        error = caught
    else:
        return
    assert error.mistakes
    assert all(isinstance(mistake, Mistake) and mistake.what for mistake in error.mistakes)
    assert len(error.mistakes) == len(str(error).splitlines())


@given(st.one_of(st.text(), st.binary(), st.text(alphabet="[]{}=.,\"'\\\n#a10:-eu")))
def test_any_text_is_read_or_reported(text: str | bytes) -> None:
    parses_or_reports(text)


WORDS = [*keys_of(KernelConfig), *keys_of(SupervisorConfig), *keys_of(BackoffConfig), *keys_of(PortsConfig)]
KEYS = st.one_of(st.sampled_from([*WORDS, "kernels", "defaults", "supervisor", "a", "A"]), TEXT)
LEAVES = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXT,
    st.just("ipc"),
    st.integers(0, 6),
    st.just("{connection_file}"),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
TABLES = st.dictionaries(st.sampled_from(WORDS), TREES, max_size=6)


@given(
    st.dictionaries(KEYS, TREES, max_size=3),
    TABLES,
    st.dictionaries(st.sampled_from("aAb"), TABLES, max_size=3),
)
def test_any_tables_are_read_or_reported(
    top: dict[str, object], defaults: dict[str, object], kernels: dict[str, object]
) -> None:
    tables = {**top, "defaults": defaults, "kernels": kernels}

    parses_or_reports(
        "\n".join(f"{toml_value([key])[1:-1]} = {toml_value(value)}" for key, value in tables.items())
    )
