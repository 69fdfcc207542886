"""What is left alone after a failure, and for how long."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors.cooldown import (
    LONGEST_S,
    PROBES_MAX,
    WINDOWS_MAX,
    Cooldowns,
    CooldownTimes,
    Noted,
    failed,
    fair,
    is_well,
    joined,
    kind_of,
    last_probe,
    probe_worthy,
    probed,
    soonest,
    span_s,
    succeeded,
    until,
)
from reenact.actors.windows import changes, restored

TIMES = CooldownTimes()
S = 1_000_000
MINUTE, HOUR = 60 * S, 3600 * S
A, B = "anthropic:a", "anthropic:b"


def fail(table: Cooldowns, code: str, now: int, *, model: str = A, key: str | None = "k", **more: Any) -> Cooldowns:
    return failed(table, key, model, code, now, TIMES, **more)


def windows(code: str, count: int) -> list[float]:
    """How long each window lasts, where a probe fails just before its end and a call right after it; seconds."""
    table, now, spans = Cooldowns(), 0, []
    for _ in range(count):
        table = fail(table, code, now)
        end = until(table, "k", A, now)
        assert end is not None
        spans.append((end - now) / S)
        table, now = fail(table, code, end - 1), end
    return spans


def test_windows_grow_up_to_a_limit() -> None:
    assert windows("overloaded", 5) == [30, 60, 300, 300, 300]
    assert windows("billing", 5) == [5 * 3600, 10 * 3600, 20 * 3600, 24 * 3600, 24 * 3600]
    assert windows("auth", 5) == [600, 1200, 2400, 3600, 3600]
    assert windows("permission", 5) == [600, 1200, 2400, 3600, 3600]


def test_a_day_without_a_failure_or_an_answer_makes_the_next_failure_a_first_one() -> None:
    table = fail(fail(Cooldowns(), "overloaded", 0), "overloaded", MINUTE)
    assert until(fail(table, "overloaded", MINUTE + 24 * HOUR), "k", A, MINUTE + 24 * HOUR) == (
        MINUTE + 24 * HOUR + 30 * S
    )
    well = succeeded(table, "k", A)
    assert until(well, "k", A, MINUTE) is None and is_well(well, "k", A)
    again = fail(well, "overloaded", 2 * MINUTE)
    assert until(again, "k", A, 2 * MINUTE) == 2 * MINUTE + 30 * S and not is_well(again, "k", A)


def test_a_provider_that_asks_for_longer_gets_it_up_to_the_longest_window() -> None:
    assert until(fail(Cooldowns(), "rate_limit", 0, retry_after_s=45), "k", A, 0) == 45 * S
    assert until(fail(Cooldowns(), "rate_limit", 0, retry_after_s=9e9), "k", A, 0) == 300 * S
    assert until(fail(Cooldowns(), "rate_limit", 0, retry_after_s=math.nan), "k", A, 0) == 30 * S


def test_a_rate_limit_cools_the_model_that_failed_and_no_other() -> None:
    table = fail(Cooldowns(), "rate_limit", 0)
    assert until(table, "k", A, 0) == 30 * S
    assert until(table, "k", B, 0) is None and until(table, "other", A, 0) is None


@pytest.mark.parametrize(("model", "code"), [(B, "rate_limit"), (B, "overloaded"), (A, "timeout")])
def test_another_model_or_another_reason_of_the_same_key_widens_it_to_the_key_until_the_same_end(
    model: str, code: str
) -> None:
    table = fail(fail(Cooldowns(), "rate_limit", 0), code, 10 * S, model=model)
    assert until(table, "k", "anthropic:c", 10 * S) == 30 * S
    assert until(table, "other", A, 10 * S) is None
    assert until(table, "k", A, 10 * S) == 30 * S


@pytest.mark.parametrize("code", ["model_not_found", "permission", "bad_response", "internal"])
def test_what_says_nothing_of_the_key_widens_nothing(code: str) -> None:
    table = fail(fail(Cooldowns(), "rate_limit", 0), code, S, model=B)
    assert until(table, "k", "anthropic:c", S) is None and until(table, "k", B, S) is not None
    table = fail(fail(Cooldowns(), code, 0), "rate_limit", S, model=B)
    assert until(table, "k", "anthropic:c", S) is None


def test_without_a_key_there_is_none_to_close() -> None:
    table = fail(fail(Cooldowns(), "auth", 0, key=None), "overloaded", S, key=None, model=B)
    assert until(table, None, A, S) is not None and until(table, None, "anthropic:c", S) is None


@pytest.mark.parametrize("code", ["auth", "billing"])
def test_a_key_that_is_refused_or_not_paid_for_is_closed_for_all_its_models(code: str) -> None:
    assert until(fail(Cooldowns(), code, 0), "k", B, 0) is not None


def test_a_window_of_a_future_that_was_never_is_over() -> None:
    table = fail(Cooldowns(), "billing", 10 * HOUR)
    assert until(table, "k", A, 9 * HOUR) is None  # the clock was set back


def test_a_probe_is_worth_it_near_the_end_or_when_nobody_knows_and_not_too_often() -> None:
    table, hour = Cooldowns(), HOUR
    assert worthy(table, None, 0) and worthy(table, math.nan, 0)
    assert not worthy(table, hour, hour - 120 * S - 1)
    assert worthy(table, hour, hour - 120 * S) and worthy(table, hour, 2 * hour)
    asked = probed(table, "k", A, hour, TIMES)
    assert not worthy(asked, None, hour + 30 * S - 1) and not worthy(asked, None, hour, model=B)
    assert worthy(asked, None, hour + 30 * S) and worthy(asked, None, hour, model="q:a")
    assert not worthy(fail(table, "overloaded", 0), None, 29 * S)  # it has just been asked


def worthy(table: Cooldowns, expiry: float | None, now: int, *, key: str | None = "k", model: str = A) -> bool:
    return probe_worthy(table, key, model, expiry, now, TIMES)


CODES = ["rate_limit", "auth", "billing", "permission", "model_not_found"]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([A, B]), st.sampled_from(CODES))))
def test_whatever_fails_for_others_a_key_is_probed_as_if_there_were_none(others: Any) -> None:
    mine = table = fail(Cooldowns(), "billing", 0)
    for now, (key, model, code) in enumerate(others):
        table = probed(fail(table, code, now, model=model, key=key), key, model, now, TIMES)
    for now in (S, 29 * S, 30 * S):
        assert worthy(table, None, now) == worthy(mine, None, now) == (now == 30 * S)


def test_what_fails_with_another_key_or_is_another_models_own_fault_delays_no_probe() -> None:
    table = fail(Cooldowns(), "billing", 0, key="another")
    assert not worthy(table, None, S, key="another") and worthy(table, None, S)
    typo = fail(Cooldowns(), "model_not_found", 0)
    assert not worthy(typo, None, S) and worthy(typo, None, S, model=B)
    later = restored(changes(Cooldowns(), typo, A).opened, S, TIMES)  # type: ignore[union-attr]
    assert later.probes == typo.probes == {("k", A): Noted(0)}


def test_probes_are_forgotten_after_a_day_and_never_more_than_a_few_are_remembered() -> None:
    table = Cooldowns()
    for number in range(PROBES_MAX + 10):
        table = probed(table, "k", f"p{number}:a", number, TIMES)
    assert len(table.probes) == PROBES_MAX and ("k", "p0") not in table.probes
    assert probed(table, "k", "new:a", 25 * HOUR, TIMES).probes == {("k", "new"): Noted(25 * HOUR)}


def test_never_more_than_so_many_windows_are_remembered() -> None:
    table = Cooldowns()
    for number in range(WINDOWS_MAX + 50):
        table = fail(table, "rate_limit", number * S, key=f"k{number}")
    assert len(table.windows) <= WINDOWS_MAX and ("k0", A) not in table.windows


def test_however_many_keys_of_another_scope_fail_the_windows_of_one_stay() -> None:
    early = table = fail(Cooldowns(), "timeout", 0, key="bob", scope="bob")
    for number in range(WINDOWS_MAX + 10):
        table = fail(table, "billing", number, key=f"k{number}", scope="ann")
    table = fail(table, "timeout", S, key="bob too", scope="bob")
    assert len(table.windows) == WINDOWS_MAX and early.windows.items() <= table.windows.items()
    assert until(table, "bob too", A, S) is not None


def test_a_window_that_was_just_opened_pushes_out_another_and_not_itself() -> None:
    table = Cooldowns()
    for number in range(WINDOWS_MAX):
        table = fail(table, "billing", number, key=f"k{number}")
    table = fail(table, "timeout", WINDOWS_MAX)
    assert until(table, "k", A, WINDOWS_MAX) is not None and until(table, "k0", A, WINDOWS_MAX) is None


def test_given_a_full_table_when_a_window_becomes_the_whole_keys_then_that_stays() -> None:
    table = Cooldowns()
    for number in range(WINDOWS_MAX):
        table = fail(table, "billing", number, key=f"k{number}")
    table = fail(fail(table, "rate_limit", WINDOWS_MAX), "overloaded", WINDOWS_MAX, model=B)
    assert len(table.windows) == WINDOWS_MAX and until(table, "k", "anthropic:c", WINDOWS_MAX) is not None


@pytest.mark.parametrize("ago", [HOUR, 9 * HOUR, 48 * HOUR], ids=["open", "over", "forgotten"])
def test_given_a_window_for_each_of_a_thousand_scopes_when_one_becomes_the_whole_keys_then_there_is_room_for_it(
    ago: int,
) -> None:
    table = Cooldowns()
    for number in range(WINDOWS_MAX - 1):
        table = fail(table, "billing", 48 * HOUR - ago, key=f"k{number}", scope=f"s{number}")
    table = fail(fail(table, "overloaded", 48 * HOUR), "overloaded", 48 * HOUR, model=B)
    assert {each for each in table.windows if each[0] == "k"} >= {("k", B), ("k", None)}
    assert len(table.windows) == (3 if ago == 48 * HOUR else WINDOWS_MAX)


@given(st.dictionaries(st.integers(), st.tuples(st.sampled_from("abcd"), st.integers(0, 9)), min_size=1), st.data())
def test_whatever_is_remembered_the_newest_stays_and_no_scope_loses_what_another_has_more_of(
    held: dict[int, tuple[str, int]], data: st.DataObject
) -> None:
    newest = data.draw(st.sets(st.sampled_from(sorted(held)), max_size=2))
    most = data.draw(st.integers(2, 8))
    left = dict(held)
    fair(left, most, itemgetter(0), itemgetter(1), newest)
    assert len(left) == min(len(held), most) and newest <= left.keys() and left.items() <= held.items()
    before, after = (Counter(scope for scope, _ in each.values()) for each in (held, left))
    may_lose = {scope for each, (scope, _) in left.items() if each not in newest}
    for loser in before - after:
        assert all(after[loser] + 1 >= after[other] for other in may_lose)
    for gone, (scope, age) in held.items() - left.items():
        assert all(age <= kept[1] for each, kept in left.items() if each not in newest and kept[0] == scope), gone


def test_of_what_two_know_the_later_failure_and_the_later_probe_count() -> None:
    early = fail(Cooldowns(), "rate_limit", 0)
    late = fail(early, "rate_limit", HOUR, scope="bob")
    for each in (joined(early, late), joined(late, early)):
        assert (each.windows, each.probes) == (late.windows, late.probes)
        assert until(each, "k", A, HOUR) == HOUR + 60 * S and last_probe(each, "k", A) == HOUR
    other = fail(Cooldowns(), "billing", S, key="another")
    assert joined(late, other).windows == {**late.windows, **other.windows}


@given(st.sampled_from(["transient", "billing", "auth"]), st.integers(1, 10_000))
def test_no_window_is_shorter_than_the_one_before_and_none_longer_than_its_limit(kind: Any, count: int) -> None:
    most = {"transient": 300.0, "billing": 86_400.0, "auth": 3_600.0}[kind]
    assert span_s(kind, count, TIMES) <= span_s(kind, count + 1, TIMES) <= most


happenings = st.lists(
    st.tuples(
        st.sampled_from(["fails", "fails", "fails", "answers"]),
        st.sampled_from(["k1", "k2", None]),
        st.sampled_from(["p:a", "p:b", "q:c"]),
        st.sampled_from(["rate_limit", "overloaded", "timeout", "auth", "billing", "permission", "model_not_found"]),
        st.integers(0, 2 * 3600 * S),
    ),
    max_size=60,
)


@given(happenings)
def test_an_open_window_never_changes_whatever_fails_within_it(story: Any) -> None:
    table, now = Cooldowns(), 0
    for what, key, model, code, passed in story:
        now += passed
        before = {place: window for place, window in table.windows.items() if window.since <= now < window.until}
        if what == "answers":
            table = succeeded(table, key, model)
            assert until(table, key, model, now) is None
            continue
        table = failed(table, key, model, code, now, TIMES)
        for place, window in before.items():
            held = table.windows[place]
            assert (held.since, held.until, held.count) == (window.since, window.until, window.count)
        end = until(table, key, model, now)
        assert end is not None and now < end <= now + 24 * HOUR
        assert soonest(table, [(key, model), ("never seen", "x:y")], now) == end
        assert all(window.count >= 1 and kind_of(window.code) for window in table.windows.values())
        # Only what shares the key is touched.
        for (holder, _), window in table.windows.items():
            if holder != key:
                assert before.get((holder, _), window) == window


LIMIT = 6
OURS, THEIRS = st.just("k"), st.integers(0, 40).map("k{}".format)


def doings(keys: Any) -> Any:
    what = st.sampled_from(["answers", "probed", "timeout", "rate_limit", "auth", "billing", "model_not_found"])
    return st.tuples(what, keys, st.sampled_from([A, B]), st.integers(0, 600 * S))


def done(table: Cooldowns, doing: Any, now: int, scope: str) -> Cooldowns:
    what, key, model, _ = doing
    if what == "answers":
        return succeeded(table, key, model, scope=scope)
    if what == "probed":
        return probed(table, key, model, now, TIMES, scope=scope)
    return fail(table, what, now, key=key, model=model, scope=scope)


either = st.one_of(st.tuples(st.just("bob"), doings(OURS)), st.tuples(st.just("ann"), doings(THEIRS)))


@given(st.lists(either, max_size=60))
def test_whatever_becomes_of_keys_of_another_scope_what_is_known_of_ones_own_is_what_it_would_be_without(
    story: Any,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reenact.actors.cooldown.WINDOWS_MAX", LIMIT)
        patch.setattr("reenact.actors.cooldown.PROBES_MAX", LIMIT)
        both, alone, now = Cooldowns(), Cooldowns(), 0
        for whose, doing in story:
            now += doing[3]
            both = done(both, doing, now, whose)
            alone = done(alone, doing, now, whose) if whose == "bob" else alone
            assert len(both.windows) <= LIMIT and len(both.probes) <= LIMIT and len(both.well) <= LIMIT
            for model in (A, B):
                assert until(both, "k", model, now) == until(alone, "k", model, now)
                assert last_probe(both, "k", model) == last_probe(alone, "k", model)
                assert is_well(both, "k", model) == is_well(alone, "k", model)


# -- what the next process knows --


def noted(*steps: Cooldowns) -> list[Any]:
    """The events of a table that changed so."""
    facts: list[Any] = []
    for before, after in pairwise((Cooldowns(), *steps)):
        note = changes(before, after, A)
        facts += [] if note is None else [*note.opened, *note.ended]
    return facts


def test_windows_that_were_noted_are_those_of_the_next_process_and_the_next_of_a_row_is_as_long() -> None:
    first = fail(Cooldowns(), "billing", 0)
    second = fail(first, "overloaded", 1, key=None, model=B)
    again = restored(noted(first, second), 2, TIMES)
    assert (again.windows, again.probes) == (second.windows, second.probes)
    late = 6 * HOUR
    over = restored(noted(first), late, TIMES)
    assert until(over, "k", A, late) is None
    assert until(fail(over, "billing", late), "k", A, late) == until(fail(first, "billing", late), "k", A, late)
    assert restored(noted(first), 48 * HOUR, TIMES) == Cooldowns()


def test_what_answered_is_noted_and_a_window_is_never_made_longer_by_a_clock_that_was_set_back() -> None:
    cools = fail(Cooldowns(), "billing", HOUR)
    assert restored(noted(cools, succeeded(cools, "k", A)), HOUR, TIMES).windows == {}
    assert restored(noted(cools), 0, TIMES).windows == {}, "it began in what is the future now"
    endless = [replace(event, until=2**62) for event in noted(cools)]
    end = until(restored(endless, HOUR, TIMES), "k", A, HOUR)
    assert end is not None and end - HOUR == LONGEST_S * S


def test_failures_within_a_window_are_not_noted() -> None:
    cools = fail(Cooldowns(), "overloaded", 0)
    assert changes(cools, fail(cools, "overloaded", S), A) is None
