"""What a turn begins with in a session that fell back: the first of its chain, where its fallback may not be asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as draw
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.events.action import ActionRequired
from reenact.events.agent import CallModel, FailModel, ModelCalled, ModelSelected, Selection, TurnCompleted, TurnStarted
from reenact.events.budget import Amount, Breach, BudgetSpec, Grant, Rate, Terms
from reenact.events.content import Failure
from reenact.events.policy import ConstraintPolicy, ModelDenied, ModelPolicy, Policy
from reenact.events.purse import AllotmentTaken, AllotmentWanted, BudgetExceeded, RefuseAllotment, TakeAllotment
from reenact.events.session import Definition, JobFailed
from tests.actors.words import CREATE, says, send, waking
from tests.given import Given, given

A, B, C = "p:a", "p:b", "q:c"
DEFINITION = Definition(image_version=1, model=A, fallbacks=(B, C))
CHEAP, DEAR = Rate(A, 10**9, 10**9), Rate(B, 10**15, 10**15)  # of a million tokens, in nano-dollars
TERMS = Terms(rates=(CHEAP, DEAR))


def policy(*rules: Any) -> tuple[Policy, ...]:
    return (Policy(name="house", version="1", rules=rules),)


def denies(*models: str) -> tuple[Policy, ...]:
    return policy(ModelPolicy(model_patterns=models, decision="deny"))


def fell_back(*to: str) -> Given:
    """A session whose first model was busy for a moment, and that nothing limits."""
    stream = given(CREATE, send(waking=waking(definition=DEFINITION)))
    for model in to or (B,):
        failure = Failure(code="rate_limit", message="busy")
        select = Selection(model=model, reason="fallback", because="rate_limit")
        stream.when(FailModel(call="m1", failure=failure, select=select))
    return stream.when(says("m1"))


def then_sent(stream: Given, **limits: Any) -> Given:
    """Its next message, under other limits."""
    return stream.when(send("job_2", waking=waking("agent_2", replace(DEFINITION, **limits))))


def begins_with(stream: Given) -> list[str]:
    return [event.model for event in stream.events if isinstance(event, ModelSelected | ModelCalled)]


def test_a_fallback_that_a_rule_denies_since_then_is_left_for_the_first_model() -> None:
    stream = then_sent(fell_back(), policy=denies("b"))
    assert begins_with(stream) == [A, A] and stream.owed[0].chain == (A, C)
    assert not any(isinstance(event, ModelDenied) for event in stream.events)


@pytest.mark.parametrize(
    "limits",
    [
        {"policy": policy(ConstraintPolicy(max_cost_per_request=1)), "terms": TERMS},
        {"policy": policy(ConstraintPolicy(max_cost_per_request=1)), "terms": replace(TERMS, rates=(CHEAP,))},
        {"terms": replace(TERMS, spec=BudgetSpec(max_cost=1))},
        {"terms": replace(TERMS, rates=(CHEAP,), spec=BudgetSpec(max_cost=1))},
        {"terms": replace(TERMS, spec=BudgetSpec(max_cost=1, on_breach="ask"))},
    ],
    ids=[
        "too dear for a rule",
        "no price for a rule",
        "too dear for a run",
        "no price for a run",
        "a person may raise it",
    ],
)
def test_a_fallback_that_is_not_paid_for_since_then_is_left_for_the_first_model(limits: Any) -> None:
    stream = then_sent(fell_back(), **limits)
    assert begins_with(stream) == [A, A]
    assert not any(isinstance(event, ModelDenied | BudgetExceeded | ActionRequired) for event in stream.events)


@pytest.mark.parametrize("asks", [False, True])
def test_a_fallback_that_the_ledger_does_not_pay_for_is_left_for_the_first_model(asks: bool) -> None:
    """Nobody is asked to raise a limit for it, and what a person is asked next is not about that limit."""
    rule = policy(ModelPolicy(model_patterns=("a",), require_approval=True)) if asks else ()
    stream = then_sent(fell_back(), terms=replace(TERMS, ledger="acme"), policy=rule)
    breach = Breach(limit="max_cost_daily", of="scope", wanted=2, most=1, asks=asks)
    stream.when(RefuseAllotment(ask="w1", breach=breach))
    if asks:
        assert stream.events[-2].payload == {"model": A} and stream.states[1].purse.raising is None
        return
    stream.then(BudgetExceeded, ModelSelected, AllotmentWanted).owes("w2")
    grant = Grant(amount=Amount(10**6, 10**9, 9, 9))
    stream.when(TakeAllotment(ask="w2", grant=grant))
    assert isinstance(stream.events[0], AllotmentTaken) and begins_with(stream) == [A]


def test_what_is_in_the_way_of_the_first_model_too_ends_the_turn() -> None:
    stream = then_sent(fell_back(), policy=denies("a", "b"))
    kinds = [type(event) for event in stream.events]
    assert kinds[kinds.index(TurnStarted) :] == [TurnStarted, ModelSelected, ModelDenied, TurnCompleted, JobFailed]


@pytest.mark.parametrize(
    "limits",
    [
        {"policy": policy(ConstraintPolicy(max_cost_per_request=1)), "terms": TERMS},
        {"terms": replace(TERMS, spec=BudgetSpec(max_cost=1))},
    ],
    ids=["rule", "run"],
)
def test_a_fallback_that_would_cost_more_than_a_call_may_is_passed_over(limits: Any) -> None:
    terms = replace(limits["terms"], rates=(CHEAP, DEAR, replace(CHEAP, model=C)))
    stream = given(CREATE, send(waking=waking(definition=replace(DEFINITION, **{**limits, "terms": terms}))))
    assert stream.owed[0].chain == (A, C)


# -- the law --

RATES = st.sampled_from([None, (10**9, 10**9), (10**12, 10**12), (10**15, 10**15)])
DECISIONS = st.sampled_from(["allow", "warn", "require_approval", "deny"])
SPECS = st.sampled_from([None, BudgetSpec(max_cost=1), BudgetSpec(max_tokens=10), BudgetSpec(max_tokens=10**6)])


@draw(
    st.tuples(DECISIONS, DECISIONS, DECISIONS),
    st.tuples(RATES, RATES, RATES),
    SPECS,
    st.sampled_from([None, "0.01", 1]),
    st.sampled_from([None, 10**6, 10**12]),
    st.lists(st.sampled_from([B, C]), min_size=1, max_size=2, unique=True),
)
def test_whatever_lets_a_new_session_call_a_model_lets_one_that_fell_back(
    said: Any, prices: Any, spec: Any, per_call: Any, allots: int | None, to: list[str]
) -> None:
    """By any rules, prices, limits of a run, of a call, and a ledger that pays for what costs no more than `allots`."""
    rules: list[Any] = [ModelPolicy(model_patterns=(m,), decision=d) for m, d in zip("abc", said, strict=True)]
    if per_call is not None:
        rules.append(ConstraintPolicy(max_cost_per_request=per_call))
    rates = tuple(Rate(m, *price) for m, price in zip((A, B, C), prices, strict=True) if price is not None)
    terms = Terms(spec=spec, ledger=None if allots is None else "acme", rates=rates)
    limits = {"policy": policy(*rules), "terms": terms}
    new = _goes_on(given(CREATE, send(waking=waking("agent_2", replace(DEFINITION, **limits)))), allots)
    old = _goes_on(then_sent(fell_back(*to), **limits), allots)
    assert old == new or old in ("called", "asked")


def _goes_on(stream: Given, allots: int | None) -> str:
    """What becomes of the turn that is about to begin: a model is called, a person is asked, or it is over."""
    for _ in range(4):
        wanted = next((effect for effect in stream.owed if effect.id.startswith("w")), None)
        if wanted is None:
            break
        grant = Grant(amount=Amount(10**9, allots or 0, 9, 9), needs_price=True)
        breach = Breach(limit="max_cost_daily", of="scope", wanted=wanted.least.cost, most=allots or 0)
        pays = wanted.priced and wanted.least.cost <= (allots or 0)
        ask = wanted.id
        stream.when(TakeAllotment(ask=ask, grant=grant) if pays else RefuseAllotment(ask=ask, breach=breach))
    if any(isinstance(effect, CallModel) for effect in stream.owed):
        return "called"
    return "asked" if stream.owed else "over"
