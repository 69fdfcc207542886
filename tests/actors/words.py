"""Short ways to say what the tests of a conversation ask."""

from __future__ import annotations

from typing import Any

from reenact.events.agent import AnswerModel, FailModel, SettleTool
from reenact.events.content import Failure, Text, ToolCall, Usage
from reenact.events.model import ModelAnswer
from reenact.events.session import CreateSession, Definition, Send, Waking
from reenact.events.tool import CallCheck

DEFINITION = Definition(image_version=1, model="scripted:echo", max_steps=3, tools="sha256:0")
CREATE = CreateSession(session_id="sess_1", image_id="img_1", container_id="acme", created_at=1)


def waking(agent: str = "agent_1", definition: Definition = DEFINITION) -> Waking:
    return Waking(agent_id=agent, image_id="img_1", container_id="acme", registered_at=1, definition=definition)


def send(job: str = "job_1", text: str = "hello", **fields: Any) -> Send:
    fields.setdefault("waking", waking(f"agent_of_{job}"))
    return Send(job_id=job, content=(Text(text=text),), **fields)


def says(call: str, text: str = "Hi.", stop_reason: str = "end_turn") -> AnswerModel:
    """The model answers with a text."""
    parts = (Text(text=text),) if text else ()
    return AnswerModel(
        call=call, answer=ModelAnswer(parts=parts, stop_reason=stop_reason, usage=Usage(output_tokens=1))
    )


def asks(call: str, *tools: str | CallCheck, stop_reason: str = "tool_use") -> AnswerModel:
    """The model asks for these tools, each named by its effect class, or with a check of its own."""
    checks = tuple(
        tool if isinstance(tool, CallCheck) else CallCheck(name=tool, effect=tool, arguments="sha256:a")  # type: ignore[arg-type]
        for tool in tools
    )
    parts = tuple(
        ToolCall(id=f"call_{index}", name=check.name, input={"n": index}) for index, check in enumerate(checks)
    )
    return AnswerModel(call=call, answer=ModelAnswer(parts=parts, stop_reason=stop_reason), checks=checks)


def fails(
    call: str, code: str = "overloaded", retry_in_ms: int | None = None, text: str = "", attempt: int = 0
) -> FailModel:
    partial = (Text(text=text),) if text else ()
    failure = Failure(code=code, message="it failed")
    return FailModel(call=call, attempt=attempt, failure=failure, partial=partial, retry_in_ms=retry_in_ms)


def settles(tool: str, outcome: str = "ok", output: str = "done") -> SettleTool:
    return SettleTool(tool=tool, outcome=outcome, output=output)
