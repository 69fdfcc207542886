"""How many text deltas a second reach their subscribers, from the model's stream to the handler?

The whole way: the adapter yields, the answer is assembled, the bus tells everybody, the notices are looked after.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from reenact.events.content import Text, Usage
from reenact.events.message import Signal
from reenact.events.model import ModelAnswer, ModelRequest
from reenact.events.stream import MessageStop, TextBlockStart, TextBlockStop, TextDelta

from .agent import Checking, runtime
from .harness import Digest, main, scratch


class _Talks(Checking):
    """Says so many words, as fast as it can; gives the loop a turn after every 16, as a network would."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = words
        self.took = 0.0

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        yield TextBlockStart()
        began = time.perf_counter()
        for number in range(self.words):
            yield TextDelta(text="word ")
            if number % 16 == 15:
                await asyncio.sleep(0)
        self.took = time.perf_counter() - began
        yield TextBlockStop()
        yield MessageStop(stop_reason="end_turn")
        yield ModelAnswer(parts=(Text(text="word " * self.words),), stop_reason="end_turn", usage=Usage())


def deltas(*, words: int, subscribers: int, views: bool = False) -> dict[str, Any]:
    """subscribers: to `text_delta`; handlers, or async iterators where `views`."""
    return asyncio.run(_deltas(words, subscribers, views))


async def _deltas(words: int, subscribers: int, views: bool) -> dict[str, Any]:
    counts = [0] * subscribers
    model = _Talks(words)
    with scratch() as folder:
        async with runtime(folder, model) as running:
            bot = await running.image("bench", model="scripted:bench")
            await bot.send("warm up")
            readers = []

            def listen(number: int) -> Any:
                def heard(event: Any) -> None:
                    counts[number] += 1

                return heard

            async def read(number: int, view: Any) -> None:
                async for _ in view:
                    counts[number] += 1
                    if counts[number] == words:
                        return

            for number in range(subscribers):
                if views:
                    view = running.stream("text_delta", limit=words)
                    readers.append(asyncio.ensure_future(read(number, view)))
                else:
                    running.on("text_delta", listen(number))
            await asyncio.sleep(0)
            began = time.perf_counter()
            result = await bot.send("talk")
            await asyncio.gather(*readers)
            whole_s = time.perf_counter() - began
            assert result.text == "word " * words
    assert counts == [words] * subscribers, counts
    digest = Digest()
    digest.add(counts)
    took = whole_s if views else model.took
    return {
        "events_s": words / took,
        "deliveries_s": words * subscribers / took,
        "turn_s": whole_s,
        "digest": str(digest),
    }


CASES = {"deltas": deltas}

if __name__ == "__main__":
    main(CASES)
