"""google-adk: its runner with SqliteSessionService, an event a transaction."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import warnings
from collections.abc import AsyncIterator
from typing import Any

warnings.simplefilter("ignore")

from google.adk.agents import Agent  # noqa: E402
from google.adk.models.base_llm import BaseLlm  # noqa: E402
from google.adk.models.llm_response import LlmResponse  # noqa: E402
from google.adk.runners import Runner  # noqa: E402
from google.adk.sessions.sqlite_session_service import SqliteSessionService  # noqa: E402
from google.genai import types  # noqa: E402

from benchmarks import harness  # noqa: E402
from benchmarks.harness import ANSWER, ARGUMENTS, OUTPUT, USER  # noqa: E402


class Answers(BaseLlm):
    async def generate_content_async(self, request: Any, stream: bool = False) -> AsyncIterator[LlmResponse]:
        if any(part.function_response for part in request.contents[-1].parts):
            part = types.Part(text=ANSWER)
        else:
            part = types.Part(function_call=types.FunctionCall(name="weather", args=ARGUMENTS))
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


def weather(city: str) -> dict[str, Any]:
    """Weather of a city."""
    return dict(json.loads(OUTPUT))


def durable(*, turns: int) -> dict[str, Any]:
    async def work() -> None:
        service = SqliteSessionService(str(folder / "adk.db"))
        agent = Agent(name="bench", model=Answers(model="bench"), instruction="You are helpful.", tools=[weather])
        runner = Runner(app_name="bench", agent=agent, session_service=service)
        await service.create_session(app_name="bench", user_id="u", session_id="s")
        said = types.Content(role="user", parts=[types.Part(text=USER)])
        for _ in range(turns):
            began = time.perf_counter()
            async for event in runner.run_async(user_id="u", session_id="s", new_message=said):
                last = event
            took.append(time.perf_counter() - began)
            assert last.content.parts[0].text == ANSWER
        session = await service.get_session(app_name="bench", user_id="u", session_id="s")
        assert len(session.events) == 4 * turns

    logging.disable(logging.WARNING)
    took: list[float] = []
    with harness.scratch() as folder:
        asyncio.run(work())
        disk = harness.size_of(folder)
    return {**harness.turns(took), "bytes_turn": disk / turns, "peak_mb": harness.peak_mb()}


CASES = {"durable": durable}

if __name__ == "__main__":
    harness.main(CASES)
