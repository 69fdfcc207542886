"""What is no policy, and policies about tools that are not there: refused by name, or told of once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reenact.events.errors import BadInput, BadPolicy
from reenact.events.policy import Policy
from reenact.rules.policies import WARNED_MAX
from reenact.runtime import Runtime
from tests.obedient import TOOLS
from tests.runtimes import run, runtime


def test_names_that_no_tool_has_are_told_of_once_and_refused_where_the_policy_is_strict(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(opened: Runtime) -> None:
        for _ in range(3):
            bot = await opened.image("bot", policy=Policy(name="bot", deny=["exce"], allow=["refnud", "refund"]))
            await bot.send("go", policy=Policy(name="bot", deny=["exce"]))
        with pytest.raises(BadPolicy, match="policy bot: there is no tool named 'exce'"):
            await opened.image("bot", policy=Policy(name="bot", strict=True, deny=["exce"]))
        with pytest.raises(BadPolicy, match="policy acme: there is no tool named 'exce'"):
            await opened.set_policy("acme", Policy(name="acme", strict=True, deny=["exce"]))
        assert (await opened.container_state("acme")).container_id is None, "nothing was written"
        for number in range(WARNED_MAX + 9):
            opened._policies.look(Policy(deny=[f"x{number}"]))
        assert len(opened._policies._warned) == WARNED_MAX

    run(work, tools=TOOLS)
    said = [record.getMessage() for record in caplog.records if "rules nothing" in record.getMessage()]
    assert said[:2] == [
        "policy bot: there is no tool named 'refnud' (did you mean 'refund'?); a rule on it rules nothing.",
        "policy bot: there is no tool named 'exce' (did you mean 'exec'?); a rule on it rules nothing.",
    ]
    assert sum("exce" in each for each in said) == 1


def test_a_strict_policy_of_the_runtime_is_refused_when_it_opens() -> None:
    async def work() -> None:
        async with runtime(tools=TOOLS, policy=Policy(name="house", strict=True, allow=["refnud"])):
            pass

    with pytest.raises(BadPolicy, match="policy house: there is no tool named 'refnud'"):
        asyncio.run(work())


@pytest.mark.parametrize("given", [5, b"", b"house.toml", bytearray()])
def test_what_is_neither_a_policy_nor_several_is_refused(given: Any) -> None:
    with pytest.raises(BadPolicy, match="policy: must be a policy, a file, an object or several of them"):
        runtime(policy=given)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"dney": ["exec"]}, "policy: dney: there is no such key"),
        ({"rules": [{"kind": "tool", "toolPatterns": "exec"}]}, r"policy: rules\[1\]: tool_patterns: must be a list"),
        ({"rules": [{"kind": "sky"}]}, r"policy: rules\[1\]: kind: must be one of tool, model, constraint, not 'sky'"),
        ({"maxToolCallsPerTurn": -1}, "policy: max_tool_calls_per_turn: must be a whole number from 0, not -1"),
        ({"profile": "coder"}, "there is no 'coder'"),
        ({"deny": ["group:sky"]}, "there is no group 'sky'"),
        ("all of it", "policy: must be a table"),
        ({"deny": "exec"}, "policy: deny: must be a list of names"),
        ({"deny": {"exec": 1}}, "policy: deny: must be a list of names"),
        ({"allow": ""}, "policy: allow: must be a list of names"),
        ({"profile": "minimal", "profileTools": ["*"]}, "policy: profile_tools: what a profile allows follows"),
        ({"profile": "minimal", "profile_tools": ["*"]}, "policy: profile_tools: what a profile allows follows"),
    ],
)
def test_what_is_no_policy_is_refused_by_name_and_nothing_is_written(given: Any, complaint: str) -> None:
    async def work(opened: Runtime) -> None:
        config = {"name": "bot", "policy": given}
        made = await opened.request("image_create_request", {"containerId": "acme", "config": config})
        import re

        assert made.data.error and re.search(complaint, made.data.error), made.data
        assert await opened.container_ids() == []
        bot = await opened.image("other")
        before = len(await bot.events())
        if isinstance(given, dict):
            with pytest.raises(BadInput, match=complaint):
                await bot.send("go", policy=given)
        assert len(await bot.events()) == before

    run(work, tools=TOOLS)
