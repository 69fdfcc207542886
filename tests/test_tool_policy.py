"""The tool policy of an agent: loaded, changed, kept, and tools filtered by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.actors.profiles import resolve
from reenact.events.errors import BadInput
from reenact.events.policy import Policy, Profile
from reenact.rules.tool_policy import filter_tools_by_policy, tool_policy_of, with_tool_policy
from reenact.runtime import Runtime
from tests.obedient import NAMES, TOOLS, policy, rule
from tests.runtimes import run


def test_the_tool_policy_of_an_agent_is_loaded_changed_and_kept() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", policy=policy(rule("pay_*", decision="deny")))
        assert (await opened.load_tool_policy(bot.id)).profile == "full"
        changes = {"profile": "coding", "allowed_tools": ["read", "web_search"], "denied_tools": ["exec", "bash"]}
        await opened.save_tool_policy(bot.id, {**changes, "max_tool_calls_per_turn": 10})
        agent_id, _ = await opened.wake(bot.id)
        loaded = await opened.load_tool_policy(agent_id)
        assert (loaded.allowed_tools, loaded.denied_tools) == (("read", "web_search"), ("exec", "bash"))
        assert (loaded.profile, loaded.max_tool_calls_per_turn) == ("coding", 10)
        await opened.save_tool_policy(bot.id, {"allowed_tools": []})
        kept = (await opened.image_state(bot.id)).config.policy
        assert kept is not None and kept.allow is None and kept.deny == ("exec", "bash") and len(kept.rules) == 1
        with pytest.raises(BadInput, match="A tool policy has no 'allowedTools'"):
            await opened.save_tool_policy(bot.id, {"allowedTools": []})

    run(work, tools=TOOLS)


def test_given_a_policy_that_was_written_out_another_profile_is_that_profile() -> None:
    """As `policies_of` gives it, to be the policy of another image."""

    async def work(opened: Runtime) -> None:
        first = await opened.image("first", policy=Policy(name="w", profile="full"))
        written = (await opened.policies_of(first.id))[-1]
        assert written.profile_tools is not None
        second = await opened.image("second", policy=written)
        await opened.save_tool_policy(second.id, {"profile": "minimal"})
        await opened.save_tool_policy(first.id, {"profile": "minimal"})
        [one, other] = [(await opened.policies_of(each.id))[-1].profile_tools for each in (first, second)]
        assert one == other != written.profile_tools

    run(work, tools=TOOLS)


SHOP = Profile(name="shop", tools=("web_*", "apply_patch"))
POLICIES = st.builds(
    Policy,
    name=st.just("own"),
    profile=st.sampled_from([None, "full", "minimal", "coding", "shop"]),
    profiles=st.just((SHOP,)),
    also_allow=st.sampled_from([(), ("deploy",), ("exec", "read")]),
    allow=st.sampled_from([None, ("read", "web_*")]),
    deny=st.sampled_from([(), ("exec",), ("web_*",)]),
)


@given(POLICIES.filter(lambda policy: policy.profile is not None or not policy.also_allow), st.booleans())
def test_given_a_tool_policy_that_is_saved_as_it_was_loaded_the_agent_may_use_what_it_could(
    own: Policy, written_out: bool
) -> None:
    names = [*NAMES, "read", "exec", "deploy", "web_search", "apply_patch", "memory_get"]
    if written_out:
        [own] = resolve((own,))
    saved = with_tool_policy(own, tool_policy_of(own))
    assert filter_tools_by_policy(names, saved) == filter_tools_by_policy(names, own)
    assert with_tool_policy(saved, tool_policy_of(saved)) == saved


def test_given_a_policy_that_was_written_out_its_tool_policy_is_saved_as_it_was_loaded() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", policy=Policy(name="own", profile="shop", profiles=(SHOP,)))
        await opened.update_image(bot.id, {"policy": (before := await opened.policies_of(bot.id))[-1]})
        await opened.save_tool_policy(bot.id, await opened.load_tool_policy(bot.id))
        assert await opened.policies_of(bot.id) == before

    run(work, tools=TOOLS)


@pytest.mark.parametrize("field", ["allowed_tools", "denied_tools"])
@pytest.mark.parametrize("given", ["read", "", b"", 0, False, {}, {"read": 1}])
def test_what_is_no_list_of_names_changes_no_tool_policy(given: object, field: str) -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", policy={"allow": ["read"], "deny": ["exec"]})
        with pytest.raises(BadInput, match=f"{field}: must be a list of names"):
            await opened.save_tool_policy(bot.id, {field: given})
        loaded = await opened.load_tool_policy(bot.id)
        assert (loaded.allowed_tools, loaded.denied_tools) == (("read",), ("exec",))

    run(work, tools=TOOLS)


def test_tools_are_filtered_by_what_would_run() -> None:
    assert filter_tools_by_policy(NAMES, {"profile": "coding", "max_tool_calls_per_turn": 10}) == [
        "read",
        "write",
        "apply_patch",
        "web_search",
    ]
    found = filter_tools_by_policy(TOOLS, {"allowed_tools": ["refund", "exec"], "denied_tools": ["bash"]})
    assert [each.name for each in found] == ["refund"]
