"""One session that cannot be read stops nobody else: rules reach all others, agents are found and stopped, questions
are listed and answered."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from reenact import Policy, Runtime, tool
from reenact.events.errors import Corrupt, NotFound, ReenactError
from reenact.events.ledger import BudgetSet
from reenact.events.log import MemoryLog, MemoryStore, Row
from reenact.people.actions import ActionManager
from reenact.run import Run
from tests.faults.test_poison import DAMAGED, NEWER, append
from tests.runtimes import runtime

STOP = Policy(name="stop", deny=("pay",))


class Works:
    """Tools and a script: `go` has a call of `slow`, which ends when the gate is opened, and then of `pay`."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.paid = 0

        @tool(effect="idempotent")
        async def slow() -> str:
            await self.gate.wait()
            return "slow is done"

        @tool(effect="idempotent")
        def pay() -> str:
            self.paid += 1
            return "paid"

        self.tools = [slow, pay]

    def steps(self, request: Any, seen: Any) -> dict[str, Any]:
        if seen.said != "go":
            return {"text": "hi"}
        if not seen.results:
            return {"tool_calls": [{"name": "slow", "input": {}}]}
        if str(seen.results[0].output) == "slow is done":
            return {"tool_calls": [{"name": "pay", "input": {}}]}
        return {"text": "the end"}


Beside = Callable[[Runtime, Works, str, list[Run]], Awaitable[None]]


def beside_an_ill_one(beside: Beside, row: Row, *, ill_is_current: bool) -> None:
    """An image with a session that cannot be read, and a sound one; and another image. The two sound ones work while
    `beside` is called with the ill image and their runs."""
    store = MemoryStore()

    async def main() -> None:
        works = Works()
        async with runtime(works.steps, store=store, tools=works.tools) as opened:
            first = await opened.image("first")
            await first.send("hi")
            second = await opened.new_session(first.id)
            await (await opened.send(first.id, "hi", session_id=second)).result()
        ill, sound = (second, first.session_id) if ill_is_current else (first.session_id, second)
        append(MemoryLog(store), f"session-{ill}", row)
        works = Works()
        async with runtime(works.steps, store=store, tools=works.tools) as opened:
            other = await opened.image("other")
            runs = [
                await opened.send(image_id, "go", session_id=there)
                for image_id, there in ((first.id, sound), (other.id, None))
            ]
            for each in runs:
                async for event in each:
                    if event.type == "tool_started":
                        break
            await beside(opened, works, first.id, runs)

    asyncio.run(asyncio.wait_for(main(), 30))


ROWS = pytest.mark.parametrize("row", [NEWER, DAMAGED], ids=["newer", "damaged"])
PLACES = pytest.mark.parametrize("ill_is_current", [False, True], ids=["an old session", "the current session"])

Way = Callable[[Runtime, str], Awaitable[object]]

CHANGES: dict[str, tuple[Way, int]] = {  # and who may pay under it by then
    "the policy of a container": (lambda runtime, image_id: runtime.set_policy("default", STOP), 0),
    "the policy of an image": (lambda runtime, image_id: runtime.update_image(image_id, {"policy": STOP}), 1),
    "the switch of an image": (lambda runtime, image_id: runtime.update_image(image_id, {"approvalRequired": True}), 1),
    "a limit": (lambda runtime, image_id: runtime.set_budget({"max_tool_calls_daily": 0}), 0),
}


@PLACES
@ROWS
@pytest.mark.parametrize("change", CHANGES)
def test_a_new_rule_comes_to_everybody_although_one_session_cannot_be_read(
    change: str, row: Row, ill_is_current: bool, caplog: pytest.LogCaptureFixture
) -> None:
    way, may_pay = CHANGES[change]

    async def beside(runtime: Runtime, works: Works, image_id: str, runs: list[Run]) -> None:
        await way(runtime, image_id)
        works.gate.set()
        for each in runs:
            await each.result()
        assert works.paid == may_pay

    with caplog.at_level(logging.WARNING, "reenact"):
        beside_an_ill_one(beside, row, ill_is_current=ill_is_current)
    if change == "the policy of a container":
        assert "is passed over" in caplog.text and "job_queued" in caplog.text


STOPS: dict[str, tuple[Way, int]] = {
    "an image is stopped": (lambda runtime, image_id: runtime.stop_image(image_id), 1),
    "an image is deleted": (lambda runtime, image_id: runtime.delete_image(image_id), 1),
    "all agents are": (lambda runtime, _: runtime.request("agent_destroy_all_request", {"containerId": "default"}), 2),
}


