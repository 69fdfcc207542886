"""The scripted model: it answers from a script, always the same, without a key or a network. For trying things out.

What it says depends on the context alone: step n answers a context with n answers in it, so a run that was killed goes
on where it was. Looking at a context costs what was added to it since the last call. See `script` for what it can play.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from ...events.assembler import parse_input
from ...events.content import Failure, ToolCall, Usage
from ...events.errors import BadInput
from ...events.message import Signal
from ...events.model import ModelAnswer, ModelFailure, ModelRequest
from ...events.stream import (
    InputJsonDelta,
    MessageDelta,
    MessageRef,
    MessageStart,
    MessageStop,
    TextDelta,
    ThinkingDelta,
    ToolUseStart,
    ToolUseStop,
)
from .script import Choose, Chosen, Fault, Played, Script, Seen, Step, length, script_for, step_of

_CACHE = "scripted"


class Scripted:
    """Plays `scripted:NAME` and `scripted:file.json`; given `steps`, it plays those, whatever model is asked for.

    steps: a list (of `Step`, or of dicts as in a file), or a function. repeat: begin again after the last step.
    """

    def __init__(self, steps: Sequence[Step | dict[str, Any]] | Choose | None = None, *, repeat: bool = False) -> None:
        self._script: Script | None = None
        if callable(steps):
            self._script = Chosen(steps)
        elif steps is not None:
            self._script = Played([step_of(step) for step in steps], repeat=repeat)
        self._failed: dict[tuple[str, str, int], int] = {}

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        """Make one call; see `events.model.Model`. It waits for nothing where the script does not say so."""
        try:
            script = self._script or script_for(request.model)
            seen = _seen(request)
            ready = script.choose(request, seen)
        except (BadInput, msgspec.ValidationError) as error:
            raise ModelFailure(Failure(code="invalid_request", message=str(error))) from error
        step, number = ready.step, seen.answers + 1
        wait_s = step.delay_ms / 1000 / max(1, ready.pieces)
        ref = MessageRef(id=f"scripted-{number}", model=request.model)
        yield MessageStart(message=ref)
        if wait_s and not ready.pieces:
            await asyncio.sleep(wait_s)
        for signal in ready.signals:
            if wait_s and isinstance(signal, (TextDelta, ThinkingDelta)):
                await asyncio.sleep(wait_s)
            yield signal
        usage = step.usage
        if usage is None:
            asked, written = seen.size + length(request.system), ready.size
            usage = Usage(input_tokens=(asked + 3) // 4, output_tokens=(written + 3) // 4)
        if step.error is not None and self._still_fails(step.error, request, number):
            raise ModelFailure(step.error.failure(), partial=ready.parts, usage=usage if ready.parts else None)
        parts = ready.parts
        for index, call in enumerate(step.tool_calls):
            value, invalid = (call.input, None) if call.written is None else parse_input(call.written)
            call_id = call.id or f"call_{number}_{index + 1}"
            asked_for = ToolCall(id=call_id, name=call.name, input=value, invalid=invalid)
            yield ToolUseStart(id=asked_for.id, name=asked_for.name)
            yield InputJsonDelta(partial_json=ready.inputs[index])
            yield ToolUseStop()
            parts = (*parts, asked_for)
        stop_reason = step.stop_reason or ("tool_use" if step.tool_calls else "end_turn")
        yield MessageDelta(usage=usage)
        yield MessageStop(stop_reason=stop_reason)
        yield ModelAnswer(parts=parts, stop_reason=stop_reason, usage=usage, model=request.model, response_id=ref.id)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _still_fails(self, fault: Fault, request: ModelRequest, number: int) -> bool:
        if fault.times is None:
            return True
        key = (request.session_id, request.call, number)
        count = self._failed[key] = self._failed.get(key, 0) + 1
        return count <= fault.times


def _seen(request: ModelRequest) -> Seen:
    cache, items = request.cache, request.items
    seen = cache.get(_CACHE) if cache is not None else None
    if not isinstance(seen, Seen) or not seen.precedes(items):
        seen = Seen()
        if cache is not None:
            cache[_CACHE] = seen
    seen.follow(items)
    return seen
