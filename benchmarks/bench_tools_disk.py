"""How many bytes on disk do tool calls take: one turn with 100 of them, each giving 2 KB back?"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

from reenact import Runtime, tool
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted

from .harness import Digest, main, scratch, size_of


def calls(*, calls: int, output_bytes: int = 2048) -> dict[str, Any]:
    """One turn that calls a tool so often, one call after the other. The outputs are all different."""
    return asyncio.run(_calls(calls, output_bytes))


async def _calls(count: int, output_bytes: int) -> dict[str, Any]:
    logging.getLogger("reenact").setLevel(logging.CRITICAL)
    chance, digest = random.Random(7), Digest()

    @tool(effect="read")
    async def look(page: int) -> str:
        """Look at a page.

        page: its number.
        """
        return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz     ", k=output_bytes))

    steps: list[dict[str, Any]] = [{"tool_calls": [{"name": "look", "input": {"page": n}}]} for n in range(count)]
    steps.append({"text": "That is all."})
    with scratch() as folder:
        models = Models({"scripted": Scripted(steps)})  # type: ignore[dict-item]
        async with Runtime(f"sqlite:///{folder}/log.db", tools=[look], models=models, base_path=folder) as running:
            bot = await running.image("bench", model="scripted:bench", max_steps=count + 1)
            result = await bot.send("Look at every page.")
            assert result.status == "succeeded" and result.steps == count + 1, result
            events = await running.events(bot.session_id)
            assert (await running.replay(bot.session_id)).identical
        digest.add([event.type for event in events], [event.size for event in events])
        disk = size_of(folder)
    return {
        "disk": disk,
        "disk_mb": disk / 1e6,
        "given_mb": count * output_bytes / 1e6,
        "calls": count,
        "digest": str(digest),
    }


CASES = {"calls": calls}

if __name__ == "__main__":
    main(CASES)
