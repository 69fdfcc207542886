"""What an agent may do is asked of the rules of the moment, at every call; what they forbid is told and recorded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import given as draw
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors import agent, doubt, mind, turn
from reenact.actors import tool as calls
from reenact.actors.policy import Rights
from reenact.actors.profiles import resolve
from reenact.events.agent import (
    AgentConfigured,
    CallModel,
    Interrupt,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ProveTool,
    RecoverEffect,
    ResolveTool,
    StopAgent,
    ToolAuthorised,
    ToolDoubted,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    TurnCompleted,
    TurnStarted,
)
from reenact.events.errors import PolicyDenied, ReenactError
from reenact.events.message import Event
from reenact.events.model import ModelParams
from reenact.events.policy import (
    ApplyPolicy,
    ConstraintPolicy,
    ModelDenied,
    ModelPolicy,
    ModelWarned,
    Policy,
    PolicyDecision,
    ToolDenied,
    ToolPolicy,
)
from reenact.events.session import JobFailed, JobQueued, JobStarted, Overrides
from reenact.events.tool import CallCheck
from tests.actors.words import CREATE, DEFINITION, asks, fails, says, send, settles, waking
from tests.given import Given, given


def rule(*patterns: str, **fields: Any) -> ToolPolicy:
    return ToolPolicy(tool_patterns=patterns, **fields)


def about(*patterns: str, **fields: Any) -> ModelPolicy:
    return ModelPolicy(model_patterns=patterns, **fields)


def under(*layers: Policy, scope: str = "default", **sent: Any) -> Given:
    """A turn that has begun, under these layers."""
    definition = replace(DEFINITION, policy=resolve(layers), scope=scope, max_steps=50)
    return given(CREATE).when(send(waking=waking("agent_1", definition), **sent))


def policy(*rules: Any, **fields: Any) -> Policy:
    return Policy(name="production", version="3", rules=rules, **fields)


def apply(*layers: Policy) -> ApplyPolicy:
    return ApplyPolicy(policy=resolve(layers))


NO_UNSAFE = policy(rule("unsafe", decision="deny", reason="Nothing unsafe"))


# -- tools --


def test_a_call_that_a_rule_denies_is_not_run_and_the_model_is_told_why() -> None:
    stream = under(NO_UNSAFE).when(asks("m1", "unsafe", "read"))
    stream.then(ModelAnswered, ToolRequested, ToolDenied, ToolSettled, ToolRequested, ToolAuthorised, ToolStarted).owes(
        "t2"
    )
    assert stream.events[2] == ToolDenied(
        tool="t1", rule="rule 1", reason="Nothing unsafe", policy="production", version="3"
    )
    settled = stream.events[3]
    assert isinstance(settled, ToolSettled) and (settled.outcome, settled.error_type) == ("denied", "PolicyDenied")
    assert settled.output == "Denied by policy production (version 3): Nothing unsafe. The call was not run."


def test_a_call_that_a_rule_lets_through_names_the_rule_and_one_that_no_rule_is_about_names_none() -> None:
    stream = under(policy(rule("read", name="reading"))).when(asks("m1", "read", "idempotent"))
    authorised = [event for event in stream.events if isinstance(event, ToolAuthorised)]
    assert [(event.decision, event.rule) for event in authorised] == [("allow", "production/reading"), ("allow", None)]


def test_a_call_that_a_rule_warns_of_is_run_and_the_warning_stands_in_the_log() -> None:
    stream = under(policy(rule("re*", decision="warn"))).when(asks("m1", "read")).owes("t1")
    assert stream.events[2] == ToolAuthorised(tool="t1", decision="warn", rule="production/rule 1")


def test_a_call_that_a_person_must_approve_is_not_run_without_one() -> None:
    stream = under(policy(rule("unsafe", decision="require_approval"))).when(asks("m1", "unsafe"))
    assert not any(isinstance(event, ToolStarted) for event in stream.events)


def test_a_bad_call_and_one_that_came_too_late_are_told_so_and_not_that_they_are_denied() -> None:
    bad = CallCheck(name="unsafe", problem="n is missing")
    stream = under(NO_UNSAFE).when(asks("m1", bad))
    stream.then(ModelAnswered, ToolRequested, ToolSettled, ModelCalled)
    assert stream.events[2].output == "n is missing"
    stopped = under(NO_UNSAFE).when(Interrupt()).when(asks("m1", "unsafe"))
    assert [event.outcome for event in stopped.events if isinstance(event, ToolSettled)] == ["skipped"]


def test_the_scope_is_the_one_in_the_definition() -> None:
    only = policy(rule("read", allowed_scopes=["acme"]))
    under(only, scope="acme").when(asks("m1", "read")).owes("t1")
    under(only, scope="other").when(asks("m1", "read")).owes("m2")


def test_calls_beyond_the_limit_of_a_turn_are_denied_however_they_are_spread_over_answers() -> None:
    stream = under(policy(ConstraintPolicy(max_tool_calls_per_turn=3, name="few")))
    stream.when(asks("m1", "read", "read")).owes("t1", "t2")
    stream.when(settles("t1")).when(settles("t2")).owes("m2")
    stream.when(asks("m2", "read", "read", "read")).owes("t3")
    denied = [event for event in stream.events if isinstance(event, ToolDenied)]
    assert [(event.tool, event.rule) for event in denied] == [("t4", "few"), ("t5", "few")]
    assert denied[0].reason == "at most 3 calls of tools are allowed in a turn"
    stream.when(settles("t3")).owes("m3")
    stream.when(says("m3")).when(send("job_2", waking=None)).owes("m4")
    stream.when(asks("m4", "read", "read", "read", "read")).owes("t6", "t7", "t8")


# -- changed in the middle of a turn --


def test_the_next_call_of_a_turn_that_runs_is_held_to_the_rules_that_came_meanwhile() -> None:
    stream = under().when(asks("m1", "unsafe", "read")).owes("t1", "t2")
    stream.when(apply(NO_UNSAFE)).then(AgentConfigured).owes("t1", "t2")
    stream.when(settles("t1")).when(settles("t2")).owes("m2")
    stream.when(asks("m2", "unsafe")).owes("m3")
    stream.when(apply()).then(AgentConfigured)
    stream.when(asks("m3", "unsafe")).owes("t4")


def test_rules_that_hold_already_and_an_agent_that_sleeps_change_nothing() -> None:
    under(NO_UNSAFE).when(apply(NO_UNSAFE)).then_nothing()
    given(CREATE).when(apply(NO_UNSAFE)).then_nothing()
    under().when(says("m1")).when(StopAgent()).when(apply(NO_UNSAFE)).then_nothing()


def test_everything_else_of_the_definition_stays_as_it_is() -> None:
    stream = under().when(apply(NO_UNSAFE))
    [configured] = stream.events
    assert isinstance(configured, AgentConfigured)
    assert configured.definition == replace(DEFINITION, policy=resolve([NO_UNSAFE]), max_steps=50)


@pytest.mark.parametrize(("effect", "outcome"), [("read", "error"), ("idempotent", "unknown")])
def test_a_call_in_doubt_is_not_run_again_against_a_rule_that_came_since(effect: str, outcome: str) -> None:
    stream = under().when(asks("m1", effect)).after_a_crash()
    stream.when(apply(policy(deny=(effect,)))).when(RecoverEffect(effect="t1", attempt=1))
    stream.then(ToolDenied, ToolSettled, ModelCalled)
    denied, settled = stream.events[:2]
    assert isinstance(denied, ToolDenied) and denied.attempt == 2
    assert isinstance(settled, ToolSettled) and settled.outcome == outcome
    assert settled.output == (
        f"Denied by policy production (version 3): {effect} is among the tools that are denied. "
        "It began before, and was not run again."
    )


def test_nor_when_the_world_says_that_it_did_not_happen() -> None:
    stream = under().when(asks("m1", "probeable")).after_a_crash().when(RecoverEffect(effect="t1", attempt=1))
    stream.then(ToolDoubted).when(apply(policy(deny=("probeable",))))
    stream.when(ProveTool(tool="t1", happened=False)).then(ToolDenied, ToolSettled, ModelCalled)
    assert stream.events[1].outcome == "error"


def test_nor_when_a_person_says_so_who_may_still_settle_it() -> None:
    stream = under().when(asks("m1", "unsafe")).after_a_crash().when(RecoverEffect(effect="t1", attempt=1))
    stream.when(apply(NO_UNSAFE))
    stream.when(ResolveTool(tool="t1", outcome="retry")).then_refused(PolicyDenied, "Nothing unsafe")
    assert isinstance(stream.error, PolicyDenied) and stream.error.violations
    stream.when(ResolveTool(tool="t1", outcome="ok"))
    assert isinstance(stream.events[0], ToolSettled)


# -- one job --


def test_a_job_may_narrow_what_it_may_do_and_the_next_one_has_its_own_rights() -> None:
    stream = under(overrides=Overrides(policy=NO_UNSAFE)).when(asks("m1", "unsafe", "read")).owes("t2")
    stream.when(settles("t2")).when(says("m2")).when(send("job_2", waking=None)).when(asks("m3", "unsafe")).owes("t3")


def test_a_job_cannot_give_itself_what_its_agent_lacks() -> None:
    everything = Overrides(
        policy=resolve([Policy(name="job", profile="full", rules=(rule("*", decision="allow"),))])[0]
    )
    under(NO_UNSAFE, overrides=everything).when(asks("m1", "unsafe")).owes("m2")


def test_rules_that_come_while_a_narrowed_job_runs_are_laid_over_its_own() -> None:
    stream = under(overrides=Overrides(policy=NO_UNSAFE)).when(apply(policy(deny=("read",))))
    stream.when(asks("m1", "unsafe", "read", "idempotent")).owes("t3")
    stream.when(settles("t3")).when(says("m2")).when(send("job_2", waking=None))
    stream.when(asks("m3", "unsafe", "read")).owes("t4")


# -- models --


def test_a_model_that_a_rule_denies_is_not_called_and_the_job_fails_by_name() -> None:
    stream = under(policy(about("echo", decision="deny", reason="Not that one")))
    kinds = [type(event) for event in stream.events[-5:]]
    assert kinds == [JobStarted, TurnStarted, ModelDenied, TurnCompleted, JobFailed]
    failed = stream.owes().events[-1]
    assert isinstance(failed, JobFailed) and failed.failure.code == "policy_denied"
    assert failed.failure.message == "Denied by policy production (version 3): Not that one. No model was called."
    denied = stream.events[-3]
    assert isinstance(denied, ModelDenied) and (denied.call, denied.model) == ("m1", "scripted:echo")
    completed = stream.events[-2]
    assert isinstance(completed, TurnCompleted) and (completed.turn, completed.steps) == (1, 0)
    stream.when(send("job_2", waking=None, overrides=Overrides(model="scripted:hello"))).owes("m1")


def test_a_model_that_a_person_must_approve_is_not_called_without_one() -> None:
    stream = under(policy(about("scripted:*", require_approval=True))).owes("expire-a1")
    assert not any(isinstance(event, ModelCalled) for event in stream.events)


def test_a_rule_that_came_since_holds_for_the_next_call_the_next_attempt_and_the_one_after_a_crash() -> None:
    no_model = apply(policy(about("*", decision="deny")))
    stream = under().when(asks("m1", "read")).when(no_model).when(settles("t1"))
    stream.then(ToolSettled, ModelDenied, TurnCompleted, JobFailed).owes()
    stream = under().when(no_model).owes("m1").when(fails("m1", retry_in_ms=5))
    stream.then(ModelFailed, ModelDenied, TurnCompleted, JobFailed).owes()
    assert stream.events[1].attempt == 2
    stream = under().when(no_model).after_a_crash().when(RecoverEffect(effect="m1", attempt=1))
    stream.then(ModelDenied, TurnCompleted, JobFailed).owes()


def test_a_model_that_a_rule_warns_of_is_called_and_the_warning_stands_once_a_turn() -> None:
    stream = under(policy(about("*", decision="warn", name="dear")))
    assert [type(event) for event in stream.events[-3:]] == [TurnStarted, ModelWarned, ModelCalled]
    assert stream.events[-2].rule == "dear"
    stream.when(asks("m1", "read")).when(settles("t1")).then(ToolSettled, ModelCalled)


@pytest.mark.parametrize(
    ("own", "asked", "most"), [(None, None, 100), (50, None, 50), (500, None, 100), (None, 70, 70)]
)
def test_the_tokens_of_a_call_are_capped_and_the_cap_is_recorded(own: Any, asked: Any, most: int) -> None:
    layers = resolve([policy(about("echo", max_tokens_per_request=100), ConstraintPolicy(max_tokens_per_request=1000))])
    definition = replace(DEFINITION, policy=layers, params=ModelParams(max_tokens=own, temperature=0.5))
    overrides = None if asked is None else Overrides(params=ModelParams(max_tokens=asked))
    stream = given(CREATE).when(send(waking=waking("agent_1", definition), overrides=overrides))
    called, [effect] = stream.events[-1], stream.owed
    assert isinstance(called, ModelCalled) and isinstance(effect, CallModel)
    assert called.params == effect.params == ModelParams(max_tokens=most, temperature=0.5)


def test_so_they_are_by_a_limit_of_any_layer_that_is_about_no_model() -> None:
    layers = resolve(
        [policy(about("echo", max_tokens_per_request=1000)), policy(ConstraintPolicy(max_tokens_per_request=100))]
    )
    definition = replace(DEFINITION, policy=layers)
    [effect] = given(CREATE).when(send(waking=waking("agent_1", definition))).owed
    assert isinstance(effect, CallModel) and effect.params is not None and effect.params.max_tokens == 100


def test_turns_beyond_the_limit_of_a_session_are_not_begun() -> None:
    stream = under(policy(ConstraintPolicy(max_turns=2))).when(says("m1")).when(send("job_2", waking=None))
    stream.when(says("m2")).when(send("job_3", waking=None))
    stream.then(JobQueued, JobStarted, TurnStarted, ModelDenied, TurnCompleted, JobFailed).owes()
    assert "at most 2 turns are allowed in a session" in stream.events[-1].failure.message
    assert stream.events[-2].turn == 3


def test_what_is_offered_goes_by_the_layers_that_calls_are_held_to() -> None:
    [effect] = under(NO_UNSAFE, scope="acme", overrides=Overrides(policy=policy(deny=("read",)))).owed
    assert isinstance(effect, CallModel) and effect.scope == "acme"
    assert [layer.deny for layer in effect.policy] == [(), ("read",)]


# -- whatever happens --

NAMES = ("read", "idempotent", "probeable", "unsafe")
layer = st.builds(
    policy,
    st.builds(
        lambda names, decision: rule(*names, decision=decision),
        st.lists(st.sampled_from([*NAMES, "un*"]), min_size=1, max_size=2),
        st.sampled_from(PolicyDecision),
    ),
    st.builds(ConstraintPolicy, max_tool_calls_per_turn=st.none() | st.integers(0, 4)),
    st.builds(lambda decision: about("echo", decision=decision), st.sampled_from(["allow"] * 5 + ["deny"])),
    deny=st.lists(st.sampled_from(NAMES), max_size=1).map(tuple),
)
layers = st.lists(layer, max_size=2).map(tuple)
step = st.one_of(
    st.tuples(st.just("send"), st.none() | layer),
    st.tuples(st.just("ask"), st.lists(st.sampled_from(NAMES), max_size=3)),
    st.tuples(st.just("ask"), st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)),
    st.tuples(st.just("settle"), st.none()),
    st.tuples(st.just("fail"), st.booleans()),
    st.tuples(st.just("crash"), st.none()),
    st.tuples(st.just("apply"), layers),
    st.tuples(st.just("apply"), layers),
    st.tuples(st.just("resolve"), st.sampled_from(["ok", "retry"])),
)


class Watched:
    """What the events alone say of the rules of the moment, kept apart from the agent's own state."""

    def __init__(self) -> None:
        self.layers: tuple[Policy, ...] = ()
        self.job: Policy | None = None
        self.names: dict[str, str] = {}
        self.calls = 0
        self.started = 0

    def see(self, event: Event) -> None:
        mine = Rights((*self.layers, *([] if self.job is None else [self.job])), "default")
        if isinstance(event, AgentConfigured):
            self.layers = event.definition.policy
        elif isinstance(event, JobStarted):
            self.job = event.overrides.policy if event.overrides else None
            self.calls = 0
        elif isinstance(event, ToolRequested):
            self.names[event.tool] = event.name
            self.calls += 1
        elif isinstance(event, ToolStarted):
            self.started += 1
            verdict = mine.tool(self.names[event.tool])
            assert verdict.decision in (PolicyDecision.ALLOW, PolicyDecision.WARN), f"{event} against {verdict}"
            limit = mine.limits.tool_calls_per_turn
            assert event.attempt > 1 or limit is None or self.calls <= limit[0], f"{event} beyond {limit}"
        elif isinstance(event, ModelCalled):
            assert mine.model(event.model).decision is not PolicyDecision.DENY, event


