"""autogen-core: agents that send each other messages. Nothing is stored: what a runtime without durability does."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from autogen_core import AgentId, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, TopicId, TypeSubscription
from autogen_core import message_handler as handles

from benchmarks import harness
from benchmarks.harness import ANSWER, OUTPUT, USER


@dataclass
class Said:
    text: str


@dataclass
class Delta:
    text: str


class Weather(RoutedAgent):
    def __init__(self) -> None:
        super().__init__("weather")

    @handles
    async def called(self, message: Said, context: MessageContext) -> Said:
        return Said(OUTPUT)


class Assistant(RoutedAgent):
    def __init__(self) -> None:
        super().__init__("assistant")
        self.said: list[str] = []

    @handles
    async def asked(self, message: Said, context: MessageContext) -> Said:
        output = await self.send_message(Said("Paris"), AgentId("weather", "w"))
        self.said += [message.text, output.text, ANSWER]
        return Said(ANSWER)


class Hears(RoutedAgent):
    count = 0

    def __init__(self) -> None:
        super().__init__("hears")

    @handles
    async def told(self, message: Delta, context: MessageContext) -> None:
        Hears.count += 1


def many(*, sessions: int, turns: int = 3) -> dict[str, Any]:
    async def work() -> float:
        runtime = SingleThreadedAgentRuntime()
        await Weather.register(runtime, "weather", Weather)
        await Assistant.register(runtime, "assistant", Assistant)
        runtime.start()

        async def talk(number: int) -> None:
            for _ in range(turns):
                answer = await runtime.send_message(Said(USER), AgentId("assistant", str(number)))
                assert answer.text == ANSWER

        began = time.perf_counter()
        await asyncio.gather(*map(talk, range(sessions)))
        took = time.perf_counter() - began
        await runtime.stop()
        return took

    logging.disable(logging.CRITICAL)
    took = asyncio.run(work())
    return {"turns_s": sessions * turns / took, "peak_mb": harness.peak_mb()}


def deltas(*, words: int, subscribers: int) -> dict[str, Any]:
    async def work() -> float:
        runtime = SingleThreadedAgentRuntime()
        for number in range(subscribers):
            await Hears.register(runtime, f"hears{number}", Hears)
            await runtime.add_subscription(TypeSubscription("words", f"hears{number}"))
        runtime.start()
        began = time.perf_counter()
        for _ in range(words):
            await runtime.publish_message(Delta("word "), TopicId("words", "k"))
        await runtime.stop_when_idle()
        return time.perf_counter() - began

    logging.disable(logging.CRITICAL)
    took = asyncio.run(work())
    assert Hears.count == words * subscribers, Hears.count
    return {"events_s": words / took, "deliveries_s": words * subscribers / took}


CASES = {"many": many, "deltas": deltas}

if __name__ == "__main__":
    harness.main(CASES)
