"""Who is asked where a rule or a limit is in the way of the model that was to be: the next of the chain, each once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as draw
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors import failover
from reenact.actors.cooldown import Cooldowns, succeeded
from reenact.actors.failover import Exhausted, Failover, Keys, Select
from reenact.events.agent import CallModel, FailModel, ModelCalled, ModelFailed, ModelSelected, Selection, SelectModel
from reenact.events.budget import Amount, Breach, CallLimit, Grant, Rate, Terms
from reenact.events.content import Failure
from reenact.events.policy import ApplyPolicy, ModelDenied, ModelPolicy, Policy
from reenact.events.purse import (
    BudgetDegraded,
    BudgetExceeded,
    BudgetReserved,
    RefuseAllotment,
    RequestAllotment,
    TakeAllotment,
)
from reenact.events.session import Definition
from tests.actors.words import CREATE, asks, says, send, settles, waking
from tests.given import Given, given

A, B, C = "p:a", "p:b", "q:c"
NAMES = ("p:a", "p:b", "q:c", "q:d", "r:e")
CHEAP, DEAR, MOST = 10**9, 10**15, 10**9
"""Prices of a million tokens and what a ledger gives, in nano-dollars: enough for calls of what is cheap."""

S = 1_000_000
BREACH = Breach(limit="max_cost_daily", of="scope", wanted=2, most=1)


def limited(dear: set[str], chain: tuple[str, ...] = (A, B, C), denied: tuple[str, ...] = ()) -> Definition:
    rates = tuple(Rate(model, *(DEAR if model in dear else CHEAP,) * 2) for model in chain)
    terms = Terms(ledger="acme", rates=rates)
    return Definition(
        image_version=1, model=chain[0], fallbacks=chain[1:], terms=terms, policy=denying(*denied), max_steps=9
    )


def paid(stream: Given) -> list[Any]:
    """What follows when the ledger has said what it pays, as often as it is asked."""
    events = list(stream.events)
    while (ask := next((each for each in stream.owed if isinstance(each, RequestAllotment)), None)) is not None:
        grant = Grant(amount=Amount(10**9, MOST, 99, 99), needs_price=True)
        pays = ask.least.cost <= MOST
        stream.when(TakeAllotment(ask=ask.id, grant=grant) if pays else RefuseAllotment(ask=ask.id, breach=BREACH))
        events += stream.events
    return events


def selected(events: list[Any]) -> list[tuple[str, str, str | None]]:
    return [(event.model, event.reason, event.because) for event in events if isinstance(event, ModelSelected)]


def on_fallback(definition: Definition) -> Given:
    """A session without limits that went from its first model to its second."""
    free = replace(definition, terms=None, policy=())
    stream = given(CREATE, send(waking=waking(definition=free)))
    failure, select = Failure(code="auth", message="no"), Selection(model=B, reason="fallback", because="auth")
    return stream.when(FailModel(call="m1", failure=failure, select=select)).when(says("m1"))


@pytest.mark.parametrize("reason", ["probe", "primary"])
@pytest.mark.parametrize("others", [(), (C,)])
def test_given_a_first_model_that_a_ledger_does_not_pay_when_a_session_goes_back_to_it_then_its_fallback_is_asked(
    reason: str, others: tuple[str, ...]
) -> None:
    definition = limited({A}, (A, B, *others))
    stream = on_fallback(definition).when(send("job_2", waking=waking("agent_2", definition)))
    paid(stream)
    stream.when(SelectModel(call="m2", attempt=1, select=Selection(model=A, reason=reason)))
    assert selected(paid(stream)) == [(A, reason, None), (B, "fallback", "budget_exceeded")]
    effect = next(each for each in stream.owed if isinstance(each, CallModel))
    assert (effect.model, effect.barred, effect.open) == (B, (A,), (B, *others))


def test_given_a_first_model_that_a_rule_denies_later_when_it_would_be_probed_then_nobody_goes_back_to_it() -> None:
    definition = replace(limited(set(), denied=("a",)), terms=None)
    stream = on_fallback(definition).when(send("job_2", waking=waking("agent_2", definition)))
    [effect] = stream.owed
    assert isinstance(effect, CallModel) and (effect.model, effect.open) == (B, (B, C))
    keys = Keys({"p": [None], "q": [None]})
    choice, _ = failover.before(effect, keys, Cooldowns(), 10**15, Failover())
    assert choice == failover.Go(None)


def test_given_a_fallback_that_is_paid_no_more_when_its_turn_goes_on_then_the_next_of_the_chain_is_asked() -> None:
    definition = limited({A, B})
    stream = on_fallback(definition)
    free = replace(definition, terms=None)
    stream.when(send("job_2", waking=waking("agent_2", free))).when(asks("m2", "read"))
    stream.when(send("job_3", waking=waking("agent_2", definition)))
    assert stream.error is None
    for tool in [effect.id for effect in stream.owed]:
        stream.when(settles(tool))
    assert selected(paid(stream)) == [(C, "fallback", "budget_exceeded")]
    effect = next(each for each in stream.owed if isinstance(each, CallModel))
    assert (effect.model, effect.attempt, effect.step) == (C, 1, 2)


@pytest.mark.parametrize("to", [B, C])
def test_given_a_limit_that_degrades_when_a_fallback_that_costs_no_more_passes_it_then_that_goes_on(
    to: str,
) -> None:
    """It holds for the job, as any other that a budget chose; the first model, or a dearer one, would be changed."""
    definition = limited({C})
    stream = on_fallback(definition).when(send("job_2", waking=waking("agent_2", definition)))
    degrade = Grant(amount=Amount(10**9, MOST, 9, 9), degrade=True, degrade_to=to, passed=BREACH)
    stream.when(TakeAllotment(ask="w1", grant=degrade))
    assert [type(each) for each in stream.events[1:]] == [BudgetDegraded, ModelSelected, BudgetReserved, ModelCalled]
    assert selected(list(stream.events)) == [(B, "budget", None)]
    [effect] = stream.owed
    assert isinstance(effect, CallModel) and effect.degraded
    stream.when(says("m2")).when(send("job_3", waking=waking("agent_3", definition)))
    assert selected(list(stream.events)) == [(A, "primary", None)]


def denying(*models: str) -> tuple[Policy, ...]:
    return (Policy(name="house", rules=(ModelPolicy(model_patterns=models, decision="deny"),)),) if models else ()


def test_given_a_fallback_that_is_denied_while_another_is_asked_when_that_fails_then_the_next_is_asked() -> None:
    definition = replace(limited(set()), terms=None)
    stream = given(CREATE, send(waking=waking(definition=definition)), ApplyPolicy(policy=denying("b")))
    failure, select = Failure(code="auth", message="no"), Selection(model=B, reason="fallback", because="auth")
    stream.when(FailModel(call="m1", failure=failure, select=select))
    stream.then(ModelFailed, ModelSelected, ModelDenied, ModelSelected, ModelCalled)
    assert selected(list(stream.events)) == [(B, "fallback", "auth"), (C, "fallback", "policy_denied")]
    stream.when(FailModel(call="m1", failure=failure, exhausted=True))
    assert "p:b (not asked, a rule was in the way)" in stream.events[-1].failure.message


def test_given_a_limit_that_degrades_to_what_rules_deny_when_a_fallback_passes_it_then_the_next_is_asked() -> None:
    definition = limited({B}, (A, B, C, "r:e"), denied=("e",))
    definition = replace(definition, fallbacks=(B, C))
    limit = CallLimit(limit="max_cost_per_request", whose="scope", of="cost", most=MOST, degrades=True)
    grant = Grant(amount=Amount(10**9, 10**15, 9, 9), degrade_to="r:e", calls=(limit,))
    stream = given(CREATE, send(waking=waking(definition=definition)), TakeAllotment(ask="w1", grant=grant))
    failure, select = Failure(code="auth", message="no"), Selection(model=B, reason="fallback", because="auth")
    stream.when(FailModel(call="m1", failure=failure, select=select))
    assert selected(list(stream.events)) == [(B, "fallback", "auth"), (C, "fallback", "budget_exceeded")]
    [breach] = [each.breach for each in stream.events if isinstance(each, BudgetExceeded)]
    assert breach.why == "It should go on with a cheaper model: rules are in the way of r:e."


# -- the law --

CODES = st.sampled_from([None, None, "auth", "overloaded", "rate_limit", "timeout", "model_not_found"])


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    chain = NAMES[: draw(st.integers(2, 5))]
    some = st.sets(st.sampled_from(chain))
    turn = st.fixed_dictionaries(
        {
            "wait_s": st.sampled_from([1, 40, 700, 90_000]),
            "dear": some,
            "denied": st.one_of(st.just(set()), some),
            "fails": st.fixed_dictionaries(dict.fromkeys(chain, CODES)),
            "steps": st.integers(1, 3),
            "rules": st.dictionaries(st.integers(0, 6), some, max_size=3),
        }
    )
    return {"chain": chain, "turns": draw(st.lists(turn, min_size=1, max_size=4))}


@draw(worlds())
def test_whatever_refuses_and_fails_no_model_is_refused_twice_in_a_call_and_a_turn_ends_when_nobody_is_left(
    world: dict[str, Any],
) -> None:
    """Selections of a call are no more than its models, once more each for a probe; but for the first one, in a call of
    its own, a turn ends with a limit or a rule when each model was refused, failed, or is denied."""
    chain, keys = world["chain"], Keys({"p": [None], "q": [None], "r": [None]})
    stream, table, now, model = given(CREATE), Cooldowns(), S, world["chain"][0]
    for number, turn in enumerate(world["turns"], start=1):
        now += turn["wait_s"] * S
        stream.at = now
        denied = tuple(each.partition(":")[2] for each in turn["denied"])
        definition = limited(turn["dear"], chain, denied)
        stream.when(send(f"job_{number}", waking=waking(f"agent_{number}", definition)))
        events = paid(stream)
        for step in range(200):
            effects = [each for each in stream.owed if isinstance(each, CallModel)]
            if not stream.owed:
                break
            if effects:
                command, table = _asked(effects[0], keys, table, now, turn)
                stream.when(command)
            else:
                stream.when(settles(stream.owed[0].id))
            assert stream.error is None and step < 199, "it goes on for ever"
            events += paid(stream)
            if step in turn["rules"]:
                later = [each.partition(":")[2] for each in turn["rules"][step]]
                stream.when(ApplyPolicy(policy=denying(*later), terms=definition.terms))
                turn["denied"] = turn["denied"] | turn["rules"][step]
                events += paid(stream)
        model = assert_each_once(events, model, chain, turn)


def _asked(effect: CallModel, keys: Keys, table: Cooldowns, now: int, turn: dict[str, Any]) -> tuple[Any, Cooldowns]:
    choice, table = failover.before(effect, keys, table, now, Failover(retries=0))
    if isinstance(choice, Select):
        return SelectModel(
            call=effect.id, attempt=effect.attempt, select=failover.held(effect, choice.selection)
        ), table
    if isinstance(choice, Exhausted):
        failure = Failure(code="cooldown", message="", tried=choice.unasked)
        return FailModel(call=effect.id, failure=failure, exhausted=True, unasked=True), table
    code = turn["fails"][effect.model]
    if code is None:
        table = succeeded(table, None, effect.model)
        return (says(effect.id) if effect.step >= turn["steps"] else asks(effect.id, "read")), table
    failure = Failure(code=code, message=code)
    then, table = failover.after(effect, failure, None, keys, table, now, Failover(retries=0), wait_s=None)
    select = failover.held(effect, then.selection) if isinstance(then, Select) else None
    return FailModel(call=effect.id, failure=failure, select=select, exhausted=isinstance(then, Exhausted)), table


def assert_each_once(events: list[Any], model: str, chain: tuple[str, ...], turn: dict[str, Any]) -> str:
    """Call by call. model: the one in force before. Gives the one that is after them."""
    refused: list[str] = []
    failed: list[str] = []
    selections, asked = 0, ""
    for event in events:
        match event:
            case BudgetExceeded() | ModelDenied():
                refused.append(model)
            case ModelSelected(noted=False):
                selections, model = selections + 1, event.model
            case ModelCalled():
                asked = event.model
            case ModelFailed(unasked=False):
                failed.append(asked)
        if type(event).__name__ in ("ModelAnswered", "TurnCompleted"):
            assert len(refused) == len(set(refused)), "a model was refused twice in a call"
            assert not set(refused) & set(failed), "what failed was asked for again, or what was refused was asked"
            assert selections <= 2 * len(chain)
            code = None if getattr(event, "failure", None) is None else event.failure.code
            first = refused[-1:] == [chain[0]] and asked in ("", chain[0])
            if code in ("budget_exceeded", "policy_denied") and not first:
                assert not set(chain) - set(refused) - set(failed) - turn["denied"], "somebody is left"
            refused, failed, selections, asked = [], [], 0, ""
    return model
