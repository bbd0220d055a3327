"""The arithmetic of the operator's settings: delays, budgets, and which end is what."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from supervisor.core.model import Cause, Exit
from supervisor.core.policy import (
    backoff_delay,
    describe,
    is_clean,
    may_restart,
    reason_to_give_up,
    recent_failures,
)
from supervisor.settings.config import BackoffConfig
from tests.core.story import CLEAN, CRASHED, KILLED, NOT_FOUND, config

STEADY = BackoffConfig(initial=0.25, next=0.5, factor=2.0, max=60.0, jitter=0.0)

spans = st.floats(0, 1e6)
backoffs = st.builds(
    BackoffConfig,
    initial=spans,
    next=spans,
    factor=st.floats(1, 1e300),
    max=spans,
    jitter=st.floats(0, 1),
)


def test_delays_grow_by_the_factor_up_to_the_maximum() -> None:
    delays = [backoff_delay(STEADY, attempt, "a") for attempt in range(1, 12)]

    assert [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0] == delays


def test_a_factor_of_little_more_than_one_still_reaches_the_maximum() -> None:
    slow = BackoffConfig(next=0.5, factor=1.01, max=60.0, jitter=0.0)

    assert 60.0 == backoff_delay(slow, 1000, "a")


def test_a_delay_of_zero_stays_zero_whatever_the_factor() -> None:
    none = BackoffConfig(initial=0.0, next=0.0, factor=1e300)

    assert {0.0} == {backoff_delay(none, attempt, "a") for attempt in (1, 2, 3, 10**6)}


@pytest.mark.parametrize("attempt", [3, 1100, 10**9])
def test_no_number_of_deaths_overflows(attempt: int) -> None:
    assert 60.0 == backoff_delay(BackoffConfig(factor=1e308, jitter=0.0), attempt, "a")
    assert inf == backoff_delay(BackoffConfig(factor=1e308, max=inf, jitter=0.0), 10**9, "a")


@given(backoffs, st.integers(0, 10**6), st.text())
def test_a_delay_varies_by_its_share_and_is_never_longer_than_the_maximum(
    backoff: BackoffConfig, attempt: int, salt: str
) -> None:
    plain = backoff_delay(structs.replace(backoff, jitter=0.0), attempt, salt)
    delay = backoff_delay(backoff, attempt, salt)

    assert 0 <= delay <= backoff.max
    assert plain * (1 - backoff.jitter) * 0.999999 <= delay <= plain * (1 + backoff.jitter) * 1.000001


def test_the_same_run_waits_the_same_and_others_wait_otherwise() -> None:
    jittery = BackoffConfig(initial=1.0, jitter=0.2)
    delays = {backoff_delay(jittery, 1, f"kernel-{n}:1") for n in range(100)}

    assert backoff_delay(jittery, 1, "a:1") == backoff_delay(jittery, 1, "a:1")
    assert len(delays) > 90
    assert min(delays) < 0.85
    assert max(delays) > 1.15


def test_a_death_counts_for_the_window_and_no_longer() -> None:
    assert (11.0, 20.0) == recent_failures((5.0, 10.0, 11.0, 20.0), 10.0, 20.0)


def test_only_an_exit_by_itself_with_code_zero_is_clean() -> None:
    assert is_clean(CLEAN)
    for other in (CRASHED, KILLED, Exit(Cause.UNKNOWN), Exit(Cause.START_TIMEOUT, code=0)):
        assert not is_clean(other)


@pytest.mark.parametrize(
    ("setting", "after_clean", "after_crash"),
    [("always", True, True), ("on-failure", False, True), ("never", False, False)],
)
def test_the_restart_setting_decides_after_which_ends_there_is_another_run(
    setting: str, after_clean: bool, after_crash: bool
) -> None:
    assert after_clean is may_restart(config(restart=setting), CLEAN)
    assert after_crash is may_restart(config(restart=setting), CRASHED)


@pytest.mark.parametrize(
    ("exit", "words"),
    [
        (KILLED, "SIGKILL (killed)"),
        (CRASHED, "exit code 7"),
        (NOT_FOUND, "no such file: /nowhere/python"),
        (Exit(Cause.UNKNOWN), "unknown, exit status unknown"),
    ],
)
def test_an_end_is_described_in_a_few_words(exit: Exit, words: str) -> None:
    assert words == describe(exit)


def test_reasons_to_give_up() -> None:
    assert "no such file: /nowhere/python" == reason_to_give_up(config(), NOT_FOUND, 1)
    never = reason_to_give_up(config(restart="never"), CRASHED, 1)
    assert 'ended with exit code 7, and restart = "never"' == never
    spent = reason_to_give_up(config(max_restarts=2, restart_window=30.0), KILLED, 3)
    assert "died 3 times within 30 s, last with SIGKILL (killed)" == spent
    assert reason_to_give_up(config(max_restarts=2), KILLED, 2) is None
    assert reason_to_give_up(config(max_restarts=0), KILLED, 10**6) is None


@pytest.mark.parametrize("settings", [{"max_restarts": 1}, {"restart": "never"}])
def test_what_others_do_is_no_reason_to_give_up(settings: dict[str, Any]) -> None:
    for outside in (Exit(Cause.PORT_TAKEN, code=1), Exit(Cause.UNKNOWN, is_passing=True)):
        assert reason_to_give_up(config(**settings), outside, 10**6) is None
