"""Rules that change while a turn runs, while a person is waited for, and while nobody owns the log."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reenact import tool
from reenact.adapters.models import Models
from reenact.events.agent import AgentConfigured
from reenact.events.errors import PolicyDenied
from reenact.events.log import MemoryStore
from reenact.events.policy import Policy, ToolDenied
from reenact.image import Image
from reenact.runtime import Runtime
from tests.obedient import NAMES, RAN, TOOLS, Obedient, events, obeying, policy, rule, script
from tests.runtimes import Heard, run, runtime


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


def test_policies_are_there_after_a_restart_and_hold_what_was_left_in_the_middle() -> None:
    store = MemoryStore()

    async def first() -> tuple[str, str]:
        model = Obedient("pay_bill", "refund")
        async with obeying(model, store=store) as opened:
            bot = await opened.image("bot", container="acme")
            blocked = asyncio.Event()

            @tool(name="hang", effect="read")
            async def hang(n: int = 0) -> str:
                """Never end."""
                blocked.set()
                await asyncio.Event().wait()
                return ""

            opened.tools.add(hang)
            model.names = ("hang",)
            await opened.send(bot.id, "go")
            await blocked.wait()
            return bot.id, bot.session_id

    async def second(image_id: str, session_id: str) -> None:
        model = Obedient("refund", "read", rounds=0)
        house = policy(rule("hang", decision="deny", reason="It hangs"), name="house")

        @tool(name="hang", effect="read")
        async def hang(n: int = 0) -> str:
            """Never end."""
            RAN.append("hang")
            return ""

        opened = obeying(model, store=store, policy=house)
        opened.tools.add(hang)
        heard = Heard(opened)
        async with opened:
            await heard.until("job_succeeded")
            bot = await opened.open_image(image_id)
            assert [denied.attempt for denied in await events(bot, ToolDenied)] == [2]
            assert len(await events(bot, AgentConfigured)) == 2 and RAN == []
            assert (await opened.replay(session_id)).identical

    asyncio.run(second(*asyncio.run(first())))


def test_a_policy_that_changes_while_a_turn_runs_holds_for_its_next_call() -> None:

    async def work(change: Any) -> list[str]:
        RAN.clear()
        model, gate = Obedient("slow", "refund", rounds=2), asyncio.Event()

        @tool(effect="read")
        async def slow(n: int) -> str:
            """Wait until it is let go."""
            RAN.append("slow")
            await gate.wait()
            return "slow"

        async with runtime(models=Models({"scripted": model}), tools=[*TOOLS, slow]) as opened:
            bot = await opened.image("bot", container="acme")
            heard = Heard(opened)
            sent = bot.send("go")
            await heard.until("tool_settled")
            await change(opened, bot)
            gate.set()
            assert (await sent).status == "succeeded"
            assert len(await events(bot, AgentConfigured)) == 2
            assert (await opened.replay(bot.session_id)).identical
            assert "refund" in model.offered[0] and "refund" not in model.offered[1]
            return RAN

    async def container(opened: Runtime, bot: Image) -> None:
        await opened.set_policy("acme", Policy(deny=["refund"]))

    async def image(opened: Runtime, bot: Image) -> None:
        await opened.update_image(bot.id, {"policy": {"deny": ["refund"]}, "systemPrompt": "Be kind."})

    async def seed(opened: Runtime, bot: Image) -> None:
        saved = await opened.save_tool_policy(bot.id, {"denied_tools": ["refund"], "max_tool_calls_per_turn": 9})
        assert saved == await opened.load_tool_policy(bot.id)

    for change in (container, image, seed):
        assert sorted(asyncio.run(asyncio.wait_for(work(change), 20))) == ["refund", "slow", "slow"]


def test_a_policy_that_changes_while_a_job_waits_for_a_person_holds_when_it_goes_on() -> None:
    store = MemoryStore()

    async def first() -> tuple[str, str]:
        @tool(name="pay", effect="unsafe")
        async def pay(n: int = 0) -> str:
            """Pay, and never come back."""
            await asyncio.Event().wait()
            return ""

        async with runtime([script("pay")], store=store, tools=[pay]) as opened:
            bot = await opened.image("bot")
            heard = Heard(opened)
            await opened.send(bot.id, "go")
            await heard.until("tool_started")
            return bot.id, bot.session_id

    _, session_id = asyncio.run(first())

    async def second() -> None:
        @tool(name="pay", effect="unsafe")
        async def pay(n: int = 0) -> str:
            """Pay, and never come back."""
            RAN.append("pay")
            return "paid"

        opened = runtime([{"text": "done"}], store=store, tools=[pay], policy=Policy(name="house", deny=["pay"]))
        heard = Heard(opened)
        async with opened:
            await heard.until("job_waiting")
            with pytest.raises(PolicyDenied, match="pay is among the tools that are denied"):
                await opened.resolve(session_id, "t1", "retry")
            await opened.resolve(session_id, "t1", "ok", "I saw it.")
            await heard.until("job_succeeded")
        assert RAN == []

    asyncio.run(second())


@pytest.mark.parametrize("tightened", [False, True])
def test_what_a_person_approves_runs_unless_the_rules_have_changed_since(tightened: bool) -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        heard = Heard(opened)
        sent = bot.send("go")
        await heard.until("action_required")
        assert model.offered == [sorted(NAMES)] and RAN == []
        if tightened:
            await opened.set_policy("default", Policy(name="tenant", deny=["pay_bill"]))
        [question] = await opened.actions()
        await opened.resolve_action(question.id, True)
        await heard.until("job_succeeded")
        assert (await sent).status in ("waiting", "succeeded")
        assert ([] if tightened else ["pay_bill"]) == RAN
        assert (await opened.replay(bot.session_id)).identical

    model = Obedient("pay_bill")
    ask = policy(rule("pay_*", decision="require_approval", reason="Money leaves the house"))
    run(work, models=Models({"scripted": model}), tools=TOOLS, policy=ask)
