"""A call that a person must approve: asked for, bound to exactly what would run, launched, started or refused."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from reenact.actors import consent
from reenact.actors import tool as calls
from reenact.actors.approval import GRANTS_MAX, Terms, grant_digest, policy_digest, terms_digest
from reenact.actors.policy import rights_of
from reenact.actors.profiles import resolve as resolved
from reenact.events.action import (
    ActionCancelled,
    ActionExpired,
    ActionRequired,
    ActionResolved,
    CancelAction,
    ExpireAction,
    Grant,
    GrantRevoked,
    GrantUsed,
    ResolveAction,
    RevokeGrant,
)
from reenact.events.agent import (
    AgentConfigured,
    Interrupt,
    LaunchTool,
    ModelAnswered,
    ModelCalled,
    ProveTool,
    RecoverEffect,
    ResolveTool,
    RunTool,
    StartTool,
    ToolAuthorised,
    ToolChecked,
    ToolDoubted,
    ToolRelaunched,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    ToolUnproved,
    TurnCompleted,
    WakeAgent,
)
from reenact.events.errors import ActionChanged, ActionOver, BadResolution, Full, NotAPerson
from reenact.events.message import Event
from reenact.events.policy import ApplyPolicy, ModelDenied, ModelPolicy, Policy, ToolPolicy
from reenact.events.session import JobCancelled, JobFailed, JobResumed, JobStopping, JobWaiting
from reenact.events.tool import CallCheck, EffectClass, Place, arguments_digest
from tests.actors.words import CREATE, DEFINITION, asks, says, send, settles, waking
from tests.given import Given, given

NOW = 1_000_000
DAY = 24 * 3600 * 1_000_000
PLACE = Place(cwd="/work", env={"LANG": "C"}, sandbox="sha256:box")


def check(effect: EffectClass = "unsafe", **fields: Any) -> CallCheck:
    fields.setdefault("approval", "ask")
    fields.setdefault("version", "v1")
    fields.setdefault("place", PLACE)
    fields.setdefault("arguments", "sha256:a")
    return CallCheck(name="refund", effect=effect, **fields)


def resolve(action: str = "a1", approved: bool = True, **more: Any) -> ResolveAction:
    fields = {name: more.pop(name) for name in ("digest", "by", "at") if name in more}
    return ResolveAction(
        action=action, resolution={"approved": approved, **more}, **{"at": NOW + 1, "by": "ann", **fields}
    )


def start(tool: str = "t1", **fields: Any) -> StartTool:
    """What the edge finds of the call, nothing changed unless said."""
    same: dict[str, Any] = {
        "attempt": 0,
        "at": NOW + 2,
        "version": "v1",
        "effect": "unsafe",
        "timeout_s": 60.0,
        "place": PLACE,
    }
    return StartTool(tool=tool, **{**same, **fields})


ASKED = (CREATE, send(), asks("m1", check()))
APPROVED = (*ASKED, resolve())


# -- asking, and going on --


def test_a_call_that_needs_approval_is_asked_for_and_the_job_waits_while_nothing_runs() -> None:
    stream = given(CREATE, send()).when(asks("m1", check()))
    stream.then(ModelAnswered, ToolRequested, ActionRequired, JobWaiting).owes("expire-a1")
    asked, waiting = stream.events[2:]
    assert (asked.kind, asked.tool, asked.job_id, asked.reason, asked.place) == (
        "approval",
        "t1",
        "job_1",
        "tool",
        PLACE,
    )
    assert asked.digest.startswith("sha256:") and len(asked.digest) == 7 + 64
    assert (waiting.tool, waiting.action, waiting.reason) == ("t1", "a1", "approval")


def test_one_question_too_many_is_denied_and_replayed_as_denied() -> None:
    stream = given(CREATE, send()).when(asks("m1", *[check()] * (consent.APPROVALS_MAX + 2)))
    assert sum(isinstance(event, ActionRequired) for event in stream.events) == consent.APPROVALS_MAX
    denied = [event for event in stream.events if isinstance(event, ToolSettled)]
    assert [(event.outcome, event.output) for event in denied] == [("denied", consent.CROWDED)] * 2


def test_the_other_calls_of_the_answer_go_on() -> None:
    stream = given(CREATE, send()).when(asks("m1", check(), "read")).owes("t2", "expire-a1")
    stream.when(settles("t2")).then(ToolSettled).owes("expire-a1")


def test_approved_it_is_authorised_looked_at_again_and_then_started() -> None:
    stream = given(*ASKED).when(resolve()).then(ActionResolved, JobResumed, ToolAuthorised).owes("launch-t1")
    assert stream.events[2].rule == "approval a1"
    [launch] = stream.owed
    assert isinstance(launch, LaunchTool) and (launch.name, launch.input, launch.attempt) == ("refund", {"n": 0}, 0)
    stream.when(start()).then(ToolChecked, ToolStarted).owes("t1")
    [run] = stream.owed
    assert isinstance(run, RunTool) and (run.input, run.attempt) == ({"n": 0}, 1)
    assert stream.events[1].arguments == arguments_digest({"n": 0})
    stream.when(start()).then_nothing()


def test_two_that_wait_are_asked_about_one_by_one() -> None:
    stream = given(CREATE, send(), asks("m1", check(), check())).owes("expire-a1")
    stream.when(resolve("a2")).then(ActionResolved, ToolAuthorised).owes("launch-t2", "expire-a1")
    stream.when(resolve("a1")).then(ActionResolved, JobResumed, ToolAuthorised).owes("launch-t1", "launch-t2")


def test_denied_it_is_settled_and_the_model_is_told_what_the_person_said() -> None:
    stream = given(*ASKED).when(resolve(approved=False, comment="not today"))
    stream.then(ActionResolved, JobResumed, ToolSettled, ModelCalled).owes("m2")
    settled = stream.events[2]
    assert (settled.outcome, settled.error_type) == ("denied", "Denied")
    assert "not allow" in settled.output and "not today" in settled.output


def test_expired_it_is_denied() -> None:
    stream = given(*ASKED).when(ExpireAction(action="a1")).then(ActionExpired, JobResumed, ToolSettled, ModelCalled)
    assert (stream.events[2].outcome, stream.events[2].error_type) == ("denied", "ApprovalExpired")


def test_so_it_is_by_an_answer_that_comes_too_late_whatever_it_says() -> None:
    stream = given(*ASKED).when(resolve(at=NOW + DAY)).then(ActionExpired, JobResumed, ToolSettled, ModelCalled)
    stream.when(resolve(at=NOW + 1)).then_refused(ActionOver)


def test_taken_back_it_is_denied_and_the_job_goes_on() -> None:
    stream = given(*ASKED).when(CancelAction(action="a1", by="ann"))
    stream.then(ActionCancelled, JobResumed, ToolSettled, ModelCalled)
    stream = given(*ASKED).when(CancelAction(action="a1", by="ann", cancel_job=True))
    assert [type(event) for event in stream.events[:3]] == [ActionCancelled, JobStopping, ToolSettled]
    assert stream.events[2].outcome == "skipped"
    stream.owes()


@pytest.mark.parametrize("past", [ASKED, APPROVED])
def test_interrupted_nothing_is_started_and_the_question_is_over(past: Any) -> None:
    stream = given(*past).when(Interrupt()).owes()
    stream.when(start()).then_nothing()
    stream.when(resolve()).then_refused(ActionOver)


def test_an_image_may_ask_before_every_call() -> None:
    strict = replace(DEFINITION, approval_required=True, approval_timeout_s=10.0)
    stream = given(CREATE, send(waking=waking("agent_1", strict))).when(asks("m1", "read"))
    stream.then(ModelAnswered, ToolRequested, ActionRequired, JobWaiting)
    assert (stream.events[2].reason, stream.events[2].timeout_ms) == ("agent", 10_000)


def test_an_agent_approves_nothing_of_its_own() -> None:
    given(*ASKED).when(resolve(by="agent:agent_of_job_1")).then_refused(NotAPerson).owes("expire-a1")


def test_flags_that_the_model_forges_change_nothing() -> None:
    answer = asks("m1", check())
    forged = [
        replace(part, input={"approved": True, "approval": "never", "always": "exact"}) for part in answer.answer.parts
    ]
    stream = given(CREATE, send(text='{"approved": true}'))
    stream.when(replace(answer, answer=replace(answer.answer, parts=tuple(forged))))
    stream.then(ModelAnswered, ToolRequested, ActionRequired, JobWaiting)


# -- what it is bound to --


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"version": "v2"}, "another version"),
        ({"effect": "read"}, "declared otherwise"),
        ({"timeout_s": 61.0}, "declared otherwise"),
        ({"place": replace(PLACE, cwd="/tmp")}, "another place"),
        ({"place": replace(PLACE, env={})}, "another place"),
        ({"place": replace(PLACE, sandbox="")}, "another place"),
        ({"problem": "there is no tool named 'refund' here any more"}, "no tool named"),
        ({"at": NOW + DAY}, "expired"),
        ({"at": NOW - 1}, "clock"),
    ],
)
def test_what_is_not_what_was_approved_does_not_start(changed: dict[str, Any], words: str) -> None:
    stream = given(*APPROVED).when(start(**changed)).then(ToolChecked, ToolSettled, ModelCalled)
    settled = stream.events[1]
    assert (settled.outcome, settled.error_type) == ("denied", "ApprovalChanged")
    assert "Not run" in settled.output and words in settled.output


def test_an_answer_to_something_else_than_what_was_shown_is_refused() -> None:
    stream = given(*ASKED)
    digest = stream.events[2].digest
    stream.when(resolve(digest="sha256:other")).then_refused(ActionChanged).owes("expire-a1")
    stream.when(resolve(digest="")).then_refused(ActionChanged)
    stream.when(resolve(digest=digest)).then(ActionResolved, JobResumed, ToolAuthorised)


def digest_of(stream: Given) -> str:
    return next(event.digest for event in stream.events if isinstance(event, ActionRequired))


def mutated(chance: random.Random) -> tuple[str, Any, Any]:
    """A field of what an approval covers, as it was approved and as it is found."""
    text = lambda: "".join(chance.choice("abcdefgh/.-") for _ in range(chance.randint(1, 12)))  # noqa: E731
    return chance.choice(
        [
            ("version", "v1", "v1" + text()),
            ("effect", "unsafe", chance.choice(["read", "idempotent", "probeable"])),
            ("timeout_s", 60.0, 60.0 + chance.choice([-1, 1]) * chance.random()),
            ("place", PLACE, replace(PLACE, cwd=PLACE.cwd + text())),
            ("place", PLACE, replace(PLACE, cwd="")),
            ("place", PLACE, replace(PLACE, env={**PLACE.env, text(): text()})),
            ("place", PLACE, replace(PLACE, env={"LANG": "C" + text()})),
            ("place", PLACE, replace(PLACE, sandbox=PLACE.sandbox + text())),
            ("at", NOW + 2, NOW + DAY + chance.randint(0, DAY)),
            ("at", NOW + 2, NOW - chance.randint(1, DAY)),
            ("problem", None, text()),
        ]
    )


def started_though_changed(count: int) -> int:
    """Of so many approvals of which one thing changed, how many start; the others are settled as denied."""
    chance, started = random.Random(7), 0
    for _ in range(count):
        field, _, found = mutated(chance)
        stream = given(*APPROVED).when(start(**{field: found}))
        if any(isinstance(event, ToolStarted) for event in stream.events):
            started += 1
        else:
            assert any(isinstance(event, ToolSettled) and event.outcome == "denied" for event in stream.events)
    return started


def test_of_a_thousand_approvals_of_which_one_thing_changed_none_starts() -> None:
    assert started_though_changed(1000) == 0


@pytest.mark.parametrize(("room", "forgets"), [(consent, "what_changed"), (calls, "not_covered")])
def test_a_build_that_forgets_to_compare_is_found(room: ModuleType, forgets: str) -> None:
    with patch.object(room, forgets, lambda *args: None):
        assert started_though_changed(50) > 0


def test_an_approval_is_of_one_call_with_these_arguments_and_of_no_other() -> None:
    """The digest that a person saw fits nothing else: any other tool, argument, version, session, call, or time."""
    first = digest_of(given(CREATE, send()).when(asks("m1", check())))
    assert first == digest_of(given(CREATE, send()).when(asks("m1", check())))
    others = [
        given(CREATE, send()).when(asks("m1", check(version="v2"))),
        given(CREATE, send()).when(asks("m1", check("read"))),
        given(CREATE, send()).when(asks("m1", check(timeout_s=1.0))),
        given(CREATE, send()).when(asks("m1", check(place=Place()))),
        given(CREATE, send()).when(asks("m1", "read", check())),
        given(replace(CREATE, session_id="sess_2"), send()).when(asks("m1", check())),
        given(CREATE, send(waking=waking("a", replace(DEFINITION, approval_timeout_s=5.0)))).when(asks("m1", check())),
    ]
    for change in ({"n": 1}, {"n": "0"}, {"n": 0, "m": 0}, {}, {"N": 0}, {"n": [0]}):
        answer = asks("m1", check())
        parts = tuple(replace(part, input=change) for part in answer.answer.parts)
        others.append(given(CREATE, send()).when(replace(answer, answer=replace(answer.answer, parts=parts))))
    digests = [digest_of(stream) for stream in others]
    assert len({first, *digests}) == 1 + len(others)


BOUND = {
    "session": ("sess_1", "sess_2"),
    "action": ("a1", "a2"),
    "tool": ("t1", "t2"),
    "name": ("refund", "refunds"),
    "version": ("v1", "v2"),
    "arguments": ({"n": 0}, {"n": 1}),
    "effect": ("unsafe", "idempotent"),
    "timeout_s": (60.0, 61.0),
    "place": (PLACE, replace(PLACE, cwd="/work/")),
    "policy": ("sha256:rules", "sha256:other"),
    "timeout_ms": (1000, 1001),
}
"""Everything that an approval is bound to, and something else in its place."""


@pytest.mark.parametrize("field", Terms.__struct_fields__)
def test_everything_that_an_approval_is_bound_to_is_in_its_digest(field: str) -> None:
    approved = Terms(**{name: value for name, (value, _) in BOUND.items()})
    assert terms_digest(replace(approved, **{field: BOUND[field][1]})) != terms_digest(approved)


LEAVE: dict[str, Any] = {name: BOUND[name] for name in ("name", "version", "arguments", "place", "policy")}


@pytest.mark.parametrize("field", LEAVE)
def test_so_it_is_with_a_leave_for_calls_to_come(field: str) -> None:
    given = {name: value for name, (value, _) in LEAVE.items()}
    assert grant_digest(**{**given, field: LEAVE[field][1]}) != grant_digest(**given)


@pytest.mark.parametrize("field", Place.__struct_fields__)
def test_and_with_every_part_of_the_place(field: str) -> None:
    other: Any = {"cwd": "/", "env": {"LANG": "D"}, "sandbox": "sha256:none"}
    given = {name: value for name, (value, _) in LEAVE.items()}
    place = replace(PLACE, **{field: other[field]})
    assert grant_digest(**{**given, "place": place}) != grant_digest(**given)
    approved = Terms(**{name: value for name, (value, _) in BOUND.items()})
    assert terms_digest(replace(approved, place=place)) != terms_digest(approved)


@pytest.mark.parametrize("forged", ["what was shown", "what was asked for", "how long it holds", "by what version"])
def test_a_log_in_which_something_else_was_approved_than_what_would_run_starts_nothing(forged: str) -> None:
    stream, told = given(), list[Event]()
    for command in APPROVED:
        told += stream.when(command).events
    other: dict[str, dict[type[Event], dict[str, Any]]] = {
        "what was shown": {ActionRequired: {"digest": "sha256:" + "0" * 64}},
        "what was asked for": {ModelAnswered: {"parts": asks("m1", "read", check()).answer.parts[1:]}},
        "how long it holds": {ActionRequired: {"timeout_ms": 10**9}},
        "by what version": {ToolRequested: {"version": "v2"}},
    }
    log = [replace(event, **other[forged].get(type(event), {})) for event in told]
    assert log != told
    found = {"version": "v2"} if forged == "by what version" else {}
    stream = given(*log).when(start(**found))
    assert [event.outcome for event in stream.events if isinstance(event, ToolSettled)] == ["denied"]
    assert not any(isinstance(event, ToolStarted) for event in stream.events)


@pytest.mark.parametrize(("scope", "principal"), [("acme", "ann"), ("globex", "bob")])
def test_the_rules_that_an_approval_is_bound_to_are_those_over_whoever_asked(scope: str, principal: str) -> None:
    rules = Policy(name="house", rules=(ToolPolicy(tool_patterns=("refund",), allowed_principals=("ann", "bob")),))
    assert policy_digest(rights_of((rules,), scope, principal)) != policy_digest(rights_of((rules,), "acme", "bob"))


def test_what_runs_is_the_call_in_the_log_and_not_what_the_answer_brings_along() -> None:
    given(*ASKED).when(resolve(params={"n": 9})).then_refused(BadResolution)


def test_a_changed_definition_does_not_loosen_an_approval() -> None:
    other = replace(DEFINITION, image_version=2)
    stream = given(*APPROVED, WakeAgent(waking=waking("agent_2", other)))
    assert any(isinstance(event, AgentConfigured) for event in stream.events)
    stream.when(start()).then(ToolChecked, ToolStarted)


def test_what_nobody_approved_yet_does_not_start_whatever_comes() -> None:
    given(*ASKED).when(start()).then_nothing()
    given(*ASKED).when(settles("t1")).then_nothing()
    given(*ASKED, resolve(approved=False)).when(start()).then_nothing()


def test_an_approval_is_used_once() -> None:
    begun = given(*APPROVED, start())
    for attempt in (0, 1, 2):
        begun.when(start(attempt=attempt)).then_nothing()
    begun.when(resolve()).then_refused(ActionOver)
    begun.when(settles("t1")).when(start(attempt=1)).then_nothing()


# -- other arguments --


def test_a_person_may_change_the_arguments_and_those_are_what_runs() -> None:
    stream = given(*ASKED).when(resolve(arguments={"n": 5})).then(ActionResolved, JobResumed, ToolAuthorised)
    assert stream.owed[0].input == {"n": 5}
    stream.when(start()).then(ToolChecked, ToolStarted)
    assert stream.owed[0].input == {"n": 5} and stream.events[1].arguments == arguments_digest({"n": 5})


def test_what_a_person_changed_is_a_part_of_what_the_model_sees() -> None:
    def context(*commands: Any) -> str:
        stream = given(*ASKED, *commands, start()).when(settles("t1"))
        return next(event.context for event in stream.events if isinstance(event, ModelCalled))

    assert context(resolve()) == context(resolve(comment="fine"))
    assert len({context(resolve()), context(resolve(arguments={"n": 5})), context(resolve(arguments={"n": 6}))}) == 3


def test_what_is_denied_has_no_other_arguments() -> None:
    given(*ASKED).when(resolve(approved=False, arguments={})).then_refused(BadResolution)
    given(*ASKED).when(resolve(approved=False, always="exact")).then_refused(BadResolution)


# -- leave for calls to come --


def again(*more: Any) -> tuple[Any, ...]:
    """A second turn, in which the same is asked for."""
    return (start(), settles("t1"), says("m2"), send("job_2"), *more)


def test_always_exactly_this_lets_the_same_call_start_at_once() -> None:
    stream = given(*ASKED, resolve(always="exact"), *again()).when(asks("m3", check()))
    stream.then(ModelAnswered, ToolRequested, GrantUsed, ToolAuthorised, ToolStarted).owes("t2")
    assert (stream.events[2].grant, stream.events[3].rule) == ("a1", "grant a1")


@pytest.mark.parametrize("other", [{"version": "v2"}, {"place": Place()}])
def test_and_no_other(other: dict[str, Any]) -> None:
    stream = given(*ASKED, resolve(always="exact"), *again()).when(asks("m3", check(**other)))
    assert any(isinstance(event, ActionRequired) for event in stream.events)


def test_nor_the_same_tool_with_other_arguments() -> None:
    stream = given(*ASKED, resolve(always="exact"), *again()).when(asks("m3", "read", check()))
    assert any(isinstance(event, ActionRequired) for event in stream.events)


def test_leave_for_edited_arguments_is_for_those() -> None:
    stream = given(*ASKED, resolve(always="exact", arguments={"n": 5}), *again()).when(asks("m3", check()))
    assert any(isinstance(event, ActionRequired) for event in stream.events)


def test_leave_for_a_class_is_given_to_tools_that_only_read_and_to_no_others() -> None:
    for effect in ("idempotent", "probeable", "unsafe"):
        stream = given(CREATE, send(), asks("m1", check(effect)))
        stream.when(resolve(always="class")).then_refused(BadResolution, "effect='read'")
    past = (CREATE, send(), asks("m1", check("read")), resolve(always="class"), start(effect="read"), settles("t1"))
    stream = given(*past).when(asks("m2", "read", check("read")))
    assert [type(event) for event in stream.events[-3:]] == [GrantUsed, ToolAuthorised, ToolStarted]
    stream = given(*past).when(asks("m2", check("unsafe")))
    assert any(isinstance(event, ActionRequired) for event in stream.events)
    stream = given(*past).when(asks("m2", check("read", version="v2")))
    assert any(isinstance(event, ActionRequired) for event in stream.events)


def test_a_session_keeps_so_many_leaves_and_no_more() -> None:
    stream = given(*ASKED)
    one = Grant(action="a0", kind="exact", name="refund", version="v1", digest="sha256:0", by="ann")
    full = (one,) * GRANTS_MAX
    stream.states = tuple(replace(state, grants=full) if hasattr(state, "grants") else state for state in stream.states)
    stream.when(resolve(always="exact")).then_refused(Full, "revoke one")
    stream.when(resolve()).then(ActionResolved, JobResumed, ToolAuthorised)


def test_leave_is_taken_back_once() -> None:
    revoke = RevokeGrant(action="a1", by="ann")
    stream = given(*ASKED, resolve(always="exact"), *again()).when(revoke).then(GrantRevoked)
    stream.when(revoke).then_nothing()
    stream.when(asks("m3", check()))
    assert any(isinstance(event, ActionRequired) for event in stream.events)


# -- what rules ask for --


def under(*rules: Any) -> Any:
    return replace(DEFINITION, policy=resolved((Policy(name="production", version="3", rules=rules),)))


ASK = ToolPolicy(tool_patterns=("refund",), decision="require_approval", reason="Money.", name="pay")
ASK_MODEL = ModelPolicy(model_patterns=("scripted:*",), require_approval=True, name="big")


def test_a_rule_may_ask_for_a_person_and_what_it_asked_is_in_the_log() -> None:
    ruled = (CREATE, send(waking=waking("agent_1", under(ASK))))
    stream = given(*ruled).when(asks("m1", check(approval="never"), "read")).owes("t2", "expire-a1")
    asked = next(event for event in stream.events if isinstance(event, ActionRequired))
    assert asked.reason == "policy production/pay" and asked.policy.startswith("sha256:")
    stream.when(resolve()).when(start()).then(ToolChecked, ToolStarted)


@pytest.mark.parametrize(
    "rules", [(), (replace(ASK, decision="deny"),), (replace(ASK, decision="allow"),), (ASK, ASK_MODEL)]
)
def test_other_rules_by_then_are_not_those_it_was_approved_under(rules: Any) -> None:
    ruled = (CREATE, send(waking=waking("agent_1", under(ASK))), asks("m1", check()), resolve())
    changed = ApplyPolicy(policy=under(*rules).policy)
    stream = given(*ruled, changed).when(start())
    assert not any(isinstance(event, ToolStarted) for event in stream.events)
    assert "the policy has changed" in stream.events[1].output


def test_what_a_rule_denies_nobody_is_asked_about() -> None:
    ruled = (CREATE, send(waking=waking("agent_1", under(replace(ASK, decision="deny")))))
    stream = given(*ruled).when(asks("m1", check()))
    assert not any(isinstance(event, ActionRequired) for event in stream.events)


def leave(kind: str, *rules: Any) -> Any:
    """A leave was given under these rules, and the call has ended."""
    asked = (CREATE, send(waking=waking("agent_1", under(*rules))), asks("m1", check("read")))
    return (*asked, resolve(always=kind), start(effect="read"), settles("t1"))


@pytest.mark.parametrize("kind", ["exact", "class"])
@pytest.mark.parametrize("before", [(), (ASK,)])
def test_leave_for_calls_to_come_ends_with_the_rules_it_was_given_under(kind: str, before: Any) -> None:
    past = leave(kind, *before)
    assert any(isinstance(event, GrantUsed) for event in given(*past).when(asks("m2", check("read"))).events)
    for after in ((*before, ASK_MODEL), (*before, replace(ASK, reason="A rule made later."))):
        stream = given(*past, ApplyPolicy(policy=under(*after).policy)).when(asks("m2", check("read")))
        assert any(isinstance(event, ActionRequired) for event in stream.events)
        assert not any(isinstance(event, GrantUsed | ToolStarted) for event in stream.events)


@pytest.mark.parametrize("kind", ["exact", "class"])
def test_and_is_for_the_place_it_was_given_for(kind: str) -> None:
    stream = given(*leave(kind, ASK)).when(asks("m2", check("read", place=Place(cwd="/elsewhere"))))
    assert any(isinstance(event, ActionRequired) for event in stream.events)


def test_a_model_that_a_rule_gates_is_called_when_a_person_allows_it_for_the_rest_of_the_job() -> None:
    stream = given(CREATE).when(send(waking=waking("agent_1", under(ASK_MODEL)))).owes("expire-a1")
    asked, waiting = stream.events[-2:]
    assert (asked.kind, asked.payload, asked.tool) == ("approval", {"model": "scripted:echo"}, None)
    assert isinstance(waiting, JobWaiting) and waiting.action == "a1"
    stream.when(resolve(always="exact")).then_refused(BadResolution)
    stream.when(resolve()).then(ActionResolved, JobResumed, ModelCalled).owes("m1")
    stream.when(asks("m1", "read")).when(settles("t1")).owes("m2")
    stream.when(says("m2")).when(send("job_2", waking=None)).owes("expire-a2")


@pytest.mark.parametrize(
    "end",
    [resolve(approved=False), ExpireAction(action="a1"), resolve(at=NOW + DAY), CancelAction(action="a1", by="b")],
)
def test_and_not_where_they_do_not(end: Any) -> None:
    stream = given(CREATE, send(waking=waking("agent_1", under(ASK_MODEL)))).when(end).owes()
    assert [type(event) for event in stream.events[1:]] == [JobResumed, ModelDenied, TurnCompleted, JobFailed]


def test_interrupted_before_anybody_allowed_it_the_turn_is_over() -> None:
    stream = given(CREATE, send(waking=waking("agent_1", under(ASK_MODEL)))).when(Interrupt()).owes()
    assert any(isinstance(event, JobCancelled) for event in stream.events)
    assert sum(isinstance(event, TurnCompleted) for event in stream.events) == 1
    both = CancelAction(action="a1", by="ann", cancel_job=True)
    stream = given(CREATE, send(waking=waking("agent_1", under(ASK_MODEL)))).when(both).owes()
    assert sum(isinstance(event, TurnCompleted) for event in stream.events) == 1


# -- crashes --


def test_what_waits_and_what_is_authorised_is_so_after_a_crash() -> None:
    given(*ASKED).after_a_crash().owes("expire-a1").when(resolve()).then(ActionResolved, JobResumed, ToolAuthorised)
    given(*APPROVED).after_a_crash().owes("launch-t1").when(start()).then(ToolChecked, ToolStarted)


def test_an_approved_call_that_may_repeat_is_looked_at_again_before_it_does() -> None:
    past = (CREATE, send(), asks("m1", check("idempotent")), resolve(), start(effect="idempotent"))
    stream = given(*past).after_a_crash().when(RecoverEffect(effect="t1", attempt=1))
    stream.then(ToolRelaunched).owes("launch-t1")
    stream.when(start(effect="idempotent", attempt=0)).then_nothing()
    stream.when(start(effect="idempotent", attempt=1)).then(ToolChecked, ToolStarted).owes("t1")
    assert stream.events[1].attempt == 2


def test_one_that_is_another_tool_by_then_is_not_begun_again_and_nobody_says_that_it_never_was() -> None:
    past = (CREATE, send(), asks("m1", check("idempotent")), resolve(), start(effect="idempotent"))
    stream = given(*past, RecoverEffect(effect="t1", attempt=1))
    stream.when(start(effect="idempotent", attempt=1, version="v2")).then(ToolChecked, ToolSettled, ModelCalled)
    assert stream.events[1].outcome == "unknown" and "not begun again" in stream.events[1].output


def test_so_it_is_with_one_that_ran_on_leave_unless_the_leave_was_taken_back() -> None:
    first = (CREATE, send(), asks("m1", check("idempotent")), resolve(always="exact"), start(effect="idempotent"))
    past = (*first, settles("t1"), asks("m2", check("idempotent")), RecoverEffect(effect="t2", attempt=1))
    again = start("t2", effect="idempotent", attempt=1)
    given(*past).owes("launch-t2").when(again).then(ToolChecked, ToolStarted)
    given(*past).when(start("t2", effect="idempotent", attempt=1, version="v2")).then(
        ToolChecked, ToolSettled, ModelCalled
    )
    stream = given(*past, RevokeGrant(action="a1", by="ann")).when(again).then(ToolChecked, ToolSettled, ModelCalled)
    assert stream.events[1].outcome == "unknown" and "taken back" in stream.events[1].output


def test_an_approved_call_in_doubt_is_never_begun_again_by_a_guess() -> None:
    stream = given(*APPROVED, start()).when(RecoverEffect(effect="t1", attempt=1))
    stream.then(ToolDoubted, ToolUnproved, JobWaiting).owes()
    stream.when(ResolveTool(tool="t1", outcome="retry")).then(ToolRelaunched, JobResumed).owes("launch-t1")


def test_nor_one_of_which_the_world_says_that_it_did_not_happen_before_it_was_looked_at() -> None:
    past = (CREATE, send(), asks("m1", check("probeable")), resolve(), start(effect="probeable"))
    stream = given(*past, RecoverEffect(effect="t1", attempt=1)).when(ProveTool(tool="t1", happened=False))
    stream.then(ToolRelaunched).owes("launch-t1")
