"""Sessions and their agents: begun, current, asked after, put to sleep, whole after a restart."""

from __future__ import annotations

import asyncio
import threading

import pytest

from reenact import Runtime, tool
from reenact.adapters.models import Models
from reenact.events.agent import StopAgent
from reenact.events.errors import BadInput, Conflict, NotFound
from reenact.events.log import MemoryLog, MemoryStore, Stored
from reenact.image import Image
from tests.runtimes import Gate, Heard, run


def test_an_image_may_have_many_sessions_and_the_newest_is_its_current_one() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        await bot.send("first")
        second = await runtime.new_session(bot.id)
        fresh = await runtime.open_image(bot.id)
        assert fresh.session_id == second != bot.session_id
        await fresh.send("second")
        assert len(await bot.messages()) == len(await fresh.messages()) == 2

    run(work)


def test_a_session_of_another_image_cannot_be_created_under_the_same_id() -> None:
    async def work(runtime: Runtime) -> None:
        from reenact.events.session import CreateSession

        one, two = await runtime.image("a"), await runtime.image("b")
        with pytest.raises(Conflict):
            await runtime.ask(
                f"session-{one.session_id}",
                CreateSession(session_id=one.session_id, image_id=two.id, container_id="default", created_at=1),
            )

    run(work)


def test_the_rules_of_a_session_are_those_of_its_own_image_whoever_sends_to_it() -> None:
    ran: list[int] = []

    @tool(effect="idempotent")
    def pay(cents: int) -> str:
        """Pay."""
        ran.append(cents)
        return "paid"

    async def work(runtime: Runtime) -> None:
        strict = await runtime.image("strict", model="scripted:tools", policy={"deny": ["pay"]})
        lax = await runtime.image("lax", model="scripted:tools")
        refused = f"belongs to the image {strict.id}, not to {lax.id}"

        async def tries() -> None:
            with pytest.raises(BadInput, match=refused):
                await (await runtime.send(lax.id, 'pay {"cents": 1}', session_id=strict.session_id))
            with pytest.raises(BadInput, match=refused):
                await (await runtime.open_image(lax.id, strict.session_id)).send('pay {"cents": 1}')
            with pytest.raises(BadInput, match=refused):
                await runtime.wake(lax.id, session_id=strict.session_id)

        await tries()  # it sleeps
        await strict.send('pay {"cents": 2}')
        await tries()  # it is awake
        await runtime.stop_image(strict.id)
        await tries()
        await (await runtime.send(lax.id, 'pay {"cents": 3}', session_id=lax.session_id))
        await (await runtime.open_image(lax.id)).send('pay {"cents": 4}')
        assert ran == [3, 4] and len(await strict.messages()) == 2

    run(work, tools=[pay], models=Models())


def test_unknown_sessions_are_not_found() -> None:
    async def work(runtime: Runtime) -> None:
        for ask in (runtime.messages, runtime.events, runtime.replay):
            with pytest.raises(NotFound, match="sess_no"):
                await ask("sess_no")
        with pytest.raises(NotFound):
            await Image(runtime, "img_no", "sess_no", "default").send("hi")

    run(work)


def test_agents_of_all_sessions_are_seen_and_only_the_one_meant_is_stopped() -> None:
    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        one = await runtime.image("support")
        first = await one.send("hi").run()
        await runtime.new_session(one.id)
        two = await runtime.open_image(one.id)
        second = await two.send("hi").run()
        await heard.until("text_delta", 2)
        agents = await runtime.agents("default")
        assert {each.session_id for each in agents} == {one.session_id, two.session_id}
        of_one = next(each for each in agents if each.session_id == one.session_id)
        gone = await runtime.request("agent_destroy_request", {"agentId": of_one.agent_id})
        assert gone.data.success and (await first.result(5)).status == "cancelled"
        assert [each.session_id for each in await runtime.agents("default")] == [two.session_id]
        await runtime.delete_image(one.id)
        assert (await second.result(5)).status == "cancelled"
        assert await runtime.agents("default") == []

    run(work, models=Models({"scripted": Gate()}))


def test_an_agent_that_is_gone_leaves_no_subscription_behind() -> None:
    async def work(runtime: Runtime) -> None:
        before = runtime.bus.subscriptions
        for _ in range(5):
            bot = await runtime.image(None)
            await bot.send("hi")
            await bot.stop()
        assert runtime.bus.subscriptions == before

    run(work)


def test_notices_are_whole_after_a_restart() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> str:
        heard = Heard(runtime)
        bot = await runtime.image("support")
        await bot.send("first").run()
        await heard.until("text_delta")
        await bot.send("second").run()
        await bot.stop()
        await heard.until("job_cancelled")
        return bot.id

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        await runtime.request("image_run_request", {"imageId": image_id})
        said = await heard.until("user_message")
        assert said.data.content[0].text == "second"
        await heard.until("conversation_end")
        messages = (await runtime.request("image_messages_request", {"imageId": image_id})).data.messages
        assert said.data.id in [message.id for message in messages]

    image_id = run(before, store=store, models=Models({"scripted": Gate()}))
    run(after, store=store)


class Slow(MemoryLog):
    """A log that hands one stream over only when it is told to."""

    def __init__(self, store: MemoryStore, stream: str) -> None:
        super().__init__(store)
        self.stream = stream
        self.asked, self.go_on = threading.Event(), threading.Event()

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        if stream == self.stream:
            self.asked.set()
            assert self.go_on.wait(10)
        return super().read(stream, after=after, limit=limit)


def test_an_agent_that_goes_while_another_is_looked_for_is_gone() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> tuple[str, str, str]:
        bot = await runtime.image("support")
        newest = await runtime.new_session(bot.id)
        agent_id, _ = await runtime.wake(bot.id, newest)
        return bot.session_id, newest, agent_id

    async def after() -> None:
        log = Slow(store, f"session-{older}")
        async with Runtime(log, threads=2) as opened:
            looking = asyncio.ensure_future(opened.find_agent("agent_no"))
            assert await asyncio.to_thread(log.asked.wait, 10)
            await opened.ask(f"session-{newest}", StopAgent(reason="stopped"))
            log.go_on.set()
            assert await looking is None
            assert await opened.find_agent(agent_id) is None

    older, newest, agent_id = run(before, store=store)
    asyncio.run(asyncio.wait_for(after(), 20))


def test_a_search_for_an_agent_that_is_given_up_hides_nobody() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> tuple[str, str]:
        bot = await runtime.image("support")
        return await runtime.new_session(bot.id), (await runtime.wake(bot.id, bot.session_id))[0]

    async def after() -> None:
        log = Slow(store, f"session-{newest}")
        async with Runtime(log, threads=2) as opened:
            looking = asyncio.ensure_future(opened.find_agent("agent_no"))
            assert await asyncio.to_thread(log.asked.wait, 10)
            looking.cancel()
            log.go_on.set()
            await asyncio.wait([looking])
            found = await opened.find_agent(agent_id)
            assert looking.cancelled() and found is not None

    newest, agent_id = run(before, store=store)
    asyncio.run(asyncio.wait_for(after(), 20))