def live(steps: list[tuple[str, Any]]) -> Watched:
    """Have it all happen, and every event looked at; `Given` holds each batch to its recalled command."""
    stream, watched = given(CREATE), Watched()
    for number, (what, how) in enumerate(steps):
        owed = stream.owed
        effect = owed[0] if owed else None
        name = "m0" if effect is None else effect.id
        attempt = getattr(effect, "attempt", 1)
        match what:
            case "send":
                overrides = None if how is None else Overrides(policy=resolve([how])[0])
                definition = replace(DEFINITION, policy=watched.layers, max_steps=50)
                command: Any = send(f"job_{number}", waking=waking("agent", definition), overrides=overrides)
            case "ask":
                command = asks(name, *how) if how else says(name)
            case "settle":
                command = settles(name)
            case "fail":
                command = fails(name, retry_in_ms=5 if how else None)
            case "apply":
                command = apply(*how)
            case "resolve":
                doubted = [f"t{n}" for n in range(1, len(watched.names) + 1)]
                command = ResolveTool(tool=doubted[-1] if doubted else "t1", outcome=how)
            case _:
                stream.after_a_crash()
                command = (
                    ProveTool(tool=name.removeprefix("probe-"), happened=False)
                    if name.startswith("probe")
                    else RecoverEffect(effect=name, attempt=attempt)
                )
        stream.when(command)
        assert stream.error is None or isinstance(stream.error, ReenactError), stream.error
        for event in stream.events:
            watched.see(event)
    return watched


