"""Who is asked when a model does not answer: the laws of it, over any world that fails as it likes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors import failover
from reenact.actors.cooldown import Cooldowns, CooldownTimes, failed, probed, succeeded, until
from reenact.actors.failover import Exhausted, Failover, Go, Keys, Retry, Select, Stop, in_order
from reenact.actors.selection import chain_of, summary
from reenact.events.action import (
    ActionRequired,
    ActionResolved,
    CancelAction,
    ExpireAction,
    ResolveAction,
)
from reenact.events.agent import (
    AgentConfigured,
    CallModel,
    FailModel,
    Interrupt,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    RecoverEffect,
    Selection,
    SelectModel,
    TurnCompleted,
)
from reenact.events.content import Failure, Tried
from reenact.events.policy import ModelDenied, ModelPolicy, Policy
from reenact.events.session import Definition, JobCancelled, JobFailed, JobResumed, JobWaiting, Overrides
from tests.actors.words import CREATE, asks, says, send, settles, waking
from tests.given import Given
from tests.given import given as stream_of

A, B, C = "p:a", "p:b", "q:c"
DEFINITION = Definition(image_version=1, model=A, fallbacks=(B, C))
S = 1_000_000


def awake(definition: Definition = DEFINITION, **fields: Any) -> Given:
    return stream_of(CREATE).when(send(waking=waking(definition=definition), **fields))


def fails(call: str, code: str = "overloaded", select: Selection | None = None, **more: Any) -> FailModel:
    return FailModel(call=call, failure=Failure(code=code, message=code), select=select, **more)


def to(model: str, reason: str = "fallback", key: str | None = None) -> Selection:
    return Selection(model=model, reason=reason, key=key, because="overloaded")


# -- what is recorded --


def test_a_chain_has_each_model_once_and_none_of_the_images_where_a_job_named_its_own() -> None:
    assert chain_of(DEFINITION, None) == (A, B, C)
    assert chain_of(DEFINITION, Overrides(model=C)) == (C,)
    assert chain_of(DEFINITION, Overrides(model=C, fallbacks=())) == (C,)
    assert chain_of(DEFINITION, Overrides(model=C, fallbacks=(B, C))) == (C, B)
    assert chain_of(DEFINITION, Overrides(fallbacks=(A, C))) == (A, C)
    assert chain_of(DEFINITION, Overrides(fallbacks=())) == (A,)


def test_a_failure_with_a_way_out_is_followed_by_the_selection_and_the_next_attempt() -> None:
    stream = awake().when(fails("m1", select=to(B))).then(ModelFailed, ModelSelected, ModelCalled).owes("m1")
    called, [effect] = stream.events[2], stream.owed
    assert isinstance(called, ModelCalled) and (called.model, called.attempt, called.upto) == (B, 2, 5)
    assert isinstance(effect, CallModel) and (effect.model, effect.reason, effect.chain) == (B, "fallback", (A, B, C))
    assert [each.model for each in effect.tried] == ["a"]
    stream.when(says("m1")).when(send("job_2", waking=waking(definition=DEFINITION)))
    assert [event.model for event in stream.events if isinstance(event, ModelCalled)] == [B]
    assert not any(isinstance(event, ModelSelected) for event in stream.events)


def test_another_choice_before_anybody_was_asked_is_the_next_attempt_without_a_failure() -> None:
    stream = awake().when(SelectModel(call="m1", attempt=1, select=to(C))).then(ModelSelected, ModelCalled).owes("m1")
    stream.when(SelectModel(call="m1", attempt=1, select=to(B))).then_nothing()


def test_a_choice_that_comes_when_the_turn_is_to_stop_ends_it() -> None:
    stream = awake().when(Interrupt()).owes("stop-m1")
    stream.when(SelectModel(call="m1", attempt=1, select=to(C))).then(ModelFailed, TurnCompleted, JobCancelled).owes()


def test_a_failure_while_the_turn_is_to_stop_asks_nobody_else() -> None:
    awake().when(Interrupt()).when(fails("m1", select=to(B))).then(ModelFailed, TurnCompleted, JobCancelled).owes()


def test_when_nobody_is_left_the_failure_tells_of_every_attempt() -> None:
    stream = awake().when(fails("m1", select=to(B))).when(fails("m1", "auth", exhausted=True))
    stream.then(ModelFailed, TurnCompleted, JobFailed)
    failure = stream.events[-1].failure
    assert failure.code == "models_exhausted" and [each.reason for each in failure.tried] == ["overloaded", "auth"]


def test_a_job_that_names_a_model_selects_it_and_the_next_one_goes_back() -> None:
    stream = awake(overrides=Overrides(model=C))
    selected, called = stream.events[-2:]
    assert isinstance(selected, ModelSelected) and (selected.model, selected.reason) == (C, "pinned")
    assert isinstance(called, ModelCalled) and called.model == C and stream.owed[0].chain == ()
    stream.when(says("m1")).when(send("job_2", waking=waking(definition=DEFINITION)))
    back, called = stream.events[-2:]
    assert isinstance(back, ModelSelected) and (back.model, back.reason) == (A, "primary") and called.model == A


def test_a_job_that_names_the_model_it_has_anyhow_selects_nothing() -> None:
    assert not any(isinstance(event, ModelSelected) for event in awake(overrides=Overrides(model=A)).events)


def test_what_a_job_fell_back_to_from_a_model_of_its_own_does_not_outlast_it() -> None:
    stream = awake(overrides=Overrides(model=C, fallbacks=(B,))).when(fails("m1", select=to(B))).when(says("m1"))
    stream.when(send("job_2", waking=waking(definition=DEFINITION)))
    assert [event.model for event in stream.events if isinstance(event, ModelSelected | ModelCalled)] == [A, A]


def test_a_definition_with_other_models_forgets_the_selection_and_one_with_other_tools_does_not() -> None:
    stream = awake().when(fails("m1", select=to(B))).when(says("m1"))
    tools = Definition(image_version=2, model=A, fallbacks=(B, C), tools="sha256:1")
    assert stream.when(send("job_2", waking=waking(definition=tools))).events[-1].model == B
    models = Definition(image_version=3, model=C, fallbacks=(B,), tools="sha256:1")
    assert stream.when(says("m2")).when(send("job_3", waking=waking(definition=models))).events[-1].model == C


def test_a_model_selected_for_want_of_money_holds_for_its_job_and_knows_no_way_out_without_prices() -> None:
    stream = stream_of(CREATE).when(send(waking=waking(definition=DEFINITION)))
    cheaper = ModelSelected(model="p:small", provider="p", reason="budget")
    past = [*_past(stream, says("m1"), send("job_2", waking=waking(definition=DEFINITION)))]
    stream = stream_of(*past[:-1], cheaper, replace(past[-1], model="p:small"))
    assert (stream.owed[0].model, stream.owed[0].chain, stream.owed[0].reason) == ("p:small", (), "budget")
    stream.when(says("m2")).when(send("job_3", waking=waking(definition=DEFINITION)))
    selected, called = stream.events[-2:]
    assert isinstance(selected, ModelSelected) and (selected.model, selected.reason) == (A, "primary")
    assert called.model == A


def _past(stream: Given, *commands: Any) -> list[Any]:
    """Every event of a stream that was just begun, and of these commands."""
    events = [*stream_of().when(CREATE).events, *stream.events]
    for command in commands:
        events += stream.when(command).events
    return events


def test_within_a_turn_the_model_that_answered_is_asked_again() -> None:
    stream = awake().when(fails("m1", select=to(B))).when(asks("m1", "read")).when(settles("t1"))
    assert stream.events[-1].model == B and stream.owed[0].tried == ()


def test_a_probe_that_was_answered_is_an_ordinary_model_again() -> None:
    stream = awake().when(fails("m1", select=to(B))).when(says("m1"))
    stream.when(send("job_2", waking=waking(definition=DEFINITION)))
    stream.when(SelectModel(call="m2", attempt=1, select=to(A, "probe")))
    assert stream.owed[0].reason == "probe"
    stream.when(asks("m2", "read")).when(settles("t1"))
    assert (stream.owed[0].model, stream.owed[0].reason) == (A, "primary")


def test_a_probe_in_vain_is_over_with_its_turn() -> None:
    stream = awake().when(SelectModel(call="m1", attempt=1, select=to(C, "probe")))
    stream.when(fails("m1", "overloaded", exhausted=True)).when(send("job_2", waking=waking(definition=DEFINITION)))
    assert (stream.owed[0].model, stream.owed[0].reason) == (C, "fallback")


def test_what_the_rules_deny_is_no_way_out() -> None:
    rules = Policy(
        name="house", version="1", rules=(ModelPolicy(model_patterns=("b",), decision="deny", reason="No."),)
    )
    stream = awake(Definition(image_version=1, model=A, fallbacks=(B, C), policy=(rules,)))
    assert stream.owed[0].chain == (A, C)


GATE = Policy(
    name="house", version="1", rules=(ModelPolicy(model_patterns=("b",), require_approval=True, name="dear"),)
)
GATED = Definition(image_version=1, model=A, fallbacks=(B, C), policy=(GATE,))


def asked_about() -> Given:
    return awake(GATED).when(fails("m1", "auth", select=to(B)))


def answer(approved: bool, action: str = "a1") -> ResolveAction:
    return ResolveAction(action=action, resolution={"approved": approved}, at=1_000_001, by="ann")


def test_a_fallback_that_a_person_must_approve_is_asked_about_when_it_is_the_next_one() -> None:
    assert awake(GATED).owed[0].chain == (A, B, C)
    stream = asked_about().then(ModelFailed, ModelSelected, ActionRequired, JobWaiting).owes("expire-a1")
    asked = stream.events[2]
    assert (asked.kind, asked.payload, asked.reason) == ("approval", {"model": B}, "policy house/dear")
    stream.after_a_crash().owes("expire-a1")
    stream.when(answer(True)).then(ActionResolved, JobResumed, ModelCalled).owes("m1")
    called, [effect] = stream.events[-1], stream.owed
    assert (called.model, called.attempt) == (B, 2) and [each.reason for each in effect.tried] == ["auth"]
    stream.when(asks("m1", "read")).when(settles("t1")).owes("m2")


def test_a_fallback_that_nobody_allows_is_not_called_and_the_failure_names_the_rule_and_what_failed() -> None:
    for no in (answer(False), ExpireAction(action="a1"), CancelAction(action="a1", by="ann")):
        stream = asked_about().when(no).owes()
        assert [type(event) for event in stream.events[1:]] == [JobResumed, ModelDenied, TurnCompleted, JobFailed]
        denied, failure = stream.events[2], stream.events[-1].failure
        assert (denied.call, denied.attempt, denied.model, denied.rule) == ("m1", 2, B, "dear")
        assert failure.code == "policy_denied" and failure.message.endswith(f" {B} was not called.")
        assert [each.reason for each in failure.tried] == ["auth"]
    stopped = asked_about().when(Interrupt()).owes().events
    assert any(isinstance(event, JobCancelled) for event in stopped)
    assert sum(isinstance(event, TurnCompleted) for event in stopped) == 1


@pytest.mark.parametrize("allowed", [True, False])
def test_leave_for_a_fallback_is_for_one_job_and_the_next_begins_with_the_first_model(allowed: bool) -> None:
    stream = asked_about().when(answer(allowed))
    if allowed:
        stream.when(says("m1"))
    stream.when(send("job_2", waking=None))
    called = [event for event in stream.events if isinstance(event, ModelCalled)]
    assert [(each.model, each.attempt) for each in called] == [(A, 1)]
    stream.when(fails(called[0].call, "auth", select=to(B))).then(
        ModelFailed, ModelSelected, ActionRequired, JobWaiting
    )


def test_a_process_that_died_goes_on_with_the_model_that_was_selected() -> None:
    stream = awake().when(fails("m1", select=to(B))).after_a_crash().when(RecoverEffect(effect="m1", attempt=2))
    assert stream.events[-1].model == B and [each.model for each in stream.owed[0].tried] == ["a"]


def test_owners_that_were_gone_before_a_model_answered_are_counted_until_it_fails_or_another_is_asked() -> None:
    stream = awake()
    for deaths in (1, 2):
        [effect] = stream.after_a_crash().owed
        stream.when(RecoverEffect(effect="m1", attempt=effect.attempt))
        assert stream.owed[0].deaths == deaths and failover.crashed(stream.owed[0]) is None
    assert failover.crashed(replace(stream.owed[0], deaths=failover.STARTS_MAX)) is not None
    assert stream.when(fails("m1", retry_in_ms=5)).owed[0].deaths == 0
    stream.after_a_crash().when(RecoverEffect(effect="m1", attempt=4))
    assert stream.owed[0].deaths == 1 and stream.when(fails("m1", select=to(B))).owed[0].deaths == 0


def test_a_summary_counts_what_failed_alike_and_is_not_endless() -> None:
    once = Tried(provider="p", model="a", reason="overloaded", status=529)
    failure = summary(
        (once, once, Tried(provider="q", model="c", reason="auth", key="1a2b3c4d")), Failure(code="x", message="y")
    )
    assert failure.message == "No model answered: p:a (overloaded, 529, 2 times), q:c (auth, key 1a2b3c4d)."
    many = tuple(Tried(provider="p", model=str(number), reason="auth") for number in range(40))
    assert summary(many, Failure(code="x", message="y", available_at=2**62)).message.endswith(
        "at 9999-12-31T23:59:59Z."
    )
    assert (
        "and 28 more" in summary(many, Failure(code="x", message="y")).message
        and not summary(many, Failure(code="x", message="y")).retryable
    )


# -- who is asked --


def call(**fields: Any) -> CallModel:
    [effect] = awake().owed
    assert isinstance(effect, CallModel)
    return replace(effect, **fields)


ONE = Keys({"p": ["k"], "q": ["k2"]})


def test_keys_are_asked_the_preferred_first_then_the_least_recently_used_and_those_that_cool_last() -> None:
    keys = Keys({"p": ["k1", "k2", "k3", "k4", "k5"]}, used={"k1": 5, "k2": 3, "k3": 9}, sticky={"p": "k3"})
    table = failed(Cooldowns(), "k4", A, "billing", 0, CooldownTimes())
    table = failed(table, "k5", A, "rate_limit", 0, CooldownTimes())
    assert in_order(keys, A, table, 0) == ["k3", "k2", "k1", "k5", "k4"]
    assert in_order(keys, A, table, 0, preferred="k1")[0] == "k1"


def test_the_models_of_a_chain_are_asked_in_its_order_and_those_that_cool_are_left_out() -> None:
    table = failed(Cooldowns(), "k", B, "overloaded", 0, CooldownTimes())
    choice, _ = failover.after(
        call(), Failure(code="model_not_found", message=""), "k", ONE, table, 0, Failover(), wait_s=None
    )
    assert choice == Select(Selection(model=C, reason="fallback", because="model_not_found"))


def test_where_everything_cools_the_first_that_is_done_with_it_is_probed_once_in_a_while() -> None:
    times = CooldownTimes()
    table = Cooldowns()
    for key, model, code in (("k", A, "billing"), ("k2", C, "overloaded")):
        table = failed(table, key, model, code, 0, times)
    late = 20 * S  # the window of C is open, and the last request long enough ago
    choice, after = failover.before(call(), ONE, table, late, Failover(cooldowns=CooldownTimes(probe_every_s=1)))
    assert choice == Select(Selection(model=C, reason="probe"))
    choice, _ = failover.before(call(), ONE, after, late + 1, Failover(cooldowns=CooldownTimes(probe_every_s=9)))
    assert isinstance(choice, Exhausted) and choice.available_at == 30_000


def test_given_a_lone_model_with_a_refused_key_when_it_is_not_asked_then_it_says_the_first_moment_at_which_it_is() -> (
    None
):
    table = failed(Cooldowns(), "k", A, "auth", 0, CooldownTimes())
    for probed_at, said in ((500, 530), (590, 600)):
        table = probed(table, "k", A, probed_at * S, CooldownTimes())
        choice, _ = failover.before(call(chain=()), ONE, table, (probed_at + 5) * S, Failover())
        assert isinstance(choice, Exhausted) and choice.available_at == said * 1000
        assert failover.before(call(chain=()), ONE, table, said * S - 1, Failover())[0] == choice
        assert failover.before(call(chain=()), ONE, table, said * S, Failover())[0] == Go("k")


def test_what_was_chosen_anew_again_and_again_is_asked_in_the_end() -> None:
    table = failed(Cooldowns(), "k", A, "overloaded", 0, CooldownTimes())
    assert isinstance(failover.before(call(attempt=20), ONE, table, 0, Failover())[0], Select)
    assert failover.before(call(attempt=21), ONE, table, 0, Failover())[0] == Go("k")


def test_of_a_long_chain_every_model_is_asked_before_what_is_busy_has_used_up_the_attempts() -> None:
    chain = tuple(f"p{number}:m" for number in range(17))
    keys = Keys({f"p{number}": [f"k{number}"] for number in range(17)})
    effect, table, asked = call(model=chain[0], chain=chain), Cooldowns(), []
    for _ in range(100):
        asked.append(effect.model)
        busy = Failure(code="overloaded", message="")
        provider = effect.model.partition(":")[0]
        choice, table = failover.after(effect, busy, f"k{provider[1:]}", keys, table, 0, Failover(), wait_s=0.5)
        effect = replace(effect, tried=(*effect.tried, Tried(provider=provider, model="m", reason="overloaded")))
        if isinstance(choice, Select):
            effect = replace(effect, model=choice.selection.model)
        elif isinstance(choice, Exhausted):
            break
    assert (len(asked), tuple(dict.fromkeys(asked)), choice.unasked) == (20, chain, ())


@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=5),
    st.integers(0, 6),
    st.lists(st.sampled_from(["auth", "billing", "rate_limit", "overloaded", "timeout", "server_error"]), min_size=1),
    st.sampled_from([None, 0.5]),
)
def test_given_as_many_attempts_as_models_when_they_fail_with_however_many_keys_then_each_is_asked(
    counts: list[int], more: int, codes: list[str], wait_s: float | None
) -> None:
    chain = tuple(f"p{number}:m" for number in range(len(counts)))
    keys = Keys({f"p{number}": [f"p{number} k{each}" for each in range(count)] for number, count in enumerate(counts)})
    effect, table, settings = call(model=chain[0], chain=chain), Cooldowns(), Failover(attempts=len(chain) + more)
    asked, choice, key = list[str](), None, None
    while not isinstance(choice, Exhausted):
        key = key or keys.all(effect.model)[0]
        asked.append(effect.model)
        failure = Failure(code=codes[len(asked) % len(codes)], message="")
        choice, table = failover.after(effect, failure, key, keys, table, 0, settings, wait_s=wait_s)
        provider, named = effect.model.partition(":")[0], keys.named(effect.model, key)
        tried = Tried(provider=provider, model="m", reason=failure.code, key=named)
        effect = replace(effect, tried=(*effect.tried, tried))
        if isinstance(choice, Select):
            effect, key = replace(effect, model=choice.selection.model), choice.selection.key
    assert len(asked) <= settings.attempts and tuple(dict.fromkeys(asked)) == chain and choice.unasked == ()


def test_who_was_not_asked_for_want_of_attempts_is_not_said_to_cool() -> None:
    refused, few = Failure(code="model_not_found", message=""), Failover(attempts=1)
    choice, _ = failover.after(call(), refused, "k", ONE, Cooldowns(), 0, few, wait_s=None)
    assert isinstance(choice, Exhausted)
    assert [(each.model, each.reason) for each in choice.unasked] == [("b", "attempts"), ("c", "attempts")]
    table = failed(Cooldowns(), "k2", C, "billing", 0, CooldownTimes())
    choice, _ = failover.after(call(), refused, "k", ONE, table, 0, few, wait_s=None)
    assert isinstance(choice, Exhausted)
    assert [(each.model, each.reason) for each in choice.unasked] == [("b", "attempts"), ("c", "cooldown")]
    assert "q:c (cooldown)" in summary(choice.unasked, refused).message
    assert "p:b (not asked, all attempts were used up)" in summary(choice.unasked, refused).message


def test_while_another_key_is_idle_nobody_waits_for_one_that_is_limited() -> None:
    keys, limited = Keys({"p": ["k1", "k2"], "q": ["k3"]}), Failure(code="rate_limit", message="", retry_after_s=3.0)
    choice, table = failover.after(call(), limited, "k1", keys, Cooldowns(), 0, Failover(), wait_s=3.0)
    assert choice == Select(Selection(model=A, reason="fallback", key="k2", because="rate_limit"))
    again = call(tried=(Tried(provider="p", model="a", reason="rate_limit", key="k1"),))
    choice, _ = failover.after(again, limited, "k2", keys, table, 0, Failover(), wait_s=3.0)
    assert choice == Retry(3.0), "and when it is limited too, it is waited for"


def test_where_no_other_model_can_be_asked_every_idle_key_is_before_a_limited_call_is_over() -> None:
    keys, limited = Keys({"p": ["k1", "k2", "k3"]}), Failure(code="rate_limit", message="")
    choice, table = failover.after(call(chain=()), limited, "k1", keys, Cooldowns(), 0, Failover(), wait_s=None)
    assert choice == Select(Selection(model=A, reason="fallback", key="k2", because="rate_limit"))
    again = call(chain=(), tried=(Tried(provider="p", model="a", reason="rate_limit", key="k1"),))
    choice, _ = failover.after(again, limited, "k2", keys, table, 0, Failover(), wait_s=None)
    assert choice == Select(Selection(model=A, reason="fallback", key="k3", because="rate_limit"))
    more = Keys({"p": ["k1", "k2", "k3"], "q": ["k4"]})
    choice, _ = failover.after(replace(again, chain=(A, C)), limited, "k2", more, table, 0, Failover(), wait_s=None)
    assert choice == Select(Selection(model=C, reason="fallback", because="rate_limit")), "before a third key"


CODES = [
    *("auth", "billing", "rate_limit", "overloaded", "timeout", "server_error", "model_not_found", "permission"),
    *("something_new", "context_exceeded", "invalid_request"),
]


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    models = draw(st.lists(st.sampled_from([A, B, C, "q:d", "r:e"]), min_size=1, max_size=5, unique=True))
    return {
        "definition": Definition(image_version=1, model=models[0], fallbacks=tuple(models[1:]), max_steps=9),
        "keys": {provider: draw(st.integers(1, 3)) for provider in "pqr"},
        "settings": Failover(
            retries=draw(st.integers(0, 3)),
            rotations=draw(st.integers(0, 2)),
            attempts=draw(st.integers(1, 12)),
            cooldowns=CooldownTimes(transient_s=(draw(st.sampled_from([0.0, 1.0, 30.0])), 60.0)),
        ),
        "policy": draw(st.integers(1, 5)),
        # (model, key number) -> what it fails with, None where it answers
        "fails": draw(
            st.dictionaries(
                st.tuples(st.sampled_from(models), st.integers(0, 2)),
                st.one_of(st.none(), st.sampled_from(CODES)),
                max_size=15,
            )
        ),
        "else": draw(st.one_of(st.none(), st.sampled_from(CODES))),
        "turns": draw(
            st.lists(
                st.tuples(
                    st.sampled_from([None, None, *models]),
                    st.sampled_from([None, (B,), (A, C)]),
                    st.sampled_from([0, 1, 31, 400, 20_000]),
                    st.booleans(),
                    st.sets(st.integers(1, 6), max_size=2),
                ),
                min_size=1,
                max_size=4,
            )
        ),
    }


@given(worlds())
def test_over_any_failures_attempts_are_bounded_and_every_selection_is_recorded(world: dict[str, Any]) -> None:
    """Turns of one session in a world that fails as it likes; each command is recalled and decided again alike."""
    definition, settings = world["definition"], world["settings"]
    keys = Keys({provider: [f"{provider}{n}" for n in range(count)] for provider, count in world["keys"].items()})
    stream, table, now, events = stream_of(CREATE), Cooldowns(), S, []
    for number, (model, fallbacks, wait_s, repaired, dies) in enumerate(world["turns"], start=1):
        now += wait_s * S
        stream.at = now
        overrides = Overrides(model=model, fallbacks=fallbacks) if model or fallbacks else None
        stream.when(send(f"job_{number}", waking=waking(definition=definition), overrides=overrides))
        assert stream.error is None and stream.owed, "a turn begins"
        events += stream.events
        asked = 0
        requests: list[str] = []
        while stream.owed:
            [effect] = stream.owed
            assert isinstance(effect, CallModel), effect
            assert asked < 200, "it goes on for ever"
            asked += 1
            if asked in dies:
                stream.after_a_crash().when(RecoverEffect(effect=effect.id, attempt=effect.attempt))
                table = Cooldowns()
            else:
                command, table = step(effect, keys, table, now, settings, world, repaired)
                if not isinstance(command, SelectModel):
                    requests.append(effect.model)
                stream.when(command)
            assert stream.error is None and stream.events, (command, effect)
            events += stream.events
        calls = [event for event in events if isinstance(event, ModelCalled) and event.call == f"m{number}"]
        several = len(chain_of(definition, overrides)) > 1
        most = settings.attempts if several else max(settings.attempts, world["policy"])
        assert len(requests) <= most
        assert len(calls) <= 2 * most + len(definition.fallbacks) + len(dies)
        left = [model for model, after in pairwise(requests) if model != after]
        assert len(left) == len(set(left)) and not (set(left) & set(requests[-1:])), "a model was asked again"
    assert_every_selection_is_recorded(events, definition)


def step(
    effect: CallModel, keys: Keys, table: Cooldowns, now: int, settings: Failover, world: dict[str, Any], well: bool
) -> tuple[Any, Cooldowns]:
    """One step of the world, as the edge takes it."""
    choice, table = failover.before(effect, keys, table, now, settings)
    if isinstance(choice, Select):
        return SelectModel(call=effect.id, attempt=effect.attempt, select=choice.selection), table
    if isinstance(choice, Exhausted):
        failure = Failure(code="cooldown", message="", tried=choice.unasked, available_at=choice.available_at)
        return FailModel(call=effect.id, attempt=effect.attempt, failure=failure, exhausted=True), table
    note = failover.unnoted(effect, choice.key, keys)
    if note is not None:
        return SelectModel(call=effect.id, attempt=effect.attempt, select=note, noted=True), table
    assert effect.selected or (len(keys.all(effect.model)) == 1 and not effect.chain)
    place = (effect.model, int((choice.key or "0")[-1]))
    code = None if well else world["fails"].get(place, world["else"])
    if code is None:
        return says(effect.id), succeeded(table, choice.key, effect.model)
    failure = Failure(code=code, message=code)
    tries = failover.tries(effect, keys.named(effect.model, choice.key))
    retryable = code in ("rate_limit", "overloaded", "timeout", "server_error") and tries < world["policy"]
    then, table = failover.after(
        effect, failure, choice.key, keys, table, now, settings, wait_s=0.5 if retryable else None
    )
    named = keys.named(effect.model, choice.key)
    match then:
        case Retry():
            return FailModel(call=effect.id, failure=failure, retry_in_ms=500, key=named), table
        case Select():
            assert settings.advances(code)
            return FailModel(call=effect.id, failure=failure, select=then.selection, key=named), table
        case Stop():
            return FailModel(call=effect.id, failure=failure, key=named), table
    return FailModel(call=effect.id, failure=failure, exhausted=True, key=named), table


def assert_every_selection_is_recorded(events: Any, definition: Definition) -> None:
    current = ""
    selected = None
    for event in events:
        match event:
            case AgentConfigured():
                current = event.definition.model
            case ModelSelected():
                assert event.noted or event.model != current or event.key != selected or event.reason == "probe", event
                current, selected = event.model, event.key
            case ModelCalled():
                assert event.model == current, "a model was called that nobody selected"
    assert any(isinstance(event, TurnCompleted) for event in events)


@pytest.mark.parametrize("code", ["rate_limit", "overloaded"])
def test_a_model_that_is_busy_is_asked_again_so_often_and_then_another_is(code: str) -> None:
    busy, settings = Failure(code=code, message=""), Failover(retries=1)
    choice, table = failover.after(call(), busy, "k", ONE, Cooldowns(), 0, settings, wait_s=0.5)
    assert choice == Retry(0.5) and table == Cooldowns()
    again = call(tried=(Tried(provider="p", model="a", reason=code),))
    choice, table = failover.after(again, busy, "k", ONE, Cooldowns(), 0, settings, wait_s=0.5)
    assert choice == Select(Selection(model=B, reason="fallback", because=code)) and table != Cooldowns()


def test_after_a_time_out_another_is_asked_at_once_and_the_same_only_where_there_is_none() -> None:
    late, settings = Failure(code="timeout", message=""), Failover(retries=5)
    choice, table = failover.after(call(), late, "k", ONE, Cooldowns(), 0, settings, wait_s=0.5)
    assert choice == Select(Selection(model=B, reason="fallback", because="timeout")) and table != Cooldowns()
    alone = call(model=A, chain=())
    choice, _ = failover.after(alone, late, "k", ONE, Cooldowns(), 0, settings, wait_s=0.5)
    assert choice == Retry(0.5)


def test_one_that_fails_otherwise_is_asked_as_often_as_the_retry_policy_says() -> None:
    tried = (Tried(provider="p", model="a", reason="server_error"),) * 5
    broken, again = Failure(code="server_error", message=""), call(tried=tried)
    choice, _ = failover.after(again, broken, "k", ONE, Cooldowns(), 0, Failover(retries=1), wait_s=0.5)
    assert choice == Retry(0.5)


def test_where_there_is_nobody_else_the_retry_policy_alone_says_how_often() -> None:
    alone = call(model=A, chain=(), attempt=20)
    choice, _ = failover.after(
        alone, Failure(code="overloaded", message=""), "k", ONE, Cooldowns(), 0, Failover(attempts=20), wait_s=0.5
    )
    assert choice == Retry(0.5)


def test_a_provider_that_says_when_to_come_again_is_left_alone_so_long() -> None:
    limited = Failure(code="rate_limit", message="", retry_after_s=100.0)
    _, table = failover.after(call(), limited, "k", ONE, Cooldowns(), 0, Failover(), wait_s=None)
    assert until(table, "k", A, 0) == 100 * S


def test_no_key_is_asked_twice_for_one_call_also_where_nothing_cools() -> None:
    keys, never = Keys({"p": ["k1", "k2"], "q": ["k3"]}), CooldownTimes(auth_s=0.0, auth_max_s=0.0)
    again = call(tried=(Tried(provider="p", model="a", reason="auth", key="k1"),))
    choice, _ = failover.after(
        again, Failure(code="auth", message=""), "k2", keys, Cooldowns(), 0, Failover(cooldowns=never), wait_s=None
    )
    assert isinstance(choice, Select) and choice.selection.model == B


@pytest.mark.parametrize(("step", "reason"), [(1, "primary"), (2, None)])
def test_a_session_returns_to_its_first_model_at_the_beginning_of_a_turn_only(step: int, reason: str | None) -> None:
    table = succeeded(Cooldowns(), "k", A)
    choice, _ = failover.before(call(model=B, step=step, reason="fallback"), ONE, table, 0, Failover())
    back = (choice.selection.model, choice.selection.reason) if isinstance(choice, Select) else None
    assert back == (None if reason is None else (A, reason))


@pytest.mark.parametrize(("code", "other"), [("auth", A), ("billing", A), ("rate_limit", A), ("model_not_found", B)])
def test_after_what_is_the_fault_of_a_key_another_key_is_tried_and_else_another_model(code: str, other: str) -> None:
    keys = Keys({"p": ["k1", "k2"], "q": ["k3"]})
    choice, _ = failover.after(
        call(), Failure(code=code, message=""), "k1", keys, Cooldowns(), 0, Failover(), wait_s=None
    )
    assert isinstance(choice, Select) and (choice.selection.model, choice.selection.because) == (other, code)
    assert other == B or choice.selection.key == "k2"


@pytest.mark.parametrize(
    "code", ["cancelled", "context_exceeded", "too_large", "invalid_request", "content_filter", "bad_input"]
)
def test_nobody_else_is_asked_after(code: str) -> None:
    choice, table = failover.after(
        call(), Failure(code=code, message=""), "k", ONE, Cooldowns(), 0, Failover(), wait_s=None
    )
    assert choice == Stop() and table == Cooldowns()
    if code in failover.NEVER:
        assert not Failover(stop_on=()).advances(code)
