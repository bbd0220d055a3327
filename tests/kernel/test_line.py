"""The socket below a channel, to kernels that vanish at the worst moment."""

from __future__ import annotations

import os
import subprocess
import sys

import zmq

from supervisor.kernel.line import make_threads
from supervisor.process.descriptors import limit
from tests.cli.tools import ROOT
from tests.waiting import DEADLINE


def test_a_kernel_that_vanishes_while_it_answers_does_not_take_us_with_it() -> None:
    # In a process of its own: what is looked for is that libzmq aborts it.
    program = str(ROOT / "tests" / "kernel" / "closing.py")
    done = subprocess.run(
        [sys.executable, program, "100"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)


def test_there_may_be_as_many_sockets_as_there_are_descriptors_for() -> None:
    with zmq.Context() as context:
        make_threads(context)

        assert min(limit() // 2, 65_535) == context.get(zmq.MAX_SOCKETS)