@settings(max_examples=300, deadline=None)
@draw(st.lists(step, max_size=25))
def test_nothing_is_started_or_called_that_the_rules_of_the_moment_forbid(steps: list[tuple[str, Any]]) -> None:
    live([("send", None), *steps])


BROKEN: dict[str, Any] = {
    "rules are asked once, when the job starts": lambda patch: patch.setitem(
        agent._EVOLVE,
        AgentConfigured,
        lambda state, event, stamp: replace(
            _ON_CONFIGURED(state, event, stamp),
            rights=state.rights if state.job_id else _RIGHTS(event.definition, None),
        ),
    ),
    "a second attempt is not checked": lambda patch: patch.setattr(
        doubt, "_run_again", lambda state, tool, settled: [calls.run(tool)]
    ),
    "the job's own rules are forgotten": lambda patch: patch.setattr(
        mind, "_rights", lambda definition, overrides: _RIGHTS(definition, None)
    ),
    "the limit of a turn is not held": lambda patch: patch.setattr(
        calls,
        "_forbids",
        lambda rights, verdict, ordinal: verdict if verdict.decision is PolicyDecision.DENY else None,
    ),
    "a model is not asked about again": lambda patch: [
        patch.setattr(room, "called", lambda state, call: [call] if call.attempt > 1 else _CALLED(state, call))
        for room in (turn, doubt)
    ],
}


@pytest.mark.parametrize("build", BROKEN)
def test_a_build_that_forgets_to_ask_is_found(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN[build](monkeypatch)
    tries = settings(max_examples=3000, deadline=None, database=None, phases=[Phase.generate])(
        draw(st.lists(step, max_size=25))(lambda steps: live([("send", None), *steps]) and None)
    )
    with pytest.raises((AssertionError, ExceptionGroup)):
        tries()


_ON_CONFIGURED, _RIGHTS, _CALLED = mind.on_configured, mind._rights, turn.called
