"""OpenAI's Chat Completions protocol, and the many servers that speak it more or less: `openai-chat:` and `google:`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec

from ...events.message import Signal
from ...events.model import ModelAnswer, ModelFailure, ModelRequest
from ...events.tool import ToolSpec
from .deadline import Deadline
from .failures import unsent
from .openai_abilities import reasons, takes_temperature, thinking_fields
from .openai_body import joined, rendered
from .openai_chat_answer import ChatReading
from .openai_failures import judge, refused_for, request_id_of
from .openai_host import GOOGLE_URL, OPENAI_URL, Connections, Endpoint, Reply, endpoint
from .openai_messages import PROVIDER, MessageRenderer
from .openai_parts import function_name, schema


class OpenAIChat:
    """A model behind Chat Completions. base_url and key_name say where it is unless the credentials say otherwise.

    idle_s: the longest silence before a call fails as timed out; None: as the request says. A model that thinks in
    silence needs some.
    """

    def __init__(
        self, *, base_url: str = OPENAI_URL, key_name: str = "OPENAI_API_KEY", idle_s: float | None = None
    ) -> None:
        self._base_url = base_url
        self._key_name = key_name
        self._idle_s = idle_s
        self._connections = Connections()
        self._without_usage: set[str] = set()

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        """Make one call; see `events.model.Model`. Key and place come with the request, never from elsewhere.

        A server that does not know the wish for a usage count refuses the request. That failure is retryable: the next
        call goes without the wish, and has no usage.
        """
        where = endpoint(request.credentials, base_url=self._base_url, key_name=self._key_name)
        counted = where.base_url not in self._without_usage
        reading = ChatReading(where.host, request.tools)
        deadline = Deadline(request.timeout_s)
        reply: Reply | None = None
        try:
            reply = await self._connections.post(
                where,
                "/chat/completions",
                chat_body(request, where, count_usage=counted),
                idle_s=min(self._idle_s or request.silence_s, request.silence_s, request.timeout_s),
                deadline=deadline,
                heard=request.heard,
            )
            reading.request_id = reply.request_id
            async with aclosing(reply.events()) as events:
                async for name, data in events:
                    for signal in reading.event(name, data):
                        yield signal
                    if reading.done:
                        break
            for signal in reading.end() if reply.whole is None else reading.whole(reply.whole):
                yield signal
            yield reading.answer()
            await reply.farewell()
        except Exception as error:
            found = judge(error, started=reply is not None, secret=where.api_key)
            if found is None:
                raise
            if counted and refused_for(error, "stream_options"):
                self._without_usage.add(where.base_url)
                found = msgspec.structs.replace(found, retryable=True)
            raise ModelFailure(
                found,
                partial=reading.partial(),
                usage=reading.usage,
                request_id=request_id_of(error) or reading.request_id,
                unasked=reply is None and unsent(error),
            ) from error
        finally:
            deadline.close()
            if reply is not None:
                await reply.close()

    async def aclose(self) -> None:
        """Close the connections kept open between calls. The next call opens anew."""
        await self._connections.aclose()


def google() -> OpenAIChat:
    """Gemini, through Google's own Chat Completions endpoint."""
    return OpenAIChat(base_url=GOOGLE_URL, key_name="GOOGLE_API_KEY")


def chat_body(request: ModelRequest, where: Endpoint, *, count_usage: bool = True) -> bytes:
    """The JSON body of one call. What the model does not take is left out."""
    params, model = request.params, request.model
    fields: dict[str, Any] = {"model": model, "stream": True}
    if count_usage:
        fields["stream_options"] = {"include_usage": True}
    if params.max_tokens is not None:
        newer = where.official or where.host.endswith(".azure.com") or reasons(model)
        fields["max_completion_tokens" if newer else "max_tokens"] = params.max_tokens
    thinking = thinking_fields(model, where.host, params.thinking)
    fields |= thinking
    if params.temperature is not None and takes_temperature(model, thinking.get("reasoning_effort")):
        fields["temperature"] = params.temperature
    if params.stop_sequences and not reasons(model):
        fields["stop"] = params.stop_sequences
    if request.tools:
        fields["tools"] = [_tool(tool) for tool in request.tools]
        if params.tool_choice is not None:
            fields["tool_choice"] = _choice(params.tool_choice)
    if where.official and request.session_id:
        fields["prompt_cache_key"] = request.session_id[:64]
    messages = rendered(request.cache, f"{PROVIDER} {where.host}", lambda: MessageRenderer(where.host), request.items)
    if request.system:
        system = msgspec.json.encode({"role": "system", "content": request.system})
        messages = system + b"," + messages if messages else system
    return joined(fields, "messages", messages)


def _tool(tool: ToolSpec) -> dict[str, Any]:
    about = {"name": function_name(tool.name), "description": tool.description, "parameters": schema(tool)}
    return {"type": "function", "function": about}


def _choice(choice: str) -> str | dict[str, Any]:
    plain = {"auto": "auto", "any": "required", "none": "none"}.get(choice)
    return plain or {"type": "function", "function": {"name": function_name(choice)}}
