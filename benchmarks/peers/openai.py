"""openai-agents: its runner with an SQLiteSession, which keeps the conversation's items."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, SQLiteSession, Usage, function_tool, set_tracing_disabled
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from benchmarks import harness
from benchmarks.harness import ANSWER, OUTPUT, USER


class Answers(Model):
    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **options: Any) -> ModelResponse:
        last = input[-1] if isinstance(input, list) else {}
        number = len(input)
        if last.get("type") == "function_call_output":
            text = ResponseOutputText(text=ANSWER, type="output_text", annotations=[])
            said: Any = ResponseOutputMessage(
                id=f"m{number}", type="message", role="assistant", status="completed", content=[text]
            )
        else:
            said = ResponseFunctionToolCall(
                id=f"f{number}",
                call_id=f"c{number}",
                type="function_call",
                name="weather",
                arguments='{"city": "Paris"}',
            )
        return ModelResponse(output=[said], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **options: Any) -> Any:
        raise AssertionError("nothing here streams")


@function_tool
def weather(city: str) -> str:
    """Weather of a city."""
    return OUTPUT


def durable(*, turns: int) -> dict[str, Any]:
    async def work() -> None:
        session = SQLiteSession("s", str(folder / "session.db"))
        agent = Agent(name="bench", instructions="You are helpful.", model=Answers(), tools=[weather])
        for _ in range(turns):
            began = time.perf_counter()
            result = await Runner.run(agent, USER, session=session)
            took.append(time.perf_counter() - began)
            assert result.final_output == ANSWER
        assert len(await session.get_items()) == 4 * turns
        session.close()

    set_tracing_disabled(True)
    took: list[float] = []
    with harness.scratch() as folder:
        asyncio.run(work())
        disk = harness.size_of(folder)
    return {**harness.turns(took), "bytes_turn": disk / turns, "peak_mb": harness.peak_mb()}


CASES = {"durable": durable}

if __name__ == "__main__":
    harness.main(CASES)
