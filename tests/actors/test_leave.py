"""Leave for calls to come: for which it counts, under which rules, and that it is taken back."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reenact.actors.approval import GRANTS_MAX
from reenact.events.action import ActionRequired, ActionResolved, Grant, GrantRevoked, GrantUsed, RevokeGrant
from reenact.events.agent import ModelAnswered, ToolAuthorised, ToolRequested, ToolStarted
from reenact.events.errors import BadResolution, Full
from reenact.events.policy import ApplyPolicy
from reenact.events.session import JobResumed
from reenact.events.tool import Place
from tests.actors.approvals import ASK, ASK_MODEL, ASKED, check, resolve, start, under
from tests.actors.words import CREATE, DEFINITION, asks, says, send, settles, waking
from tests.given import given


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
    conversation, agent, *others = stream.states
    stream.states = (conversation, replace(agent, consent=replace(agent.consent, grants=full)), *others)
    stream.when(resolve(always="exact")).then_refused(Full, "revoke one")
    stream.when(resolve()).then(ActionResolved, JobResumed, ToolAuthorised)


@pytest.mark.parametrize("kind", ["exact", "class"])
@pytest.mark.parametrize("bound", [True, False])
def test_leave_is_for_jobs_of_whoever_sent_the_one_that_asked_and_as_it_was_given_once_for_everybody_s(
    kind: str, bound: bool
) -> None:
    for sender, covered in (("user", True), ("bob", not bound)):
        stream = given(CREATE, send(), asks("m1", check("read")), resolve(always=kind, bound=bound))
        for command in (start(effect="read"), settles("t1"), says("m2")):
            stream.when(command)
        stream.principal = sender
        stream.when(send("job_2")).when(asks("m3", check("read")))
        assert any(isinstance(event, GrantUsed) for event in stream.events) is covered
        assert any(isinstance(event, ActionRequired) for event in stream.events) is not covered


def test_leave_is_taken_back_once() -> None:
    revoke = RevokeGrant(action="a1", by="ann")
    stream = given(*ASKED, resolve(always="exact"), *again()).when(revoke).then(GrantRevoked)
    stream.when(revoke).then_nothing()
    stream.when(asks("m3", check()))
    assert any(isinstance(event, ActionRequired) for event in stream.events)


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


@pytest.mark.parametrize("kind", ["exact", "class"])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("switched", [True, False])
def test_leave_ends_when_approval_required_is_switched_and_one_given_by_an_earlier_build_does_not(
    kind: str, before: bool, switched: bool
) -> None:
    woken = waking("agent_1", replace(DEFINITION, approval_required=before))
    past = (CREATE, send(waking=woken), asks("m1", check("read")), resolve(always=kind, switched=switched))
    past = (*past, start(effect="read"), settles("t1"))
    assert any(isinstance(event, GrantUsed) for event in given(*past).when(asks("m2", check("read"))).events)
    stream = given(*past, ApplyPolicy(policy=(), approval_required=not before)).when(asks("m2", check("read")))
    assert any(isinstance(event, GrantUsed) for event in stream.events) is not switched
    assert any(isinstance(event, ActionRequired) for event in stream.events) is switched
