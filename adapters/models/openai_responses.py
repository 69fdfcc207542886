"""OpenAI's Responses protocol, used without stored state: `openai:`, and what else speaks it."""

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
from .openai_abilities import effort, reasons, takes_temperature
from .openai_body import joined, rendered
from .openai_failures import judge, refused_for, request_id_of
from .openai_host import OPENAI_URL, Connections, Endpoint, Reply, endpoint
from .openai_items import PROVIDER, InputRenderer
from .openai_parts import function_name, schema
from .openai_responses_answer import ResponsesReading

SMALLEST_MAX_TOKENS = 16
_FORGET = "openai.forget"


class OpenAIResponses:
    """A model behind the Responses protocol. base_url and key_name: where it is unless the credentials say otherwise.

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

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        """Make one call; see `events.model.Model`. Key and place come with the request, never from elsewhere.

        Encrypted reasoning that the provider cannot open (another organisation's key) makes it refuse the request. That
        failure is retryable: from the next call on, the reasoning so far is left out.
        """
        where = endpoint(request.credentials, base_url=self._base_url, key_name=self._key_name)
        reading = ResponsesReading(where.host, request.tools)
        deadline = Deadline(request.timeout_s)
        reply: Reply | None = None
        try:
            reply = await self._connections.post(
                where,
                "/responses",
                responses_body(request, where),
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
            if reply.whole is not None:
                for signal in reading.whole(reply.whole):
                    yield signal
            yield reading.answer()
            await reply.farewell()
        except Exception as error:
            found = judge(error, started=reply is not None, secret=where.api_key)
            if found is None:
                raise
            if refused_for(error, "invalid_encrypted_content"):
                found = msgspec.structs.replace(found, retryable=_forget_reasoning(request))
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


def responses_body(request: ModelRequest, where: Endpoint) -> bytes:
    """The JSON body of one call. What the model does not take is left out; there are no stop sequences here."""
    params, model = request.params, request.model
    fields: dict[str, Any] = {"model": model, "stream": True, "store": False}
    if request.system:
        fields["instructions"] = request.system
    if params.max_tokens is not None:
        fields["max_output_tokens"] = max(params.max_tokens, SMALLEST_MAX_TOKENS)
    level = effort(model, params.thinking)
    if level is not None:
        fields["reasoning"] = {"effort": level}
    if reasons(model) or where.host == "api.x.ai":
        fields["include"] = ["reasoning.encrypted_content"]
    if params.temperature is not None and takes_temperature(model, level):
        fields["temperature"] = params.temperature
    if request.tools:
        fields["tools"] = [_tool(tool) for tool in request.tools]
        if params.tool_choice is not None:
            fields["tool_choice"] = _choice(params.tool_choice)
    if where.official and request.session_id:
        fields["prompt_cache_key"] = request.session_id[:64]
    # OpenAI's models without reasoning refuse what the others thought.
    reasoning = reasons(model) or not where.official
    forget = (request.cache or {}).get(_FORGET, 0)
    items = rendered(
        request.cache,
        f"{PROVIDER} {where.host} {reasoning} {forget}",
        lambda: InputRenderer(where.host, reasoning=reasoning, forget=forget),
        request.items,
    )
    return joined(fields, "input", items)


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {
        "type": "function",
        "name": function_name(tool.name),
        "description": tool.description,
        "parameters": schema(tool),
        "strict": False,  # the default is true, and refuses most schemas
    }


def _choice(choice: str) -> str | dict[str, Any]:
    plain = {"auto": "auto", "any": "required", "none": "none"}.get(choice)
    return plain or {"type": "function", "name": function_name(choice)}


def _forget_reasoning(request: ModelRequest) -> bool:
    """Leave the reasoning so far out from now on; False when that changes nothing."""
    if request.cache is None or request.cache.get(_FORGET) == len(request.items):
        return False
    request.cache[_FORGET] = len(request.items)
    return True
