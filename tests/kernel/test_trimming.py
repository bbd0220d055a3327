"""The output of a kernel within its limits while it grows, whoever writes it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.disk.off_loop import Lane
from supervisor.kernel import trimming as trimmings
from supervisor.kernel.trimming import Trimming
from supervisor.output import file as files
from supervisor.output.file import OutputFile
from supervisor.output.growth import Growth
from supervisor.settings.config import OutputConfig
from tests.waiting import DEADLINE, until

LIMIT, BACKUPS = 1 << 20, 2
# 64 KB at a time, 120 MB/s at most.
FLOOD = (
    "import os, sys, time\n"
    "for _ in range(int(sys.argv[1])): os.write(1, b'%063d\\n' % 7 * 1024); time.sleep(0.0005)"
)


class Bench:
    def __init__(self, path: Path) -> None:
        self.file = OutputFile(path)
        self.file.make()
        self.troubles: list[str | None] = []
        self.growth = Growth()
        self.trimming = Trimming(
            "a",
            self.file,
            Lane("output of kernel a"),
            lambda: OutputConfig(max_bytes=LIMIT, backups=BACKUPS),
            lambda _, text: self.troubles.append(text),
        )
        self.trimming.begin(self.growth)

    def write(self, count: int) -> None:
        with self.file.path.open("ab") as output:
            output.write(b"%063d\n" % 7 * (count // 64))

    def bytes_on_disk(self) -> int:
        total = 0
        for found in self.file.path.parent.iterdir():
            with suppress(FileNotFoundError):  # one has become the next older in between
                total += found.stat().st_blocks * 512
        return total

    async def wait_small(self) -> None:
        await until(lambda: os.path.getsize(self.file.path) < LIMIT)  # noqa: PTH202


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "a.log")
    yield made
    made.trimming.close()
    made.growth.close()


async def test_a_flood_is_bounded_while_it_is_written_and_nothing_of_its_end_is_lost(bench: Bench) -> None:
    with bench.file.path.open("ab") as output:
        flood = subprocess.Popen([sys.executable, "-c", FLOOD, "5000"], stdout=output)  # noqa: ASYNC220
    sizes: list[int] = []

    def ended() -> bool:
        sizes.append(bench.bytes_on_disk())
        return flood.poll() is not None

    await until(ended)
    await bench.wait_small()

    # A disk takes its time: far from the 320 MB that were written.
    assert max(sizes) < 160 << 20
    await until(lambda: bench.bytes_on_disk() <= (BACKUPS + 2) * LIMIT)
    assert [None] == list(dict.fromkeys(bench.troubles))


async def test_what_grows_after_a_long_rest_is_looked_at_as_often_as_it_grows_now(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimmings, "LONGEST", 10 * DEADLINE)
    await until(lambda: bench.troubles)
    bench.trimming._looked -= 3600

    bench.write(LIMIT * 7 // 8)
    looks = len(bench.troubles)
    await until(lambda: len(bench.troubles) > looks)
    bench.write(2 * LIMIT)

    await bench.wait_small()


@pytest.mark.parametrize(("rate", "pause"), [(180e6, 0.0058), (6e6, 0.1), (1e6, 0.26), (1e5, 1.0)])
def test_a_flood_is_looked_at_the_sooner_the_faster_it_is(rate: float, pause: float) -> None:
    assert pause == pytest.approx(trimmings._pause(int(rate), 1.0, LIMIT // 2), rel=0.02)


async def test_output_that_cannot_be_kept_small_is_degraded_until_it_can(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimmings, "BLIND_INTERVAL", 0.01)
    with monkeypatch.context() as old:
        unsupported = OSError(errno.EOPNOTSUPP, "Operation not supported")

        def refuse(*_: Any) -> None:
            raise unsupported

        old.setattr(files, "_fallocate", refuse)
        bench.write(2 * LIMIT)
        await until(lambda: [text for text in bench.troubles if text])
    assert "the output of kernel a cannot be kept small: [Errno 95]" in str(bench.troubles[-1])

    await bench.wait_small()

    await until(lambda: bench.troubles[-1] is None)


async def test_on_a_full_disk_older_output_makes_room_and_what_does_not_fit_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write(2 * LIMIT)
    await until(bench.file.path.with_name("a.log.1").exists)
    await bench.wait_small()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_all", full)
    bench.write(2 * LIMIT)
    await bench.wait_small()

    await until(lambda: "the disk is full:" in caplog.text)
    assert [bench.file.path] == list(bench.file.path.parent.iterdir())
