"""A ledger: what it allots, what it denies, and the law that no interleaving gets past."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors.book import State, used
from reenact.actors.calendar import month_of
from reenact.actors.judge import judge
from reenact.actors.ledger import LEDGER, recall
from reenact.events.budget import (
    LIMITS,
    NOTHING,
    Amount,
    Breach,
    Budget,
    BudgetSpec,
    Grant,
    Raise,
    budget_of,
    nanos,
    spec_of,
)
from reenact.events.errors import BadInput
from reenact.events.ledger import (
    Allot,
    AllotmentDenied,
    AllotmentReturned,
    Allotted,
    BudgetRaised,
    BudgetRemoved,
    BudgetSet,
    RaiseBudget,
    RecordUsage,
    RemoveBudget,
    ReturnAllotment,
    SetBudget,
)
from tests.given import Given, given

DAY_US = 86_400_000_000
NOON = 20_000 * DAY_US + DAY_US // 2


def ledger(*past: Any) -> Given:
    return given(*past, noun=LEDGER)


def limit(**fields: Any) -> SetBudget:
    return SetBudget(budget=Budget(**fields), at=NOON)


def allot(
    session: str = "s",
    ask: str = "w1",
    *,
    tokens: int = 0,
    cost: int = 0,
    requests: int = 0,
    tools: int = 0,
    spent: Amount = NOTHING,
    at: int = NOON,
    principal: str = "ann",
    **fields: Any,
) -> Allot:
    want = Amount(tokens, cost, requests, tools)
    fields.setdefault("last", True)
    return Allot(
        session_id=session, principal_id=principal, ask=ask, spent=spent, want=want, least=want, at=at, **fields
    )


def back(
    session: str = "s", ask: str = "w1", *, spent: Amount = NOTHING, kept: Amount = NOTHING, at: int = NOON
) -> Any:
    return ReturnAllotment(session_id=session, ask=ask, spent=spent, kept=kept, at=at)


def granted(stream: Given) -> Grant:
    [event] = stream.events
    assert isinstance(event, Allotted)
    return event.grant


def denied(stream: Given) -> Breach:
    [event] = stream.events
    assert isinstance(event, AllotmentDenied)
    return event.breach


# -- what is allotted --


def test_without_a_limit_a_session_is_allotted_many_times_what_it_wants() -> None:
    assert granted(ledger().when(allot(tokens=100, requests=1))).amount == Amount(6400, 0, 64, 0)


def test_near_a_limit_it_is_allotted_what_it_wants_and_no_more() -> None:
    stream = ledger(limit(max_tokens_total=1000)).when(allot(tokens=900))
    assert granted(stream).amount.tokens == 900


def test_what_is_used_and_wanted_together_may_be_the_limit_itself() -> None:
    stream = ledger(limit(max_tokens_total=1000)).when(allot(tokens=1000))
    assert granted(stream).amount.tokens == 1000
    assert denied(stream.when(allot("other", tokens=1))) == Breach(
        limit="max_tokens_total", of="scope", used=1000, wanted=1, most=1000
    )


def test_it_takes_less_than_it_wants_where_that_is_enough() -> None:
    want, least = Amount(tokens=800), Amount(tokens=100)
    ask = Allot(session_id="t", principal_id="ann", ask="w1", spent=NOTHING, want=want, least=least, at=NOON)
    stream = ledger(limit(max_tokens_total=1000), allot(tokens=800)).when(ask)
    assert granted(stream).amount.tokens == 200


def test_the_same_ask_has_one_answer() -> None:
    stream = ledger(limit(max_tokens_total=1000), allot(tokens=900))
    stream.when(allot(tokens=900)).then_nothing()
    stream.when(allot("t", tokens=900)).then(AllotmentDenied)
    stream.when(allot("t", tokens=900)).then_nothing()


def test_an_ask_that_comes_after_a_later_one_is_passed_over() -> None:
    ledger(allot(ask="w7", tokens=1)).when(allot(ask="w6", tokens=1)).then_nothing()


def test_asking_again_gives_back_what_was_held_and_settles_what_was_spent() -> None:
    stream = ledger(limit(max_tokens_total=1000), allot(tokens=900))
    assert granted(stream.when(allot(ask="w2", tokens=900, spent=Amount(tokens=100)))).amount.tokens == 900
    assert denied(stream.when(allot(ask="w3", tokens=800, spent=Amount(tokens=300)))).used == 300


def test_what_a_session_gives_back_others_may_have() -> None:
    stream = ledger(limit(max_tokens_total=1000), allot(tokens=900))
    stream.when(allot("t", tokens=500)).then(AllotmentDenied)
    stream.when(back(spent=Amount(tokens=300), kept=Amount(tokens=100))).then(AllotmentReturned)
    stream.when(allot("t", "w2", tokens=600)).then(Allotted)


def test_nothing_is_denied_before_others_were_asked_for_what_they_hold() -> None:
    stream = ledger(limit(max_tokens_total=1000), allot(tokens=900))
    stream.when(allot("t", tokens=500, last=False)).then_nothing()
    stream.when(allot("t", tokens=1001, last=False)).then(AllotmentDenied)  # nobody could give back that much


def test_the_last_word_is_said_in_the_state_in_which_nobody_had_anything_to_give_back() -> None:
    stream = ledger(limit(max_tokens_total=1000), allot(tokens=900))
    seen = stream.version
    stream.when(allot("t", tokens=500, seen=seen)).then(AllotmentDenied)
    stream.when(allot("t", "w2", tokens=500, seen=seen)).then_nothing()


def test_what_comes_back_of_an_earlier_allotment_or_too_late_is_passed_over() -> None:
    stream = ledger(allot(tokens=100), allot(ask="w2", tokens=100, spent=Amount(tokens=50)))
    stream.when(back(ask="w1", spent=Amount(tokens=60))).then_nothing()
    stream.when(back(ask="w2", spent=Amount(tokens=40))).then_nothing()
    stream.when(back("nobody")).then_nothing()


def test_no_session_gets_more_by_giving_back() -> None:
    stream = ledger(limit(max_tokens_total=100), allot(tokens=100))
    stream.when(back(spent=Amount(tokens=1), kept=Amount(tokens=10**6)))
    [account] = stream.states[0].accounts.values()
    assert account.held.tokens == 100


# -- every kind of limit --


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


# -- whose limit --


def test_a_limit_of_a_scope_counts_everybody_in_it() -> None:
    stream = ledger(limit(max_tokens_total=100), allot("a", tokens=60, principal="ann"))
    stream.when(allot("b", tokens=60, principal="bob")).then(AllotmentDenied)


def test_a_limit_of_a_principal_counts_that_one_alone() -> None:
    stream = ledger(limit(principal_id="ann", max_tokens_total=100), allot("a", tokens=60, principal="ann"))
    assert denied(stream.when(allot("b", tokens=60, principal="ann"))).of == "principal"
    assert granted(stream.when(allot("c", tokens=60, principal="bob"))).amount.tokens == 3840


def test_a_limit_of_a_session_counts_that_one_alone() -> None:
    stream = ledger(limit(session_id="a", max_tokens_total=100), allot("a", tokens=60))
    assert denied(stream.when(allot("a", "w2", tokens=60, spent=Amount(tokens=60)))).of == "session"
    stream.when(allot("b", tokens=600)).then(Allotted)


def test_names_with_colons_are_not_mixed_up() -> None:
    stream = ledger(
        limit(principal_id="a:b", max_tokens_total=10),
        limit(session_id="a:b", max_tokens_total=1000),
        allot("x", tokens=9),
    )
    stream.when(allot("a:b", tokens=500, principal="a")).then(Allotted)
    stream.when(allot("b", tokens=500, principal="a:")).then(Allotted)
    assert denied(stream.when(allot("z", tokens=11, principal="a:b"))).of == "principal"


def test_a_message_of_another_principal_is_not_paid_by_the_first() -> None:
    stream = ledger(
        limit(principal_id="ann", max_tokens_total=100),
        allot("s", tokens=60, principal="ann"),
        allot("s", "w2", tokens=60, principal="bob", spent=Amount(tokens=10)),
    )
    assert stream.states[0].sums[("principal", "ann")].total.tokens == 10
    assert stream.states[0].sums[("principal", "bob")].out.tokens == 60 * 64


# -- the worst of what the limits say --


def test_a_warning_of_one_limit_does_not_hide_the_denial_of_another() -> None:
    stream = ledger(
        limit(max_tokens_total=100, warning_threshold=0.1, exceed_strategy="warn"),
        limit(principal_id="ann", max_cost_total="0.00000001"),
    )
    assert denied(stream.when(allot(tokens=500, cost=11))).limit == "max_cost_total"


def test_degrading_is_worse_than_warning_and_both_let_it_go_on() -> None:
    stream = ledger(
        limit(max_tokens_total=100, exceed_strategy="warn"),
        limit(session_id="s", max_tokens_total=50, exceed_strategy="degrade", degrade_to="scripted:hello"),
    )
    grant = granted(stream.when(allot(tokens=500)))
    assert (grant.degrade, grant.degrade_to) == (True, "scripted:hello")
    assert grant.warned == ("max_tokens_total of the scope", "max_tokens_total of the session")
    assert grant.amount.tokens == 500, "and nothing on top"


def test_from_its_threshold_on_a_limit_is_warned_of() -> None:
    stream = ledger(limit(max_tokens_total=1000, warning_threshold=0.8))
    assert granted(stream.when(allot(tokens=800))).warned == ()
    assert granted(stream.when(allot("t", tokens=1))).warned == ("max_tokens_total of the scope",)


def test_a_model_without_a_price_is_refused_where_money_is_limited() -> None:
    stream = ledger(limit(max_cost_daily=1))
    breach = denied(stream.when(allot(tokens=1, priced=False)))
    assert (breach.code, breach.limit) == ("unpriced", "max_cost_daily")
    stream.when(limit(max_cost_daily=1, unpriced="allow")).then(BudgetSet)
    stream.when(allot(ask="w2", tokens=1, priced=False)).then(Allotted)
    ledger(limit(max_tokens_daily=10)).when(allot(tokens=1, priced=False)).then(Allotted)


# -- limits that are changed --


def test_what_was_allotted_under_other_limits_is_called_back() -> None:
    stream = ledger(limit(max_tokens_total=10**6), allot("a", tokens=60), allot("b", tokens=60)).owes()
    stream.when(limit(max_tokens_total=0)).owes("a:w1", "b:w1")
    stream.when(back("a", spent=Amount(tokens=30), kept=Amount(tokens=20))).then(AllotmentReturned).owes("b:w1")
    stream.when(allot("b", "w2", tokens=60, spent=Amount(tokens=50))).then(AllotmentDenied).owes()


def test_one_that_has_spent_nothing_of_it_and_keeps_it_all_has_heard_of_it_too() -> None:
    stream = ledger(limit(max_tokens_total=100), allot("a", tokens=90), limit(max_tokens_total=0))
    held = stream.states[0].accounts["a"].held
    stream.when(back("a", kept=held)).then(AllotmentReturned).owes()
    stream.when(back("a", kept=held)).then_nothing()


def test_a_limit_of_a_session_calls_back_what_that_one_holds_and_one_of_a_principal_all_there_is() -> None:
    stream = ledger(allot("a", tokens=60), allot("b", tokens=60, principal="bob"))
    stream.when(limit(session_id="a", max_tokens_total=10)).owes("a:w1")
    stream.when(limit(principal_id="bob", max_tokens_total=10)).owes("a:w1", "b:w1")


def test_what_is_lifted_or_raised_is_called_back_as_well() -> None:
    """The limits of a single call came with it, and that it needs a price."""
    stream = ledger(limit(max_tokens_per_request=10), allot("a", tokens=6))
    stream.when(limit(max_tokens_per_request=100)).owes("a:w1")
    stream.when(back("a")).then(AllotmentReturned)
    stream.when(allot("a", "w2", tokens=60)).then(Allotted).owes()
    stream.when(RemoveBudget(at=NOON)).owes("a:w2")


def test_a_limit_set_again_calls_nothing_back() -> None:
    stream = ledger(limit(max_tokens_total=100), allot("a", tokens=60))
    stream.when(limit(max_tokens_total=100)).then_nothing().owes()


def test_limits_that_were_set_by_an_earlier_release_call_nothing_back() -> None:
    ledger(
        limit(max_tokens_total=100), allot("a", tokens=60), BudgetSet(budget=Budget(max_tokens_total=1), at=1)
    ).owes()


# -- limits that people raise --


def raises(session: str = "s", action: str = "a1", *, most: int = 100, by: int = 50, **fields: Any) -> RaiseBudget:
    of = {"limit": "max_tokens_total", "of": "scope", "principal": "boss", **fields}
    consent = Raise(action=action, most=most, by=by, **of)
    return RaiseBudget(session_id=session, principal_id="ann", consent=consent, at=NOON)


def test_a_consent_raises_a_limit_once_and_by_what_was_shown() -> None:
    stream = ledger(limit(max_tokens_total=100, on_breach="ask"), allot(tokens=100))
    assert denied(stream.when(allot("t", tokens=20))).asks
    stream.when(raises("t")).then(BudgetRaised)
    assert stream.events[0].most == 150  # type: ignore[attr-defined]
    stream.when(raises("t")).then_nothing()
    stream.when(raises("t", "a2", by=7)).then_nothing()
    stream.when(raises("u")).then_nothing()
    stream.when(raises("u", most=150, by=7)).then(BudgetRaised)
    assert stream.states[0].budgets[0].budget.max_tokens_total == 100 + 50 + 7
    stream.when(allot("t", "w2", tokens=20)).then(Allotted)


def test_what_an_older_release_raised_from_a_limit_that_was_raised_since_is_decided_again_as_it_was() -> None:
    stream = ledger(limit(max_tokens_total=100, on_breach="ask"))
    stream.when(raises("t"))
    stream.when(replace(raises("u"), as_shown=False)).then(BudgetRaised)
    assert stream.states[0].budgets[0].budget.max_tokens_total == 200
    assert recall("raise_budget", stream.events) == replace(raises("u"), as_shown=False)


def test_a_consent_that_comes_again_raises_nothing_whatever_became_of_the_limit_since() -> None:
    stream = ledger(limit(max_tokens_total=100, on_breach="ask"), raises("t"))
    stream.when(limit(max_tokens_total=100, on_breach="ask"))
    stream.when(raises("t")).then_nothing()
    stream.when(replace(raises("t"), as_shown=False)).then_nothing()
    stream.when(limit(max_tokens_total=99, on_breach="ask"))
    stream.when(replace(raises("u"), as_shown=False)).then_nothing()


def test_a_consent_to_a_limit_that_was_lowered_or_lifted_since_is_void() -> None:
    stream = ledger(limit(max_tokens_total=100, on_breach="ask"), limit(max_tokens_total=0, on_breach="ask"))
    stream.when(raises()).then_nothing()
    stream.when(RemoveBudget(at=NOON))
    stream.when(raises()).then_nothing()
    stream.when(raises(limit="max_nonsense")).then_nothing()


def test_a_consent_raises_the_limit_it_is_of_and_no_other() -> None:
    stream = ledger(limit(max_tokens_total=100), limit(principal_id="ann", max_tokens_total=100, on_breach="ask"))
    stream.when(raises(of="principal")).then(BudgetRaised)
    assert [each.budget.max_tokens_total for each in stream.states[0].budgets] == [100, 150]


def test_nobody_is_asked_about_a_minute_or_a_single_call() -> None:
    fields: dict[str, Any] = {"max_requests_per_minute": 0, "max_tokens_per_request": 1, "on_breach": "ask"}
    stream = ledger(limit(**fields))
    assert not denied(stream.when(allot(requests=1))).asks
    assert not denied(stream.when(allot(ask="w2", tokens=2))).asks


def test_asking_is_for_limits_that_deny() -> None:
    with pytest.raises(BadInput, match="limits that deny"):
        budget_of({"max_tokens_total": 1, "exceed_strategy": "warn", "on_breach": "ask"})
    with pytest.raises(BadInput, match="on_breach"):
        budget_of({"max_tokens_total": 1, "on_breach": "perhaps"})


def test_nobody_is_asked_about_calls_of_tools() -> None:
    pair: dict[str, Any] = {"max_tool_calls_daily": 1, "max_tokens_total": 1, "on_breach": "ask"}
    for each in (pair, Budget(**pair)):
        with pytest.raises(BadInput, match="Nobody is asked about calls of tools"):
            budget_of(each)
    run: dict[str, Any] = {"max_tool_calls": 1, "on_breach": "ask"}
    for spec in (run, BudgetSpec(**run)):
        with pytest.raises(BadInput, match="Nobody is asked about calls of tools"):
            spec_of(spec)


def test_a_session_that_knows_only_of_some_limit_of_money_names_none() -> None:
    assert "and there is a limit of money:" in Breach(code="unpriced", limit="max_cost", of="scope").text
    assert "max_cost of the run is a limit" in Breach(code="unpriced", limit="max_cost", of="run").text
    assert "max_cost_daily of the scope is" in Breach(code="unpriced", limit="max_cost_daily", of="scope").text


# -- setting limits --


def test_a_limit_set_again_is_no_news_and_another_one_takes_its_place() -> None:
    stream = ledger(limit(max_tokens_total=10))
    stream.when(limit(max_tokens_total=10)).then_nothing()
    stream.when(limit(max_tokens_total=20)).then(BudgetSet)
    assert len(stream.states[0].budgets) == 1
    stream.when(RemoveBudget(at=NOON)).then(BudgetRemoved)
    stream.when(RemoveBudget(at=NOON)).then_nothing()
    stream.when(allot(tokens=10**6)).then(Allotted)


def test_what_was_used_before_a_limit_was_set_counts() -> None:
    stream = ledger(allot(tokens=60), back(spent=Amount(tokens=60)), limit(max_tokens_daily=100))
    assert denied(stream.when(allot("t", tokens=60))).used == 60


def test_what_was_used_outside_counts_however_much_there_is_of_it() -> None:
    stream = ledger(limit(max_tokens_total=10**12))
    for n in range(3):
        usage = RecordUsage(
            entry=f"e{n}", kind="model_usage", at=NOON, input_tokens=10**11, output_tokens=1, cost="0.5"
        )
        stream.when(usage)
    sums = stream.states[0].sums[("scope", "")]
    assert sums.total == Amount(3 * 10**11 + 3, 3 * nanos("0.5"), 3, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens_daily": -1},
        {"max_tokens_daily": True},
        {"max_tokens_daily": 1.5},
        {"max_tokens_daily": "many"},
        {"max_tokens_daily": 10**30},
        {"max_cost_daily": -1},
        {"max_cost_daily": float("nan")},
        {"max_cost_daily": float("inf")},
        {"max_cost_daily": Decimal("NaN")},
        {"max_cost_daily": "sNaN"},
        {"max_cost_daily": "1e400"},
        {"max_cost_daily": True},
        {"max_cost_daily": "0.0000000001"},
        {"max_cost_daily": [1]},
        {"warning_threshold": 0},
        {"warning_threshold": float("nan")},
        {"warning_threshold": 1.1},
        {"warning_threshold": True},
        {"exceed_strategy": "explode"},
        {"exceed_strategy": ["deny"]},
        {"unpriced": "maybe"},
        {"principal_id": ""},
        {"principal_id": "a\nb"},
        {"max_tokens_hourly": 3},
        {"maxTokensDaily": 1, "max_tokens_daily": 1},
        7j,
        None,
        [],
        "ten dollars",
        True,
        float("nan"),
    ],
    ids=repr,
)
def test_a_limit_that_is_none_is_refused_by_one_name(fields: Any) -> None:
    with pytest.raises(BadInput):
        budget_of(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": -1},
        {"max_cost": float("inf")},
        {"max_turns": 1.5},
        {"max_tool_calls": True},
        {"max_runtime_seconds": 0},
        {"max_runtime_seconds": float("nan")},
        {"max_runtime_seconds": 10**12},
        {"max_money": 1},
        "a lot",
        -1,
    ],
    ids=repr,
)
def test_a_limit_of_a_run_that_is_none_is_refused_by_one_name(fields: Any) -> None:
    with pytest.raises(BadInput):
        spec_of(fields)


def test_money_is_kept_exactly_as_it_was_written() -> None:
    assert Budget(max_cost_daily=Decimal("100.00")).max_cost_daily == "100"
    assert Budget(max_cost_daily=0.1).max_cost_daily == "0.1"
    assert budget_of("$2.50").max_cost_total == "2.5"
    assert spec_of("0.50") == BudgetSpec(max_cost="0.5")
    assert budget_of({"maxCostDaily": 1, "warning_threshold": 0.5}) == Budget(max_cost_daily=1, warning_threshold=0.5)


def test_a_budget_that_limits_nothing_is_refused() -> None:
    ledger().when(SetBudget(budget=Budget(), at=NOON)).then_refused(BadInput, "limits nothing")
    both = Budget(principal_id="a", session_id="s", max_tokens_total=1)
    ledger().when(SetBudget(budget=both, at=NOON)).then_refused(BadInput, "not of both")


# -- the law --


def _spend(sessions: dict[str, Any], name: str, part: float) -> Amount:
    """A session spends a part of what it may."""
    mine = sessions[name]
    may = mine["ceiling"] - mine["spent"]
    now = Amount(*(int(getattr(may, of) * part) for of in Amount.__struct_fields__))
    mine["spent"] = mine["spent"] + now
    return now


@for_all(data=st.data())
def test_what_is_settled_and_set_aside_never_passes_a_limit(data: st.DataObject) -> None:
    """Sessions that keep to their allotments, asking, spending and giving back in any order, over days."""
    most = {limit.name: data.draw(st.none() | st.integers(1, 200), label=limit.name) for limit in LIMITS}
    fields: dict[str, Any] = {name: value for name, value in most.items() if value is not None}
    fields = {name: Decimal(value) / 10**9 if "cost" in name else value for name, value in fields.items()}
    fields.setdefault("max_tokens_total", 100)
    budgets = [Budget(**fields), Budget(principal_id="p0", max_tokens_daily=50, max_requests_daily=5)]
    stream = ledger(*(SetBudget(budget=budget, at=NOON) for budget in budgets))
    sessions: dict[str, Any] = {
        f"s{n}": {"spent": NOTHING, "ceiling": NOTHING, "asks": 0, "ask": "", "principal": f"p{n % 2}"}
        for n in range(4)
    }
    at, truth = NOON, NOTHING
    for _ in range(data.draw(st.integers(1, 25))):
        name = data.draw(st.sampled_from(sorted(sessions)))
        mine = sessions[name]
        at += data.draw(st.sampled_from([0, 1_000_000, 30_000_000, 61_000_000, DAY_US, -DAY_US]))
        match data.draw(st.sampled_from(["ask", "ask", "spend", "back"])):
            case "ask":
                mine["asks"] += 1
                mine["ask"], mine["ceiling"] = f"w{mine['asks']}", mine["spent"]
                want = Amount(*(data.draw(st.integers(0, 60)) for _ in range(4)))
                stream.when(
                    allot(
                        name,
                        mine["ask"],
                        tokens=want.tokens,
                        cost=want.cost,
                        requests=want.requests,
                        tools=want.tools,
                        spent=mine["spent"],
                        principal=mine["principal"],
                        at=at,
                    )
                )
                assert stream.error is None
                if isinstance(stream.events[0], Allotted):
                    mine["ceiling"] = mine["spent"] + stream.events[0].grant.amount
            case "spend":
                truth += _spend(sessions, name, data.draw(st.floats(0, 1)))
            case "back":
                if data.draw(st.booleans()):
                    mine["ceiling"] = mine["spent"]
                stream.when(back(name, mine["ask"], spent=mine["spent"], kept=mine["ceiling"] - mine["spent"], at=at))
        holds(stream.states[0])
    for name, mine in sessions.items():
        stream.when(back(name, mine["ask"], spent=mine["spent"], at=at))
    assert stream.states[0].sums.get(("scope", ""), None) is None or stream.states[0].sums[("scope", "")].total == truth
    assert stream.states[0].overrun == NOTHING


def holds(state: State) -> None:
    """What is settled and set aside of every limit that denies is at most the limit, but for what calls overran."""
    for standing in state.budgets:
        sums = state.sums.get(standing.key)
        if sums is None or standing.budget.exceed_strategy != "deny":
            continue
        for limit, most in standing.limits:
            settled, out = used(sums, limit, state.now)
            assert settled + out <= most + getattr(state.overrun, limit.of), (limit.name, settled, out, most)


def test_what_a_call_cost_beyond_what_was_set_aside_is_settled_and_named() -> None:
    stream = ledger(limit(max_tokens_total=100), allot(tokens=90), back(spent=Amount(tokens=120)))
    assert stream.states[0].overrun.tokens == 30
    holds(stream.states[0])
    assert denied(stream.when(allot("t", tokens=1))).used == 120


def test_a_look_changes_nothing() -> None:
    stream = ledger(limit(max_tokens_total=100), allot(tokens=90))
    before = stream.states
    judged = judge(stream.states[0], "ann", "t", Amount(tokens=20), Amount(tokens=20))
    assert judged.breach is not None and judged.breach.used == 90
    assert stream.states == before
