"""Sending: what a message may choose for itself, keys, what is refused, and very many at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reenact import Runtime
from reenact.adapters.models import Models
from reenact.events.content import Text, Usage
from reenact.events.errors import BadInput, KeyReused
from reenact.events.log import MemoryStore
from reenact.events.model import ModelAnswer, ModelParams, ModelRequest
from reenact.image import Image
from tests.runtimes import Gate, run, types_of


def test_a_message_may_choose_another_model_and_settings_for_itself() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        await bot.send("hi", model="other:b", params=ModelParams(temperature=0.25))
        await bot.send("hi")
        assert [(each.model, each.params.temperature) for each in asked] == [("b", 0.25), ("any", None)]

    asked: list[ModelRequest] = []

    class Other:
        async def stream(self, request: ModelRequest) -> Any:
            asked.append(request)
            yield ModelAnswer(parts=(Text(text="ok"),), stop_reason="end_turn", usage=Usage())

    run(work, models=Models({"scripted": Other(), "other": Other()}))


def test_a_thousand_messages_at_once_are_all_answered_in_order() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        results = await asyncio.gather(*(bot.send(f"message {number}") for number in range(1000)))
        assert {result.status for result in results} == {"succeeded"}
        said = [message.content[0].text for message in await bot.messages() if message.role == "user"]
        assert said == [f"message {number}" for number in range(1000)]

    run(work)


def test_interrupts_straight_after_a_send_never_hang() -> None:
    """Fails where a task that is cancelled before its first step tells nothing."""

    async def work(runtime: Runtime) -> None:
        bots = [await runtime.image(None) for _ in range(50)]

        async def send_and_stop(bot: Image) -> str:
            run = await bot.send("hi").run()
            await bot.interrupt()
            return (await run.result(5)).status

        ended = await asyncio.gather(*(send_and_stop(bot) for bot in bots))
        assert set(ended) <= {"cancelled", "succeeded"}
        for bot in bots:
            assert (await bot.send("hi")).status == "succeeded"

    run(work)


# -- keys --


def test_a_message_with_a_key_is_one_job_however_often_it_is_sent() -> None:
    store = MemoryStore()

    async def work(runtime: Runtime) -> tuple[str, int]:
        bot = await runtime.image("support")
        runs = [await bot.send("refund 42", key="order-42").run() for _ in range(5)]
        results = await asyncio.gather(*runs)
        assert {result.text for result in results} == {"Hello there."}
        assert len({result.job_id for result in results}) == 1
        with pytest.raises(KeyReused):
            await bot.send("refund 43", key="order-42")
        return results[0].job_id, len(await bot.messages())

    assert run(work, store=store) == run(work, store=store), "the key is remembered in the log"


def test_two_who_send_with_one_key_at_once_share_the_answer() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        first = await bot.send("hi", key="k").run()
        second = await bot.send("hi", key="k").run()
        watching = asyncio.ensure_future(types_of(second))
        await second.accepted()
        gate.opened.set()
        assert (await first).job_id == (await second).job_id
        assert (await watching)[-1] == "job_succeeded"

    gate = Gate()
    run(work, models=Models({"scripted": gate}))


def test_one_key_for_two_images_is_refused() -> None:
    async def work(runtime: Runtime) -> None:
        one, two = await runtime.image("a"), await runtime.image("b")
        assert (await one.send("hi", key="k")).status == "succeeded"
        with pytest.raises(KeyReused):
            await two.send("hi", key="k").result(5)

    run(work)


# -- what is refused --


def test_a_bad_model_name_is_refused_before_anything_is_stored() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        before = runtime.log.position
        for model in ("gpt", "nobody:x", "openai:"):
            with pytest.raises(BadInput):
                await bot.send("hi", model=model)
        assert runtime.log.position == before

    run(work)


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 2**70},
        {"timeout_s": float("inf")},
        {"timeout_s": float("nan")},
        {"timeout_s": -1},
        {"params": ModelParams(temperature=float("nan"))},
        {"key": "\ud800"},
        {"key": 5},
        {"model": "scripted:\ud800"},
        {"model": 5},
        {"fallbacks": 5},
        {"fallbacks": [5]},
        {"params": {"temperature": 0.5}},
        {"credentials": "sk-canary"},
    ],
)
@pytest.mark.parametrize("budget", [None, "5"])
def test_what_cannot_be_meant_is_refused_by_name_before_anything_is_stored(
    wrong: dict[str, Any], budget: str | None
) -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        before = runtime.log.position
        with pytest.raises(BadInput):
            await bot.send("hi", **wrong)
        with pytest.raises(BadInput):
            await runtime.send(bot.id, "hi", **wrong)
        assert runtime.log.position == before

    run(work, budget=budget)
