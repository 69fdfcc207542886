"""The keys of providers: asked for at every call, stored nowhere, and named where one is missing."""

from __future__ import annotations

from typing import Any

import pytest

from reenact import Runtime
from reenact.adapters.models import Models
from reenact.events.content import Text, Usage
from reenact.events.log import MemoryStore
from reenact.events.model import Credentials, ModelAnswer, ModelRequest
from tests.runtimes import run


def test_credentials_are_asked_for_at_every_call_and_never_stored() -> None:
    store = MemoryStore()

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        assert [(await bot.send("hi")).status for _ in range(2)] == ["succeeded"] * 2
        assert [(each.reveal(), each.base_url) for each in given] == [("sk-canary", "http://x"), ("sk-canary", None)]

    given: list[Credentials] = []

    class Model:
        async def stream(self, request: ModelRequest) -> Any:
            given.append(request.credentials)
            assert "sk-canary" not in repr(request)
            yield ModelAnswer(parts=(Text(text="ok"),), stop_reason="end_turn", usage=Usage())

    def provide(provider: str, spec: Any) -> Any:
        assert provider == "scripted" and spec.container_id == "default"
        return Credentials(api_key="sk-canary") if given else {"apiKey": "sk-canary", "baseUrl": "http://x"}

    run(work, store=store, models=Models({"scripted": Model()}), credentials=provide)
    assert not [row for each in store.all for row in each.batch.rows if b"sk-canary" in row.data]


def test_a_missing_key_fails_the_job_and_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support", model="anthropic:claude-sonnet-5-5")
        result = await bot.send("hi")
        assert result.failure is not None and result.failure.code == "auth"
        assert "ANTHROPIC_API_KEY" in result.failure.message

    run(work)
