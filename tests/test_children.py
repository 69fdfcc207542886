"""What an agent has others do is done within its own rights, and counts for whoever had it done."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reenact import Policy, Runtime, ToolPolicy, tool
from reenact.adapters.models import Models
from reenact.events import codec
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.policy import PolicyDecision
from reenact.projections.meter import ModelUse, uses
from tests.money import everything_replays
from tests.runtimes import Heard, run

NO_PAY = Policy(name="strict", deny=("pay",))
MODEL = {"model": "scripted:tools"}
paid: list[int] = []
here: list[Runtime] = []


@tool(effect="idempotent")
def pay(cents: int) -> str:
    """Pay."""
    paid.append(cents)
    return "paid"


@tool(effect="idempotent")
async def spawn(container: str, name: str, say: str) -> str:
    """Have another agent do it."""
    kid = await here[0].image(name, container=container)
    ended = await kid.send(say)
    return f"{ended.status}: {ended.text}"


@tool(effect="idempotent")
async def hand_out(image: str, says: list[str]) -> str:
    """Have another agent do several things, one after the other."""
    kid = await here[0].image(image)
    return "; ".join([(await kid.send(say)).status for say in says])


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    paid.clear()
    here.clear()


def family(work: Callable[[Runtime], Awaitable[None]], **options: Any) -> None:
    async def with_it(runtime: Runtime) -> None:
        here[:] = [runtime]
        await work(runtime)

    run(with_it, models=Models(), default_agent=MODEL, tools=[pay, spawn, hand_out], **options)


def spawning(say: str, container: str = "other", name: str = "kid") -> str:
    return f"spawn {json.dumps({'container': container, 'name': name, 'say': say})}"


PAY = 'pay {"cents": 5}'
ASKS = Policy(name="asks", rules=(ToolPolicy(tool_patterns=("pay",), decision=PolicyDecision.REQUIRE_APPROVAL),))
OF_IMAGE: dict[str, dict[str, Any]] = {
    "its image's policy": {"policy": NO_PAY},
    "its image's tools": {"tools": ["spawn"]},
    "that a person is asked": {"policy": ASKS},
    "its container's policy": {},
    "its job's policy": {},
}


@pytest.mark.parametrize("container", ["default", "other"])
@pytest.mark.parametrize("rule", OF_IMAGE)
def test_what_an_agent_sends_is_held_to_what_its_own_job_is_under(rule: str, container: str) -> None:
    async def work(runtime: Runtime) -> None:
        if "container" in rule:
            await runtime.set_policy("default", NO_PAY)
        boss = await runtime.image("boss", **OF_IMAGE[rule])
        said = await boss.send(spawning(PAY, container), policy=NO_PAY if "job" in rule else None)
        assert not paid, said.text
        kid = await runtime.image("kid", container=container)
        assert [each.data.name for each in await kid.events() if each.type == "tool_requested"] in ([], ["pay"])
        assert (await runtime.replay(kid.session_id)).identical
        if container == "other" and "asked" not in rule:
            assert (await kid.send('pay {"cents": 7}')).text == "paid" and paid == [7], (
                "a person's job is under its own"
            )

    family(work)


def test_where_a_person_is_asked_before_every_call_they_are_asked_before_those_of_a_child_too() -> None:
    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        boss = await runtime.image("boss", approval_required=True)
        assert (await boss.send(spawning(PAY))).status == "waiting"
        [action] = await runtime.actions()
        await runtime.resolve_action(action.id, True, digest=action.digest)
        await heard.until("action_required", 2)
        [action] = await runtime.actions()
        assert action.reason == "policy approval_required/every tool" and not paid
        await runtime.resolve_action(action.id, True, digest=action.digest)
        await heard.until("tool_settled", 2)
        assert paid == [5]

    family(work)


def test_it_goes_down_to_whoever_the_child_sends_to() -> None:
    async def work(runtime: Runtime) -> None:
        boss = await runtime.image("boss", policy=NO_PAY)
        await runtime.image("kid", container="other", policy=Policy(name="of the kid"))
        await boss.send(spawning(spawning(PAY, "third", "grandchild")))
        low = await runtime.image("grandchild", container="third")
        [queued] = [each.data for each in await low.events() if each.type == "job_queued"]
        assert [each.name for each in queued.overrides.within] == ["of the kid", "strict"] and not paid

    family(work)


def test_it_holds_over_a_restart_and_is_stored_once_for_jobs_of_agents_alone() -> None:
    store = MemoryStore()
    asked: list[Any] = []
    strict = Policy(
        name="strict", rules=(ToolPolicy(tool_patterns=("pay",), decision=PolicyDecision.REQUIRE_APPROVAL),)
    )

    async def before(runtime: Runtime) -> None:
        kid = await runtime.image("kid", container="other")
        assert (await kid.send("hello")).status == "succeeded"
        await (await runtime.image("boss")).send(spawning(PAY), policy=strict)
        asked.extend(await runtime.actions())

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        [action] = asked
        assert action.reason == "policy strict/rule 1" and not paid
        await runtime.resolve_action(action.id, True, digest=action.digest)
        await heard.until("job_succeeded")
        kid = await runtime.image("kid", container="other")
        events = await kid.events()
        jobs = [each.data.overrides for each in events if each.type == "job_queued"]
        assert jobs[0] is None and (jobs[1].within, jobs[1].origin) == ((strict,), "user") and paid == [5]
        assert [each.data.overrides for each in events if each.type == "job_started"] == [None, None]
        assert (await runtime.replay(kid.session_id)).identical

    family(before, store=store)
    family(after, store=store)


def test_who_sends_by_the_bus_is_not_known_and_sends_nothing() -> None:
    said: list[str] = []

    @tool(effect="idempotent")
    async def asks() -> str:
        """Ask by the bus."""
        answer = await here[0].request("message_send_request", {"imageId": here[1], "content": 'pay {"cents": 5}'})
        said.append(answer.data.error)
        return "asked"

    async def work(runtime: Runtime) -> None:
        kid = await runtime.image("kid", model="scripted:tools")
        here[:] = [runtime, kid.id]  # type: ignore[list-item]
        assert (await (await runtime.image("boss", policy=NO_PAY)).send("asks {}")).text == "asked"
        assert "not known under which rules" in said[0] and not paid

    run(work, models=Models(), default_agent=MODEL, tools=[pay, asks])


# -- for whom it counts --


async def sent_by(runtime: Runtime, principal: str, say: str) -> str:
    boss = await runtime.image("boss")
    return (await (await runtime.scoped(principal=principal).send(boss.id, say))).status


def handing_out(tree: list[Any], depth: int = 1) -> str:
    """A message by which a tree of jobs is sent: each level to an agent of its own, which all who send share."""
    says = [handing_out(each, depth + 1) for each in tree]
    return f"hand_out {json.dumps({'image': f'level {depth}', 'says': says})}" if tree else "hello"


def asked_of_models(runtime: Runtime) -> dict[str, int]:
    """How many model calls were made for each principal."""
    log = runtime.log
    every = (recorded for stream in log.streams() for stored in log.read(stream) for recorded in codec.unpack(stored))
    used = [use.principal for use in uses(every) if isinstance(use, ModelUse)]
    return {name: used.count(name) for name in used}


def test_what_an_agent_has_others_do_counts_in_the_limits_of_whoever_sent_to_it() -> None:
    store = MemoryStore()

    async def work(runtime: Runtime) -> None:
        await runtime.set_budget({"principal_id": "alice", "max_requests_daily": 4, "max_tool_calls_daily": 3})
        await sent_by(runtime, "alice", handing_out([[[], []], [], [], []]))
        assert [(use.of, use.name, use.used) for use in await runtime.budget()] == [
            ("principal", "alice", 4),
            ("principal", "alice", 2),
        ]
        assert asked_of_models(runtime) == {"alice": 4}
        assert await sent_by(runtime, "bob", handing_out([[], []])) == "succeeded"
        assert asked_of_models(runtime) == {"alice": 4, "bob": 4}

    family(work, store=store)
    everything_replays(MemoryLog(store))


def test_what_it_had_them_do_before_any_limit_was_set_counts_in_the_first_one() -> None:
    store = MemoryStore()

    async def work(runtime: Runtime) -> None:
        await sent_by(runtime, "alice", handing_out([[[]], []]))
        await sent_by(runtime, "bob", handing_out([[]]))
        for name, made in (("alice", 6), ("bob", 3)):
            await runtime.set_budget({"principal_id": name, "max_requests_daily": 50, "max_tool_calls_daily": 50})
            used = [use.used for use in await runtime.budget() if use.name == name]
            assert used == [made, made // 2 - (name == "alice")]

    family(work, store=store)
    everything_replays(MemoryLog(store))


trees = st.recursive(st.just([]), lambda below: st.lists(below, max_size=3), max_leaves=6)


@settings(max_examples=25, deadline=None)
@given(sent=st.lists(st.tuples(st.sampled_from(["alice", "bob"]), trees), max_size=4), most=st.integers(1, 8))
def test_whatever_is_handed_down_nobody_has_more_done_than_their_limit_leaves(
    sent: list[tuple[str, list[Any]]], most: int
) -> None:
    store = MemoryStore()

    async def work(runtime: Runtime) -> None:
        await runtime.set_budget({"principal_id": "alice", "max_requests_daily": most})
        for principal, tree in sent:
            await sent_by(runtime, principal, handing_out(tree))
        made = asked_of_models(runtime)
        [use] = await runtime.budget()
        assert made.keys() <= {"alice", "bob"} and use.used == made.get("alice", 0) <= most

    family(work, store=store)
    everything_replays(MemoryLog(store))


def test_a_leave_given_for_one_s_work_is_for_no_other_s_by_way_of_an_agent_that_both_use() -> None:
    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        boss, kid = await runtime.image("boss", policy=ASKS), await runtime.image("kid")
        for said, principal in enumerate(("alice", "bob", "alice"), start=1):
            await (await runtime.scoped(principal=principal).send(boss.id, spawning(PAY, "default")))
            if said < 3:
                [action] = await runtime.actions()
                await runtime.resolve_action(action.id, True, digest=action.digest, always="exact")
                await heard.until("job_succeeded", 2 * said)
        assert [grant.principal for grant in await runtime.grants(kid.session_id)] == ["alice", "bob"]
        assert paid == [5, 5, 5] and not await runtime.actions()

    family(work)


def test_in_another_scope_it_counts_for_the_agent_for_there_the_same_name_is_somebody_else_s() -> None:
    async def work(runtime: Runtime) -> None:
        other = runtime.scoped(scope="other")
        await other.set_budget({"principal_id": "alice", "max_requests_daily": 1})
        here[0] = other
        assert await sent_by(runtime, "alice", handing_out([[], []])) == "succeeded"
        assert [use.used for use in await other.budget()] == [0]
        assert [name.partition(":")[0] for name in asked_of_models(runtime)] == ["alice", "agent"]

    family(work)
