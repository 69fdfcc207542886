"""What an approval is bound to: exactly what would run, and nothing that was changed since starts."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from reenact.actors import consent
from reenact.actors import tool as calls
from reenact.actors.approval import Terms, grant_digest, policy_digest, terms_digest
from reenact.actors.policy import rights_of
from reenact.events.action import ActionRequired, ActionResolved
from reenact.events.agent import (
    AgentConfigured,
    ModelAnswered,
    ModelCalled,
    ToolAuthorised,
    ToolChecked,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    WakeAgent,
)
from reenact.events.errors import ActionChanged, ActionOver, BadResolution
from reenact.events.message import Event
from reenact.events.policy import Policy, ToolPolicy
from reenact.events.session import JobResumed
from reenact.events.tool import Place
from tests.actors.approvals import APPROVED, ASKED, DAY, NOW, PLACE, check, resolve, start
from tests.actors.words import CREATE, DEFINITION, asks, send, settles, waking
from tests.given import Given, given


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
    "place": (PLACE, replace(PLACE, cwd="/srv/elsewhere")),
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