@PLACES
@ROWS
@pytest.mark.parametrize("stop", STOPS)
def test_who_works_is_stopped_although_one_session_cannot_be_read(stop: str, row: Row, ill_is_current: bool) -> None:
    way, stopped = STOPS[stop]

    async def beside(runtime: Runtime, works: Works, image_id: str, runs: list[Run]) -> None:
        said = await way(runtime, image_id)
        assert said is None or "error" not in said.data  # type: ignore[attr-defined]
        works.gate.set()
        assert [(await each.result()).status for each in runs].count("cancelled") == stopped

    beside_an_ill_one(beside, row, ill_is_current=ill_is_current)


@PLACES
@ROWS
def test_agents_and_images_are_found_beside_one_that_cannot_be_read(row: Row, ill_is_current: bool) -> None:
    async def beside(runtime: Runtime, works: Works, image_id: str, runs: list[Run]) -> None:
        works.gate.set()
        working = {each.session_id for each in runs}
        awake = await runtime.agents("default")
        assert working <= {each.session_id for each in awake}
        assert await runtime.find_agent("agent_nobody") is None
        for each in awake:
            if each.session_id in working:
                assert await runtime.find_agent(each.agent_id) == each
        listed = await runtime.request("image_list_request", {"containerId": "default"})
        assert {record["name"] for record in listed.data["records"]} == {"first", "other"}
        ill = next(each for each in await runtime._images.sessions(image_id) if each not in working)
        with pytest.raises(ReenactError, match="job_queued"):
            await (await runtime.send(image_id, "more", session_id=ill)).result()

    beside_an_ill_one(beside, row, ill_is_current=ill_is_current)


def test_an_image_that_cannot_be_read_hides_no_other() -> None:
    store = MemoryStore()

    async def main() -> None:
        async with runtime(store=store) as opened:
            ill = await opened.image("ill")
            await (await opened.image("well")).send("hi")
        append(MemoryLog(store), f"image-{ill.id}", Row("image_updated", 1, b"\xc1"))
        async with runtime(store=store) as opened:
            assert [state.alias for state in await opened.images()] == ["well"]
            assert len(await opened.agents("default")) == 1
            assert await opened.set_policy("default", STOP) is not None
            with pytest.raises(Corrupt, match=ill.id):
                await opened.image_state(ill.id)

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_stream_whose_beginning_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"

    async def main() -> None:
        async with Runtime(url) as opened:
            ill = await opened.image("ill", model="scripted:hello")
            await (await opened.image("well", model="scripted:hello")).send("hi")
        with closing(sqlite3.connect(tmp_path / "log.db")) as file, file:
            (number,) = file.execute(
                "SELECT number FROM streams WHERE name = ?", (f"session-{ill.session_id}",)
            ).fetchone()
            file.execute("UPDATE events SET head = 'none' WHERE stream = ? AND head IS NOT NULL", (number,))
        async with Runtime(url) as opened:
            assert len(await opened.agents("default")) == 1
            assert await opened.set_policy("default", STOP) is not None
            assert len(opened._reads.streams("session-")) == 1

    asyncio.run(asyncio.wait_for(main(), 20))


def test_whatever_keeps_a_rule_from_one_agent_the_others_are_held_to_it_first() -> None:
    store = MemoryStore()

    @tool(effect="read")
    def gone() -> str:
        return "gone"

    async def main() -> None:
        async with runtime(store=store, tools=[gone]) as opened:
            await (await opened.image("without its tool", tools=[gone])).send("hi")
            await (await opened.image("well")).send("hi")
        async with runtime(store=store) as opened:
            with pytest.raises(NotFound, match="gone"):
                await opened.set_policy("default", STOP)
            well = await opened.image_named("well")
            assert well is not None
            definition = (await opened._peek(f"session-{well.session_id}"))[1].definition
            assert [policy.name for policy in definition.policy] == ["stop"]

    asyncio.run(asyncio.wait_for(main(), 20))


# -- what people are asked --


@tool(effect="idempotent", approval="ask")
def pay(n: int) -> str:
    return f"paid {n}"


def pays(request: Any, seen: Any) -> dict[str, Any]:
    return {"text": "the end"} if seen.results else {"tool_calls": [{"name": "pay", "input": {"n": 1}}]}


