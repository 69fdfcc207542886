"""pydantic-ai: the new messages of each run are kept as JSON in SQLite and read back before the next, as its chat
example does."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel

from benchmarks import harness
from benchmarks.harness import ANSWER, ARGUMENTS, OUTPUT, USER


def _answer(messages: list[Any], info: Any) -> ModelResponse:
    if any(isinstance(part, ToolReturnPart) for part in messages[-1].parts):
        return ModelResponse(parts=[TextPart(ANSWER)])
    return ModelResponse(parts=[ToolCallPart("weather", ARGUMENTS)])


def durable(*, turns: int) -> dict[str, Any]:
    async def work() -> None:
        agent = Agent(FunctionModel(_answer), instructions="You are helpful.")

        @agent.tool_plain
        async def weather(city: str) -> str:
            """Weather of a city."""
            return OUTPUT

        def read() -> list[Any]:
            rows = db.execute("SELECT data FROM messages WHERE session = 's' ORDER BY id").fetchall()
            return [message for (data,) in rows for message in ModelMessagesTypeAdapter.validate_json(data)]

        def write(data: bytes) -> None:
            db.execute("INSERT INTO messages (session, data) VALUES ('s', ?)", (data,))
            db.commit()

        for _ in range(turns):
            began = time.perf_counter()
            history = await asyncio.to_thread(read)
            result = await agent.run(USER, message_history=history)
            await asyncio.to_thread(write, result.new_messages_json())
            took.append(time.perf_counter() - began)
            assert result.output == ANSWER
        assert len(result.all_messages()) == 4 * turns

    took: list[float] = []
    with harness.scratch() as folder:
        db = sqlite3.connect(folder / "chat.db", check_same_thread=False)
        db.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, session TEXT, data BLOB)")
        db.commit()
        asyncio.run(work())
        db.close()
        disk = harness.size_of(folder)
    return {**harness.turns(took), "bytes_turn": disk / turns, "peak_mb": harness.peak_mb()}


CASES = {"durable": durable}

if __name__ == "__main__":
    harness.main(CASES)
