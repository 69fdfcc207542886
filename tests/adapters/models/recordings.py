"""The recorded traffic and what is expected of it, and a server that replays it, with faults on demand.

The folder is no part of the repository: REENACT_MATERIAL names it, else `../shared/material` beside the repository.
Where it is missing, `missing()` says so and every test that needs it is skipped with that reason.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from reenact.events.assembler import Assembler
from reenact.events.content import Text, ToolCall, Usage, UserItem, text_of
from reenact.events.message import Signal
from reenact.events.model import Credentials, Model, ModelAnswer, ModelFailure, ModelParams, ModelRequest

ROOT = Path(__file__).resolve().parents[3]
MATERIAL = Path(os.environ.get("REENACT_MATERIAL") or ROOT.parent / "shared" / "material")

_sessions = itertools.count()


def missing() -> str | None:
    """Why the recorded traffic cannot be used, None when it can."""
    return None if (MATERIAL / "EXPECTED.json").is_file() else f"material folder is missing: {MATERIAL}"


def replay_module() -> ModuleType:
    """The replay server's module, loaded by its path."""
    spec = importlib.util.spec_from_file_location("replay_server", MATERIAL / "replay_server.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expected() -> dict[str, list[dict[str, Any]]]:
    """By recording, one expectation for each exchange; empty where the folder is missing."""
    return {} if missing() else json.loads((MATERIAL / "EXPECTED.json").read_text("utf-8"))


def recordings(provider: str) -> list[str]:
    """The ids of a provider's recordings (`anthropic`, `openai-chat`, `openai-responses`), sorted."""
    return [] if missing() else sorted(rec for rec, of in _providers().items() if of == provider)


def _providers() -> dict[str, str]:
    if not _PROVIDERS:
        for path in sorted((MATERIAL / "recordings").rglob("*.json")):
            head = msgspec.json.decode(path.read_bytes(), type=_Head)
            _PROVIDERS[head.id or path.stem] = head.provider
    return _PROVIDERS


class _Head(msgspec.Struct):
    provider: str = ""
    id: str = ""


_PROVIDERS: dict[str, str] = {}


class Outcome(msgspec.Struct, kw_only=True):
    """What came of one call: the signals, then an answer or a failure."""

    signals: list[Signal]
    answer: ModelAnswer | None = None
    failure: ModelFailure | None = None


async def ask(model: Model, request: ModelRequest) -> Outcome:
    """Make one call and gather it all. The answer must be the last thing said, and what the signals told must be it."""
    signals: list[Signal] = []
    answer: ModelAnswer | None = None
    try:
        async for said in model.stream(request):
            assert answer is None, "something came after the answer"
            if isinstance(said, ModelAnswer):
                answer = said
            else:
                signals.append(said)
    except ModelFailure as failure:
        assert answer is None, "a failure came after the answer"
        return Outcome(signals=signals, failure=failure)
    assert answer is not None, "the stream ended with neither an answer nor a failure"
    # What was seen live adds up to what is recorded.
    assembler = Assembler()
    for signal in signals:
        assembler.feed(signal)
    assert assembler.parts() == answer.parts
    assert assembler.stop_reason == answer.stop_reason
    assert assembler.usage == answer.usage
    return Outcome(signals=signals, answer=answer)


def plain_request(
    base_url: str,
    *,
    model: str = "test-model",
    text: str = "Hello",
    api_key: str | None = "test-key",
    timeout_s: float = 60.0,
) -> ModelRequest:
    """A request with one user item; the replay server answers by the URL, whatever is asked."""
    return ModelRequest(
        model=model,
        system="",
        items=[UserItem(version=1, parts=(Text(text=text),))],
        params=ModelParams(max_tokens=1024),
        credentials=Credentials(api_key=api_key, base_url=base_url),
        timeout_s=timeout_s,
        cache={},
    )


def fresh_session() -> str:
    """A name for the replay server that no other call uses: each has its own cursor through a recording."""
    return f"s{next(_sessions)}"


def told(outcome: Outcome) -> dict[str, Any]:
    """An outcome in the shape of an expectation: text, tool calls and stop reason of what came, whole or partial."""
    parts = outcome.answer.parts if outcome.answer else outcome.failure.partial if outcome.failure else ()
    return {
        "text": text_of(parts),
        "tool_calls": [
            {"name": part.name, "arguments": "INVALID-JSON" if part.invalid is not None else part.input}
            for part in parts
            if isinstance(part, ToolCall)
        ],
        "stop": outcome.answer.stop_reason if outcome.answer else None,
    }


def usage_of(outcome: Outcome) -> Usage | None:
    return outcome.answer.usage if outcome.answer else outcome.failure.usage if outcome.failure else None
