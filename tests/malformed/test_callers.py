"""Malformed words of callers: messages, definitions, contexts, and lines of the owner's socket."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reenact.adapters.hosts import local
from reenact.adapters.hosts.caller import PERSON, Caller
from reenact.events.errors import BadInput
from reenact.events.image import ImageConfig
from reenact.given import config_of, content_of
from reenact.identity import context as execution
from reenact.identity.context import ExecutionContext
from tests.malformed.attack import COUNT, attacked, finds, plain, plain_bytes

PART = {"type": "text", "text": "hi"}
CONTENTS = [
    b'"hi"',
    msgspec.json.encode([PART, {"type": "image", "mediaType": "image/png", "data": "aGk="}]),
    msgspec.json.encode([{"type": "file", "name": "a.pdf", "url": "https://example.org/a.pdf"}]),
]
CONFIGS = [
    b'{"name":"support","model":"scripted:hello","tools":["look"],"maxSteps":5}',
    b'{"params":{"maxTokens":100,"temperature":0.5},"metadata":{"a":"b"},"workspace":null}',
    b'{"instructions":"Be kind.","thinking":"high","max_tokens":5}',
]


def test_contents_of_messages() -> None:
    attacked(lambda data: content_of(plain(data)), CONTENTS, (BadInput,))


def test_definitions_of_images() -> None:
    attacked(lambda data: config_of(plain(data), ImageConfig()), CONFIGS, (BadInput,))


# -- for whom

CONTEXTS: list[Any] = [
    {"scope_id": "acme", "principal_id": "ann", "trace_id": "a" * 32, "span_id": "b" * 16, "metadata": {"a": [1]}},
    {"budgets": {"max_cost": "2"}, "policy_ref": {"name": "strict"}, "versions": {}, "job_id": None},
]


def understood(data: bytes) -> None:
    context = ExecutionContext.from_dict(plain(data))
    assert ExecutionContext.from_dict(context.to_dict()) == context
    assert len(context.traceparent) == 55 and msgspec.json.encode(context.to_dict())


def test_contexts() -> None:
    attacked(understood, list(map(msgspec.json.encode, CONTEXTS)), (BadInput,), lambda rng: plain_bytes(rng, CONTEXTS))


# -- the owner's socket


def test_lines_of_the_socket(tmp_path: Path) -> None:
    corpus = [
        b'{"id":1,"type":"image_list","data":{"containerId":"acme"}}\n',
        b'{"type":"x"}\n{"type":"y","data":[1,2]}\n',
        b'{"id":"a","type":"runtime_info","data":null}\n',
    ]
    asked = 0

    async def handler(kind: str, data: Any, caller: Caller) -> Any:
        nonlocal asked
        asked += 1
        return {"echo": data}

    server = local.LocalServer(str(tmp_path / "s"), handler)
    loop = asyncio.new_event_loop()

    def parse(data: bytes) -> None:
        for line in local.Lines().feed(data + b"\n"):
            response = loop.run_until_complete(server._answer(line, Caller(None, PERSON)))
            assert msgspec.json.encode(response)
            if response.error is not None:
                raise local._KINDS[response.error.code](response.error.message)

    attacked(parse, corpus, (BadInput,))
    loop.close()
    assert asked > COUNT // 100


# -- and the attack can find something

BROKEN: dict[str, tuple[object, str, Any]] = {
    "contexts": (execution, "checked_text", lambda value, name: value.strip()),
}


@pytest.mark.parametrize("build", BROKEN)
def test_each_of_them_that_trusts_its_input_is_found(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, broken = BROKEN[build]
    monkeypatch.setattr(where, name, broken)
    finds(test_contexts)
