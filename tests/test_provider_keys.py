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


@pytest.mark.parametrize("model", ["anthropic:any", "openai:any", "openai-chat:any", "google:any"])
@pytest.mark.parametrize("several", [False, True], ids=["one key", "two keys"])
def test_given_keys_with_half_a_character_when_a_model_is_asked_then_they_are_refused_by_name_and_another_answers(
    several: bool, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(runtime: Runtime) -> None:
        alone = await (await runtime.image("alone", model=model)).send("hi")
        assert alone.failure is not None and "auth" in alone.failure.code + alone.failure.message
        bot = await runtime.image("bot", model=model, fallbacks=["scripted:echo"])
        assert (await bot.send("hi")).status == "succeeded"

    keys = [{"api_key": f"sk-half-{number}-\udcff"} for number in range(1 + several)]
    run(work, credentials=lambda provider, spec: keys if model.startswith(provider) else None)
    assert not caplog.records


@pytest.mark.parametrize("key", [None, "sk-whole"])
def test_given_an_address_with_half_a_character_when_a_model_is_asked_then_the_turn_fails_by_its_name(
    key: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(runtime: Runtime) -> None:
        for model in ("anthropic:any", "openai:any", "openai-chat:any"):
            bot = await runtime.image(model.partition(":")[0], model=model)
            failure = (await bot.send("hi")).failure
            assert failure is not None
            assert (failure.code, failure.message) == (
                "bad_input",
                "base_url has the lone surrogate U+DCFF, which no address has.",
            )

    for provider in ("ANTHROPIC", "OPENAI"):
        monkeypatch.setenv(f"{provider}_BASE_URL", "http://127.0.0.1:9/\udcff")  # as of a variable that is no UTF-8
        monkeypatch.delenv(f"{provider}_API_KEY", raising=False)
        if key is not None:
            monkeypatch.setenv(f"{provider}_API_KEY", key)
    run(work)
    assert not caplog.records
