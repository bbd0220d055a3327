"""Records: written whole, never taken for empty, never a newer one touched."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from supervisor.core.model import ProcessId
from supervisor.disk import files
from supervisor.disk.privacy import UnsafeDirectory
from supervisor.output.stream import Position
from supervisor.records import record as module
from supervisor.records.record import (
    Damaged,
    Newer,
    NewerRecord,
    Record,
    RecordedDeath,
    RecordStore,
    mark,
    marked_run,
)
from supervisor.settings.config import BackoffConfig, KernelConfig

CONFIG = KernelConfig(
    name="a", argv=("x", "{connection_file}"), env={"TOKEN": "hidden"}, backoff=BackoffConfig(max=3)
)
FULL = Record(
    name="a",
    generation=3,
    boot_id="boot",
    want="up",
    launched=CONFIG,
    process=ProcessId(42, 4711, "boot"),
    ready=True,
    spawned_at=12.5,
    output_from=Position(1, 2, 3),
    address={"shell_port": 5001, "key": "secret"},
    failures=(1.0, 2.5),
    streak=2,
    restarts=7,
    failed="",
    deaths=(
        RecordedDeath(at_wall=1.7e9, generation=2, pid=41, cause="killed", signal="SIGKILL", uptime=3.0),
    ),
)


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path / "state" / "kernels")


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_what_is_written_is_read_in_every_field(store: RecordStore) -> None:
    store.write(FULL)
    store.write(Record(name="b.json"))

    assert ([FULL, Record(name="b.json")], []) == store.read_all()


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kernels").write_text("")

    with pytest.raises(UnsafeDirectory, match="not a directory"):
        RecordStore(tmp_path / "kernels")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b"\0" * 100, "not valid JSON"),
        (b'{"version": 1, "name": "a", "gen', "not valid JSON"),
        (b'{"version": 1, "name": "\xff"}', "not valid JSON"),
        (b"[]", "it has no version"),
        (b"{}", "it has no version"),
        (b'{"version": "1", "name": "a"}', "it has no version"),
        (b'{"version": 1, "name": "b"}', 'it is of the kernel "b"'),
        (b'{"version": 1, "name": "a", "generation": "3"}', "Expected `int`"),
        (b'{"version": 1, "name": "a", "process": {"pid": 1}}', "missing required field"),
    ],
)
def test_a_damaged_record_is_set_aside_and_the_one_before_it_stands_in(
    store: RecordStore, content: bytes, reason: str
) -> None:
    store.write(FULL)
    store.write(msgspec.structs.replace(FULL, generation=4))
    store.path("a").write_bytes(content)

    records, troubles = store.read_all()

    assert [FULL] == records
    assert isinstance(troubles[0], Damaged)
    assert reason in troubles[0].reason
    assert troubles[0].is_replaced
    assert content == (store.directory / "a.json.damaged-1").read_bytes()
    assert ([FULL], []) == store.read_all()


def odd(**fields: object) -> bytes:
    """A record with such fields."""
    return msgspec.json.encode(msgspec.to_builtins(FULL) | fields)


@pytest.mark.parametrize(
    "content",
    [
        b'{"version": 1, "name": "a", "address": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"version": 1, "name": "a", "failed": "\\ud800"}',
        b'{"version": 1, "name": "a", "failed": "jos\xe9"}',
        odd(process={"pid": 1 << 31, "start_time": 1, "boot_id": "b"}),
        odd(process={"pid": -1, "start_time": 1, "boot_id": "b"}),
        odd(process={"pid": 7, "start_time": 1 << 63, "boot_id": "b"}),
        odd(deaths=[{"at_wall": 1e308, "generation": 1}]),
        odd(failures=[-1e308]),
        odd(spawned_at=1e300),
        odd(generation=-1),
        odd(output_from={"inode": 1, "modified": 1, "offset": 1 << 70}),
    ],
)
def test_what_no_record_can_say_is_set_aside_alone(store: RecordStore, content: bytes) -> None:
    store.path("a").write_bytes(content)
    store.write(Record(name="b"))

    records, troubles = store.read_all()

    assert (["b"], ["a"]) == ([record.name for record in records], [trouble.name for trouble in troubles])
    assert content == (store.directory / "a.json.damaged-1").read_bytes()


def test_a_record_that_vanished_is_replaced_by_the_one_before_it(store: RecordStore) -> None:
    store.write(FULL)
    store.write(FULL)
    store.path("a").unlink()

    assert ([FULL], [Damaged("a", "it is missing", None, is_replaced=True)]) == store.read_all()
    assert ([FULL], []) == store.read_all()


def test_two_damaged_versions_are_both_kept_aside_and_no_record_is_made_up(store: RecordStore) -> None:
    store.write(FULL)
    store.write(FULL)
    store.path("a").write_bytes(b"x")
    (store.directory / "a.json.previous").unlink()
    (store.directory / "a.json.previous").write_bytes(b"y")
    store.write(Record(name="b"))

    records, troubles = store.read_all()

    assert ["b"] == [record.name for record in records]
    assert [("a", False)] == [(t.name, t.is_replaced) for t in troubles if isinstance(t, Damaged)]
    assert b"x" == (store.directory / "a.json.damaged-1").read_bytes()
    assert b"y" == (store.directory / "a.json.damaged-2").read_bytes()


def test_a_directory_in_the_place_of_a_record_delays_nobody(store: RecordStore) -> None:
    store.path("a").mkdir()
    store.write(Record(name="b"))

    records, troubles = store.read_all()

    assert ["b"] == [record.name for record in records]
    assert ["a"] == [trouble.name for trouble in troubles]
    store.write(FULL)
    assert FULL in store.read_all()[0]


def test_a_newer_record_is_reported_and_not_touched_by_anything(store: RecordStore) -> None:
    store.write(FULL)
    change(store.path("a"), version=2, generation={"of another": "kind"})
    before = store.path("a").read_bytes()

    records, troubles = store.read_all()

    assert ([], [Newer("a", 2)]) == (records, troubles)
    assert "left alone" in str(troubles[0])
    with pytest.raises(NewerRecord):
        store.write(FULL)
    with pytest.raises(NewerRecord):
        store.remove("a")
    assert before == store.path("a").read_bytes()


def test_an_older_record_is_read_with_unknown_fields_ignored_and_missing_ones_at_their_defaults(
    store: RecordStore,
) -> None:
    store.path("a").write_text('{"version": 0, "name": "a", "generation": 5, "colour": "red"}')

    assert ([Record(name="a", generation=5)], []) == store.read_all()


@pytest.mark.parametrize(
    "edit",
    [{"restart": "sometimes"}, {"a_later_key": 1}, {"start_timeout": -1}, {"backoff": {"shape": "square"}}],
)
def test_settings_of_another_version_cost_the_record_only_the_settings(
    store: RecordStore, edit: dict[str, Any]
) -> None:
    store.write(FULL)
    content = json.loads(store.path("a").read_text())
    change(store.path("a"), launched=content["launched"] | edit)

    assert ([msgspec.structs.replace(FULL, launched=None)], []) == store.read_all()


@pytest.mark.parametrize(
    ("place", "function"),
    [(files, "write_all"), (module, "_keep_previous"), (files, "sync_directory")],
)
def test_a_write_that_fails_is_the_callers_to_know_and_leaves_a_valid_record(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch, place: ModuleType, function: str
) -> None:
    store.write(FULL)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(place, function, fail)
        with pytest.raises(OSError, match="No space"):
            store.write(msgspec.structs.replace(FULL, generation=4))

    records, troubles = store.read_all()
    assert [] == troubles
    assert records[0].generation in (3, 4)
    assert [] == list(store.directory.glob(".*"))


class Killed(BaseException):
    """Stands for SIGKILL: nothing may be cleaned up after it."""


def test_a_kill_between_any_two_steps_of_a_write_leaves_a_whole_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each system call that changes a directory is, in turn, the last one made.
    reached = True
    last = 0
    while reached:
        store = RecordStore(tmp_path / str(last))
        store.write(FULL)
        store.write(msgspec.structs.replace(FULL, generation=4))
        reached = False
        calls = 0

        def dying(call: Callable[..., Any], last: int = last) -> Callable[..., Any]:
            def made(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls, reached
                if reached:
                    raise Killed
                calls += 1
                if calls > last:
                    reached = True
                    raise Killed
                return call(*args, **kwargs)

            return made

        with monkeypatch.context() as patch:
            for name in ("open", "write", "fsync", "link", "replace", "rename", "unlink"):
                patch.setattr(os, name, dying(getattr(os, name)))
            try:
                store.write(msgspec.structs.replace(FULL, generation=5))
            except Killed:
                pass

        assert [4] == [r.generation for r in store.read_all()[0]] or [5] == [
            r.generation for r in store.read_all()[0]
        ]
        assert [] == store.read_all()[1]
        last += 1
    assert last > 5


def test_a_file_system_without_hard_links_keeps_the_version_before_as_well(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store.write(FULL)
    store.write(msgspec.structs.replace(FULL, generation=4))
    store.path("a").write_bytes(b"")

    assert [FULL] == store.read_all()[0]


def test_a_removed_record_is_gone_with_the_one_before_it(store: RecordStore) -> None:
    store.write(FULL)
    store.write(FULL)

    store.remove("a")
    store.remove("a")

    assert ([], []) == store.read_all()
    assert [] == list(store.directory.iterdir())


def test_a_directory_that_is_removed_is_made_again(store: RecordStore) -> None:
    store.write(FULL)
    shutil.rmtree(store.directory)

    store.remove(FULL.name)
    store.write(FULL)

    assert ([FULL], []) == store.read_all()
    assert 0o700 == store.directory.stat().st_mode & 0o777


def test_neither_key_nor_environment_is_in_the_repr() -> None:
    assert "secret" not in repr(FULL)
    assert "hidden" not in repr(FULL)


def test_a_mark_is_of_one_run_of_one_kernel_of_one_state_directory(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    value = mark(tmp_path, "a.b-c", 12)

    assert ("a.b-c", 12) == marked_run(value, tmp_path) == marked_run(value, link)
    assert None is marked_run(value, tmp_path / "other")
    assert None is marked_run(value + "x", tmp_path)
    assert "a.b-c" in value
    assert str(tmp_path) not in value
