"""A job is held to the policy that its context or its message names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from reenact import ExecutionContext, Policy, PolicyContext, PolicyEngine, PolicyRef, Runtime, ToolPolicy, tool
from reenact.actors.engine import one_layer
from reenact.actors.policy import rights_of
from reenact.actors.profiles import resolve
from reenact.events.errors import BadInput, NotFound
from tests.runtimes import run

PAY = [{"tool_calls": [{"name": "pay", "input": {}}, {"name": "look", "input": {}}]}, {"text": "Done."}]


@tool(effect="read")
def look() -> str:
    """Look."""
    return "seen"


@tool(effect="idempotent")
def pay() -> str:
    """Pay."""
    return "paid"


def engine() -> PolicyEngine:
    made = PolicyEngine()
    made.add_policy(
        Policy(name="production", version="v1", rules=(ToolPolicy(tool_patterns=("pay",), decision="deny"),))
    )
    made.add_policy(Policy(name="production", version="v2"))
    return made


async def settled(bot: Any) -> dict[str, str]:
    asked = {event.data.tool: event.data.name for event in await bot.events() if event.type == "tool_requested"}
    return {asked[event.data.tool]: event.data.outcome for event in await bot.events() if event.type == "tool_settled"}


@pytest.mark.parametrize("version", ["0", "1", None])
def test_the_engine_says_of_any_version_of_its_own_policy_what_the_runtime_does(version: str | None) -> None:
    made, ref = (
        PolicyEngine([ToolPolicy(tool_patterns=("pay",), decision="deny")]),
        PolicyRef(name="policy", version=version),
    )

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("clerk")
        await bot.send("pay", policy=ref)
        assert await settled(bot) == {"pay": "denied", "look": "ok"}
        said = {name: await made.check_tool(name, PolicyContext(policy_ref=ref)) for name in ("pay", "look")}
        assert {name: each.decision.value for name, each in said.items()} == {"pay": "deny", "look": "allow"}

    run(work, PAY, repeat=False, tools=[look, pay], policy=made)


def test_a_rule_that_is_added_to_an_engine_holds_where_a_runtime_begins_with_it() -> None:
    made = PolicyEngine()

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("clerk")
        made.add_rule(ToolPolicy(tool_patterns=("pay",), decision="deny"))
        await bot.send("pay")
        outcomes.append((await settled(bot))["pay"])

    outcomes: list[str] = []
    for _ in range(2):
        run(work, PAY, repeat=False, tools=[look, pay], policy=made)
    assert outcomes == ["ok", "denied"]


@pytest.mark.parametrize(
    ("ref", "outcomes"),
    [
        (PolicyRef(name="production", version="v1"), {"pay": "denied", "look": "ok"}),
        (PolicyRef(name="production"), {"pay": "ok", "look": "ok"}),
        (PolicyRef(name="production", overrides={"deny": ["look"]}), {"pay": "ok", "look": "denied"}),
        (PolicyRef(name="production", version="v1", overrides={"deny": ["look"]}), {"pay": "denied", "look": "denied"}),
    ],
)
@pytest.mark.parametrize("named_by", ["context", "message"])
def test_the_policy_that_is_named_holds_for_the_job(ref: PolicyRef, outcomes: dict[str, str], named_by: str) -> None:
    async def work(runtime: Runtime) -> None:
        if named_by == "context":
            view = runtime.as_(ExecutionContext(policy_ref=ref))
            bot = await view.image("clerk")
            result = await bot.send("pay")
        else:
            bot = await runtime.image("clerk")
            result = await bot.send("pay", policy=ref)
        assert result.status == "succeeded" and await settled(bot) == outcomes
        assert (await runtime.replay(bot.session_id)).identical

    run(work, PAY, repeat=False, tools=[look, pay], policy=engine())


def test_a_name_of_no_policy_is_refused_and_nothing_is_sent() -> None:
    async def work(runtime: Runtime) -> None:
        for ref in (PolicyRef(name="staging"), PolicyRef(name="production", version="v9")):
            view = runtime.as_(ExecutionContext(policy_ref=ref))
            bot = await view.image("clerk")
            with pytest.raises(NotFound, match=f"no policy {ref.name}"):
                await bot.send("pay")
            with pytest.raises(NotFound):
                await runtime.send(bot.id, "pay", policy=ref)
        view = runtime.as_(ExecutionContext(policy_ref=PolicyRef(name="production", overrides={"denied": ["look"]})))
        with pytest.raises(BadInput, match="overrides"):
            await (await view.image("clerk")).send("pay")
        assert not [event for event in await bot.events() if event.type == "job_queued"]

    run(work, PAY, tools=[look, pay], policy=engine())


@pytest.mark.parametrize(
    "overrides", [{"deny": "pay"}, {"deny": "pay", "allow_fs": False}, {"deny": 5, "allow_fs": False}]
)
def test_an_override_that_is_no_list_of_names_is_refused_and_nothing_is_sent(overrides: dict[str, Any]) -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("clerk")
        with pytest.raises(BadInput, match="overrides: deny: must be a list of names"):
            await bot.send("pay", policy=PolicyRef(name="production", overrides=overrides))
        assert not [event for event in await bot.events() if event.type == "job_queued"]

    run(work, PAY, tools=[look, pay], policy=engine())


def test_without_an_engine_no_name_is_known() -> None:
    async def work(runtime: Runtime) -> None:
        view = runtime.as_(ExecutionContext(policy_ref=PolicyRef(name="production")))
        with pytest.raises(NotFound, match="no PolicyEngine"):
            await (await view.image("clerk")).send("pay")

    run(work, PAY, tools=[look, pay])


def test_no_way_of_sending_gets_past_the_policy_of_a_context() -> None:
    async def work(runtime: Runtime) -> None:
        view = runtime.as_(ExecutionContext(policy_ref=PolicyRef(name="production", version="v1")))
        bot = await view.image("clerk")
        with pytest.raises(BadInput, match="held to the policy production"):
            await bot.send("pay", policy=Policy(name="mine"))
        data = {"imageId": bot.id, "content": "pay"}
        with pytest.raises(BadInput, match="not the bus"):
            await view.request("message_send_request", data)
        with pytest.raises(BadInput, match="not the bus"):
            await view.bus.request("message_send_request", data)
        with pytest.raises(BadInput, match="not the bus"):
            view.bus.emit_command("message_send_request", data)
        child = runtime.as_(view.context.child())
        assert (await (await child.image("clerk")).send("pay")).status == "succeeded"
        assert (await settled(bot))["pay"] == "denied"

    run(work, PAY, repeat=False, tools=[look, pay], policy=engine())


NAMES = st.sampled_from(["look", "pay", "file_read", "web_search", "exec"])
LISTS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
POLICIES = st.builds(
    Policy,
    allow=st.none() | LISTS,
    deny=st.just(()) | LISTS,
    also_allow=st.just(()) | LISTS,
    profile=st.none() | st.sampled_from(["minimal", "coding"]),
    max_tool_calls_per_turn=st.none() | st.integers(0, 3),
)
OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        "allow": LISTS,
        "deny": LISTS,
        "also_allow": LISTS,
        "profile": st.sampled_from(["minimal", "coding"]),
        "max_tool_calls_per_turn": st.integers(0, 3),
        "allow_web": st.booleans(),
    },
)


@given(POLICIES, OVERRIDES)
def test_overrides_only_take_away(policy: Policy, overrides: dict[str, Any]) -> None:
    try:
        layer = one_layer(policy, overrides)
    except BadInput:
        reject()
    before, after = (rights_of(resolve((each,)), "default") for each in (policy, layer))
    for name in ("look", "pay", "file_read", "web_search", "exec", "session_status"):
        assert before.offers(name) or not after.offers(name)
