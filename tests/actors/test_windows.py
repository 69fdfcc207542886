"""Every kind of limit: of a call, a minute, a day, a month and for good, by the calendar."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from reenact.actors.calendar import month_of
from reenact.events.budget import LIMITS, Amount
from reenact.events.ledger import AllotmentDenied, AllotmentReturned, Allotted
from tests.actors.ledgers import DAY_US, NOON, allot, back, denied, granted, ledger, limit


@pytest.mark.parametrize(
    ("name", "of"), [(limit.name, limit.of) for limit in LIMITS if limit.window in ("day", "month", "total", "minute")]
)
def test_every_limit_is_held_over_all_sessions_of_the_scope(name: str, of: str) -> None:
    most: Any = "0.000000010" if of == "cost" else 10
    stream = ledger(limit(**{name: most}), allot("a", **{of: 6}, principal="ann"))
    breach = denied(stream.when(allot("b", **{of: 6}, principal="bob")))
    assert (breach.limit, breach.of, breach.used, breach.wanted, breach.most) == (name, "scope", 6, 6, 10)
    stream.when(allot("b", "w2", **{of: 4}, principal="bob")).then(Allotted)


@pytest.mark.parametrize("of", ["tokens", "cost"])
def test_a_single_call_is_held_to_its_own_limit(of: str) -> None:
    most: Any = "0.000000010" if of == "cost" else 10
    stream = ledger(limit(**{f"max_{of}_per_request": most}))
    assert denied(stream.when(allot(**{of: 11}))).limit == f"max_{of}_per_request"
    assert getattr(granted(stream.when(allot(ask="w2", **{of: 10}))), f"{of}_per_request") == 10


@pytest.mark.parametrize("mine", [7, 10])
def test_of_several_limits_of_a_single_call_the_lowest_holds(mine: int) -> None:
    stream = ledger(limit(max_tokens_per_request=8), limit(principal_id="ann", max_tokens_per_request=mine))
    assert granted(stream.when(allot(tokens=1, principal="ann"))).tokens_per_request == min(8, mine)


def test_the_calls_of_tools_of_one_answer_are_told_to_the_session() -> None:
    assert granted(ledger(limit(max_tool_calls_per_request=3)).when(allot(tokens=1))).tools_per_request == 3


def test_a_daily_limit_counts_the_day_and_not_the_life() -> None:
    stream = ledger(limit(max_requests_daily=10), allot(requests=10), back(spent=Amount(requests=10)))
    stream.when(allot("t", requests=1)).then(AllotmentDenied)
    stream.when(allot("t", "w2", requests=10, at=NOON + DAY_US)).then(Allotted)


def test_what_is_spent_late_belongs_to_the_day_it_was_allotted_in() -> None:
    stream = ledger(limit(max_tokens_daily=100, max_tokens_total=150), allot(tokens=80))
    tomorrow = NOON + DAY_US
    stream.when(allot("t", tokens=70, at=tomorrow)).then(Allotted)
    stream.when(back(spent=Amount(tokens=80), at=tomorrow)).then(AllotmentReturned)
    breach = denied(stream.when(allot("u", tokens=30, at=tomorrow)))
    assert breach.limit == "max_tokens_total" and breach.used == 150


@pytest.mark.parametrize(("name", "days"), [("max_tokens_daily", 1), ("max_tokens_monthly", 31)])
def test_what_is_given_back_late_leaves_the_new_window_as_it_is(name: str, days: int) -> None:
    later = NOON + days * DAY_US
    stream = ledger(limit(**{name: 100}), allot(tokens=90), allot("t", tokens=80, at=later))
    stream.when(back(spent=Amount(tokens=30), at=later)).then(AllotmentReturned)
    assert denied(stream.when(allot("u", tokens=21, at=later))).used == 80
    stream.when(allot("u", "w2", tokens=20, at=later)).then(Allotted)


def test_an_allotment_ends_with_its_day() -> None:
    assert granted(ledger(limit(max_tokens_daily=100)).when(allot(tokens=1))).until == 20_001 * DAY_US


def test_and_with_its_minute_where_a_minute_is_limited() -> None:
    both = limit(max_requests_per_minute=10, max_tokens_daily=100)
    assert granted(ledger(both).when(allot(requests=1))).until == NOON + 60_000_000


def test_a_minute_is_the_last_sixty_seconds_wherever_they_lie() -> None:
    second = 1_000_000
    stream = ledger(limit(max_requests_per_minute=2), allot(requests=2))
    stream.when(back(spent=Amount(requests=2), at=NOON + 10 * second))
    stream.when(allot("t", requests=1, at=NOON + 69 * second)).then(AllotmentDenied)
    stream.when(allot("t", "w2", requests=1, at=NOON + 70 * second)).then(Allotted)


def test_a_call_counts_in_the_minute_in_which_it_was_made_whenever_it_is_told() -> None:
    second = 1_000_000
    one = Amount(requests=1)
    stream = ledger(limit(max_requests_per_minute=2), allot(requests=1), allot("t", requests=1))
    stream.when(back(spent=one, made=NOON, at=NOON + 130 * second))
    stream.when(allot("t", "w2", requests=1, spent=one, made=NOON + 100 * second, at=NOON + 130 * second)).then(
        Allotted
    )
    assert denied(stream.when(allot("u", requests=1, at=NOON + 130 * second))).used == 2, "one a half minute ago"
    stream.when(back("t", "w2", spent=one, made=NOON + 100 * second, at=NOON + 131 * second))
    stream.when(allot("u", "w2", requests=1, at=NOON + 131 * second)).then(Allotted)


@pytest.mark.parametrize("behind", [0, 3600, DAY_US // 1_000_000])
def test_what_was_made_is_so_old_as_it_is_for_who_tells_it(behind: int) -> None:
    """Their clock is behind that of the ledger: a call of a moment ago is not one of yesterday."""
    second = 1_000_000
    at = NOON - behind * second
    stream = ledger(limit(max_requests_per_minute=1), allot("early", tokens=1, at=NOON), allot(requests=1, at=at))
    stream.when(back(spent=Amount(requests=1), made=at, at=at + 59 * second))
    stream.when(allot("t", requests=1, at=at + 59 * second)).then(AllotmentDenied)


def test_a_month_is_that_of_the_calendar() -> None:
    from datetime import UTC, datetime

    def at(*when: int) -> int:
        return int(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc,arg-type]

    stream = ledger(limit(max_tokens_monthly=10), allot(tokens=10, at=at(2028, 2, 1)))
    stream.when(back(spent=Amount(tokens=10), at=at(2028, 2, 1)))
    stream.when(allot("t", tokens=1, at=at(2028, 2, 29, 23, 59, 59))).then(AllotmentDenied)
    stream.when(allot("t", "w2", tokens=10, at=at(2028, 3, 1))).then(Allotted)


@for_all(days=st.integers(-700_000, 2_000_000))
def test_months_are_counted_as_the_calendar_counts_them(days: int) -> None:
    from datetime import date

    if 1 <= days + 719_163 <= 3_652_059:
        day = date.fromordinal(days + 719_163)
        assert month_of(days * DAY_US) == day.year * 12 + day.month - 1
    assert month_of((days + 31) * DAY_US) > month_of(days * DAY_US) - 1


def test_a_clock_that_is_set_back_gives_nothing_back() -> None:
    stream = ledger(limit(max_tokens_daily=100, max_requests_per_minute=9), allot(tokens=100, requests=9))
    stream.when(back(spent=Amount(tokens=100, requests=9)))
    for n, at in enumerate((NOON - DAY_US, NOON - 400 * DAY_US, 0, -(10**18))):
        stream.when(allot("t", f"w{n + 1}", tokens=1, at=at)).then(AllotmentDenied)
        stream.when(allot("u", f"w{n + 1}", requests=1, at=at)).then(AllotmentDenied)
