"""One session that cannot be read stops nobody else: rules reach all others, agents are found and stopped."""

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
from reenact.events.log import MemoryLog, MemoryStore, Row
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
