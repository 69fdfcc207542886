"""When a failed call is tried again, and how long is waited."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

from reenact.adapters.models import Retries, RetryPolicy
from reenact.events.content import Failure

BUSY = Failure(code="overloaded", message="Busy", retryable=True)
STEADY = RetryPolicy(attempts=6, wait_initial_s=0.5, wait_max_s=3.0, jitter_s=0.0, retry_after_cap_s=10.0)


def after(asked_s: float | None) -> Failure:
    return Failure(code="rate_limit", message="Slow down", retryable=True, retry_after_s=asked_s)


@pytest.fixture
def switches() -> Iterator[None]:
    yield
    stamina.set_active(True)
    stamina.set_testing(False)


def test_waits_double_up_to_the_longest_and_then_it_gives_up() -> None:
    assert [Retries(STEADY).next_wait(n, BUSY) for n in range(1, 8)] == [0.5, 1.0, 2.0, 3.0, 3.0, None, None]


def test_what_will_fail_again_is_not_tried_again() -> None:
    assert Retries(STEADY).next_wait(1, Failure(code="auth", message="No key", retryable=False)) is None
    assert Retries(RetryPolicy(attempts=1)).next_wait(1, BUSY) is None


def test_the_wait_asked_for_is_honoured_up_to_the_cap_and_never_shortens_ours() -> None:
    retries = Retries(STEADY)
    assert retries.next_wait(1, after(7.0)) == 7.0
    assert retries.next_wait(1, after(3600.0)) == 10.0
    assert retries.next_wait(3, after(0.0)) == retries.next_wait(3, after(None)) == 2.0


@given(st.integers(1, 200), st.none() | st.floats(0, 1e6))
def test_a_wait_is_never_below_the_steady_one_nor_above_it_by_more_than_the_jitter(
    n: int, asked_s: float | None
) -> None:
    steady = RetryPolicy(attempts=1_000, jitter_s=0.0)
    low = Retries(steady).next_wait(n, after(asked_s))
    got = Retries(RetryPolicy(attempts=1_000, jitter_s=0.25)).next_wait(n, after(asked_s))
    assert low is not None and got is not None
    assert low <= got <= low + 0.25
    assert got <= max(steady.wait_max_s, steady.retry_after_cap_s) + 0.25


def test_staminas_switches_hold(switches: None) -> None:
    stamina.set_testing(True)
    assert Retries(STEADY).next_wait(1, after(7.0)) == 0.0
    stamina.set_testing(False)
    stamina.set_active(False)
    assert Retries(STEADY).next_wait(1, BUSY) is None
