"""Rules that change while a turn runs, while a person is waited for, and while nobody owns the log."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reenact import tool
from reenact.adapters import prices
from reenact.adapters.models import Models
from reenact.events.agent import AgentConfigured, ToolSettled
from reenact.events.errors import PolicyDenied
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.policy import ConstraintPolicy, Policy, ToolDenied
from reenact.image import Image
from reenact.money.treasury import Treasury
from reenact.runtime import Runtime
from reenact.sender import Sender
from tests.money import DEAR, counted, dear, everything_replays
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


BETWEEN = {
    "nothing": {},
    "the tool asks a person": {"tool": {"approval": "ask"}},
    "the limit of a turn is none": {"options": {"policy": Policy(max_tool_calls_per_turn=0)}},
    "every call of the image needs a person": {"image": {"approval_required": True}},
    "the image has no tools": {"image": {"tools": []}},
}


@pytest.mark.parametrize("between", BETWEEN)
def test_a_call_that_was_cut_off_is_begun_again_only_if_it_could_begin_now(between: str) -> None:
    """Given a process that ended in a call that may repeat, when a rule came before the next one takes it up, then it
    is not begun again, and the model is told so.
    """
    store, ran = MemoryStore(), []
    change: dict[str, Any] = BETWEEN[between]

    def pay(effect: str = "idempotent", **fields: Any) -> Any:
        @tool(name="pay", effect=effect, **fields)
        async def act(n: int = 0) -> str:
            """Pay; the first time never come back."""
            ran.append(n)
            begun.set()
            if len(ran) == 1:
                await asyncio.Event().wait()
            return "paid"

        return act

    async def first(opened: Runtime) -> str:
        bot = await opened.image("bot")
        await opened.send(bot.id, "go")
        await begun.wait()
        return bot.id

    async def configure(opened: Runtime) -> None:
        await opened.update_image(image_id, change["image"])

    async def second() -> None:
        opened = runtime(scripted, tools=[pay(**change.get("tool", {}))], store=store, **change.get("options", {}))
        heard = Heard(opened)
        async with opened:
            await heard.until("job_succeeded")
            [settled] = await events(await opened.open_image(image_id), ToolSettled)
        assert len(ran) == (2 if between == "nothing" else 1)
        assert settled.outcome == ("ok" if between == "nothing" else "unknown")

    begun, scripted = asyncio.Event(), [script("pay"), {"text": "done"}]
    image_id = run(first, scripted, tools=[pay()], store=store)
    if "image" in change:
        run(configure, scripted, tools=[pay()], store=store, armed=False)
    asyncio.run(asyncio.wait_for(second(), 20))
    everything_replays(MemoryLog(store))


SWITCHES = {
    "a person is to approve": ({"approval_required": True}, "waiting"),
    "its tools are fewer": ({"tools": ["slow"]}, "succeeded"),
    "its runs have a budget": ({"budget": {"max_tool_calls": 0}}, "failed"),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_of_an_image_that_is_set_while_a_turn_runs_holds_for_its_next_call(switch: str) -> None:
    """Given a turn under way and a message behind it, when a rule of the image is set, then nothing more runs by itself
    in the turn, nor in the next one.
    """
    change, status = SWITCHES[switch]
    store, model = MemoryStore(), Obedient("slow", "refund", rounds=2)

    @tool(effect="read")
    async def slow(n: int) -> str:
        """Wait until it is let go."""
        await gate.wait()
        return "slow"

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        heard = Heard(opened)
        sent = bot.send("go")
        await heard.until("tool_settled")
        behind = bot.send("and then")
        assert RAN == ["refund"]
        await opened.update_image(bot.id, {**change, "systemPrompt": "Be kind."})
        gate.set()
        assert (await sent).status == status
        if status == "waiting":
            assert len(await opened.actions()) == 2
        else:
            await behind
        assert RAN == ["refund"]
        assert ("refund" in model.offered[1]) == (switch != "its tools are fewer")

    gate = asyncio.Event()
    run(work, models=Models({"scripted": model}), tools=[*TOOLS, slow], store=store)
    everything_replays(MemoryLog(store))


ASKING = policy(rule("refund", decision="require_approval"))


@pytest.mark.parametrize("change", [{"tools": ["read"]}, {"approval_required": True}, {"policy": ASKING}], ids=list)
def test_what_an_image_says_while_a_model_answers_holds_for_what_it_asks_for(change: dict[str, Any]) -> None:
    class Slow(Obedient):
        """It answers when it is let go."""

        async def _stream(self, request: Any) -> Any:
            asked.set()
            await gate.wait()
            async for item in super()._stream(request):
                yield item

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", tools=["refund", "read"])
        sent = bot.send("go")
        await asked.wait()
        await opened.update_image(bot.id, change)
        gate.set()
        result = await sent
        assert RAN == []
        assert (result.status == "waiting") == ("tools" not in change)
        if result.status == "waiting":
            [question] = await opened.actions()
            heard = Heard(opened)
            await opened.resolve_action(question.id, True)
            await heard.until("job_succeeded")
            assert RAN == ["refund"]

    asked, gate = asyncio.Event(), asyncio.Event()
    run(work, models=Models({"scripted": Slow("refund")}), tools=TOOLS)


AT_MOST = Policy(name="house", rules=(ConstraintPolicy(max_cost_per_request=100),))


@pytest.mark.parametrize("named", ["by its image", "by its message", "by its image until now"])
def test_a_cost_rule_that_comes_in_the_middle_of_a_turn_comes_with_the_price_of_the_model_at_work(named: str) -> None:
    """Given a turn of a model with a price, when a rule limits what a call may cost, then the turn goes on under it."""
    store, model = MemoryStore(), DEAR

    @tool(effect="read")
    async def slow(n: int) -> str:
        """Wait until it is let go."""
        await gate.wait()
        return "slow"

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", container="acme", model="scripted:any" if named == "by its message" else model)
        heard = Heard(opened)
        sent = bot.send("go", model=model if named == "by its message" else None)
        await heard.until("tool_started")
        if named == "by its image until now":
            await opened.update_image(bot.id, {"model": "scripted:any"})
        await opened.set_policy("acme", AT_MOST)
        gate.set()
        result = await sent
        assert (result.status, result.text) == ("succeeded", "done"), result.failure
        assert [held.definition.policy for held in await events(bot, AgentConfigured)][-1]

    gate = asyncio.Event()
    calls = {"tool_calls": [{"name": "slow", "input": {"n": 1}}], "usage": {"inputTokens": 10, "outputTokens": 5}}
    options = dear(calls, counted("done"))
    run(work, store=store, tools=[slow], **{**options, "default_agent": {}})
    everything_replays(MemoryLog(store))


def test_of_two_changes_at_once_an_agent_is_held_to_the_one_that_holds_however_long_the_first_waits() -> None:
    """Given a change that waits for prices, when a second one is brought, then the first brings the second too."""

    class Waiting(Sender):
        """One that gets its prices when it is let go."""

        def __init__(self, of: Sender) -> None:
            vars(self).update(vars(of))
            self.asked, self.there = asyncio.Event(), asyncio.Event()

        async def ready(self, *args: Any) -> None:
            self.asked.set()
            await self.there.wait()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", container="acme")
        await bot.send("go")
        sender = Waiting(opened._sender)
        first = asyncio.create_task(opened._sessions.bring_rules(bot.session_id, sender))
        await sender.asked.wait()
        await opened.set_policy("acme", Policy(name="second", deny=["read"]))
        sender.there.set()
        await first
        held = [configured.definition.policy for configured in await events(bot, AgentConfigured)]
        assert [[layer.name for layer in layers] for layers in held] == [[], ["second"]]

    run(work)


SET = {
    "a person is to approve": ({"approval_required": True}, "waiting"),
    "a policy asks": ({"policy": ASKING}, "waiting"),
    "its tools are fewer": ({"tools": ["read"]}, "succeeded"),
    "its runs have a budget": ({"budget": {"max_tool_calls": 0}}, "failed"),
}


@pytest.mark.parametrize("switch", SET)
@pytest.mark.parametrize("way", ["sent", "sent at once", "woken"])
def test_a_rule_that_is_set_while_an_agent_waits_for_prices_to_be_woken_holds_for_it(
    way: str, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an image that sleeps and an agent of it that waits for prices, when a rule of the image is set, then it
    holds for the first call once the prices are there.
    """
    change, status = SET[switch]

    async def ready(self: Treasury) -> None:
        asked.set()
        await there.wait()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model=DEAR, budget={"max_cost": "5"})
        ways: dict[str, Any] = {"sent": opened.send, "sent at once": opened.sending}
        begun = asyncio.ensure_future(opened.wake(bot.id) if way == "woken" else ways[way](bot.id, "go"))
        await asked.wait()
        await opened.update_image(bot.id, change)
        there.set()
        if way == "woken":
            await begun
        else:
            assert (await (await begun).result()).status == status
        assert [held.definition.image_version for held in await events(bot, AgentConfigured)] == [2]
        assert RAN == []

    asked, there = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(prices, "loaded", there.is_set)
    monkeypatch.setattr(Treasury, "ready", ready)
    run(work, models=Models({"anthropic": Obedient("refund")}), tools=TOOLS)


def test_a_look_at_an_image_that_comes_back_late_takes_no_rule_back() -> None:
    """Given a first look at an image that is under way, when a rule of it is set, then it holds for who looked and
    for who comes after.
    """
    store = MemoryStore()

    async def make(opened: Runtime) -> str:
        return (await opened.image("bot")).id

    async def work(opened: Runtime) -> None:
        access, asked, there = opened._access, asyncio.Event(), asyncio.Event()
        look = access.peek

        async def late(stream: str) -> tuple[Any, ...]:
            states = await look(stream)
            if stream.startswith("image-") and not asked.is_set():
                asked.set()
                await there.wait()
            return states

        access.peek = late  # type: ignore[assignment]
        sent = asyncio.ensure_future(opened.send(image_id, "go"))
        await asked.wait()
        await opened.update_image(image_id, {"approval_required": True})
        there.set()
        assert (await (await sent).result()).status == "waiting"
        assert (await opened.image_state(image_id)).config.approval_required
        assert RAN == []

    image_id = run(make, store=store)
    run(work, models=Models({"scripted": Obedient("refund")}), tools=TOOLS, store=store)