def with_questions(row: Row, work: Callable[[Runtime, str, str, str], Awaitable[None]], **options: Any) -> None:
    """Two sessions, each with a call that waits for a person, and one of the two cannot be read. `work` is handed the
    ids of the ill one and of the well one, and a token for a question in the well one."""
    store = MemoryStore()

    async def main() -> None:
        async with runtime(pays, store=store, tools=[pay]) as opened:
            ill, well = [await opened.image(name) for name in ("ill", "well")]
            for each in (ill, well):
                assert (await each.send("go")).status == "waiting"
            token = await opened.issue_token(f"{well.session_id}:a1")
        stream = f"session-{ill.session_id}"
        log = MemoryLog(store)
        append(log, stream, row, owes=log.read(stream)[-1].batch.head.owes)
        async with runtime(pays, store=store, tools=[pay], **options) as opened:
            await work(opened, ill.session_id, well.session_id, token)

    asyncio.run(asyncio.wait_for(main(), 20))


@ROWS
def test_questions_are_listed_and_answered_beside_a_session_that_cannot_be_read(
    row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(runtime: Runtime, ill: str, well: str, token: str) -> None:
        manager = ActionManager(runtime)
        running = (await runtime.session_state(well)).running
        assert running is not None
        for listed in (await runtime.actions(), await runtime.all_actions()):
            assert f"{well}:a1" in [action.id for action in listed]
        assert f"{well}:a1" in [record.action_id for record in await manager.list_pending()]
        assert await runtime.session_of(running.job_id) == well
        asked = await manager.require_action({"job_id": running.job_id, "type": "confirm"})
        assert asked.action_id == f"{well}:a2"
        answered = await manager.resolve(resume_token=token, resolution={"approved": True})
        assert answered.action_id == f"{well}:a1" and answered.status == "resolved"
        with pytest.raises(ReenactError, match="job_queued"):
            await runtime.resolve_action(f"{ill}:a1", True)
        if row is DAMAGED:
            assert f"session-{ill} is passed over" in caplog.text
            assert [action.id for action in await runtime.actions()] == [f"{well}:a2"]
            assert {action.session_id for action in await runtime.all_actions()} == {well}

    with_questions(row, work)


@ROWS
def test_a_handler_is_asked_about_all_others_beside_a_session_that_cannot_be_read(row: Row) -> None:
    asked: list[str] = []
    ended = asyncio.Event()

    async def yes(request: Any) -> bool:
        asked.append(request.session_id)
        return True

    async def work(runtime: Runtime, ill: str, well: str, token: str) -> None:
        runtime.on("job_succeeded", lambda event: ended.set())
        if (await runtime.session_state(well)).running is not None:
            await ended.wait()
        assert well in asked

    with_questions(row, work, approval_handler=yes)


# -- money --


def test_a_ledger_that_cannot_be_read_stops_its_own_scope_and_no_other() -> None:
    store, limit = MemoryStore(), {"max_tokens_daily": 100_000}

    async def main() -> None:
        async with runtime(store=store, budget=limit) as opened:
            ill, well = opened.scoped(scope="ill"), await opened.image("well")
            await ill.set_budget(limit)
            bot = await ill.image("bot")
            for each in (well, bot):
                await each.send("hi")
        append(MemoryLog(store), "ledger-ill", Row("budget_set", BudgetSet.schema, b"\xc1"))
        async with runtime(store=store, budget=limit) as opened:
            assert (await (await opened.image("well")).send("hi")).status == "succeeded"
            ill = opened.scoped(scope="ill")
            for asked in (ill.send(bot.id, "hi"), ill.budget(), ill.set_budget(limit), ill.wake(bot.id)):
                with pytest.raises(Corrupt, match="ledger-ill"):
                    await asked
            with pytest.raises(Corrupt, match="ledger-ill"):
                await (await ill.open_image(bot.id)).send("hi")

    asyncio.run(asyncio.wait_for(main(), 20))


@ROWS
def test_who_wants_what_a_session_holds_that_cannot_be_read_is_told_of_the_limit(row: Row) -> None:
    store, limit = MemoryStore(), {"max_tokens_daily": 3_000}

    async def main() -> None:
        async with runtime(store=store, budget=limit) as opened:
            ill = await opened.image("ill")
            await ill.send("hi")
        append(MemoryLog(store), f"session-{ill.session_id}", row)
        async with runtime(store=store, budget=limit) as opened:
            assert [(use.most, use.left) for use in await opened.budget()] == [(3_000, 0)]
            result = await (await opened.image("well")).send("hi")
            assert result.failure is not None and result.failure.code == "budget_exceeded"

    asyncio.run(asyncio.wait_for(main(), 20))
