"""Which models may be called, and for how much a call."""

from __future__ import annotations

from typing import Any

import pytest

from reenact.adapters.models import Models
from reenact.events.agent import ModelCalled
from reenact.events.errors import BadInput
from reenact.events.model import ModelRequest
from reenact.events.policy import ConstraintPolicy, ModelDenied, ModelPolicy
from reenact.runtime import Runtime
from tests.obedient import Obedient, events, policy
from tests.runtimes import run


def test_a_policy_with_a_model_that_may_not_be_called_ends_the_job_by_name() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        result = await bot.send("go")
        assert result.status == "failed" and result.failure is not None and result.failure.code == "policy_denied"
        assert len(await events(bot, ModelDenied)) == 1 and not await events(bot, ModelCalled)
        assert (await bot.send("go", model="scripted:other")).status == "succeeded"

    run(work, policy=policy(ModelPolicy(model_patterns=["any"], decision="deny", reason="Not this one")))


@pytest.mark.parametrize("name", ["scripted: any", "scripted:any ", " scripted:any"])
def test_no_space_in_the_name_of_a_model_gets_it_past_a_rule(name: str) -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model="scripted:other")
        refused = "spaces around its name"
        for asked in ({"model": name}, {"fallbacks": [name]}, {"degrade_to": name}):
            with pytest.raises(BadInput, match=refused):
                await opened.image("another", **asked)
            with pytest.raises(BadInput, match=refused):
                await opened.update_image(bot.id, asked)
        for sent in ({"model": name}, {"fallbacks": [name]}):
            with pytest.raises(BadInput, match=refused):
                await bot.send("go", **sent)
        with pytest.raises(BadInput, match=refused):
            await opened.set_budget({"max_tokens_daily": 9, "exceed_strategy": "degrade", "degrade_to": name})
        assert (await bot.send("go")).status == "succeeded" and not await events(bot, ModelDenied)

    run(work, policy=policy(ModelPolicy(model_patterns=["scripted:any"], decision="deny")))


@pytest.mark.parametrize(("most", "written"), [("1.00", 16_384), ("0.02", 2_000), ("0.0001", None)])
def test_a_call_may_cost_no_more_than_a_rule_allows(most: str, written: int | None) -> None:
    """Priced by the tables that ship with it: what it may write is cut to what fits, or it is not made."""

    class Cheap(Obedient):
        async def _stream(self, request: ModelRequest) -> Any:
            self.params = request.params
            async for each in super()._stream(request):
                yield each

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model="openai:gpt-4o", params={"max_tokens": 16_384})
        result = await bot.send("go")
        if written is None:
            assert result.failure is not None and result.failure.code == "policy_denied"
            assert "may cost at most" in result.failure.message and not model.offered
        else:
            assert result.status == "succeeded" and model.params.max_tokens is not None
            assert model.params.max_tokens <= written
        assert (await opened.replay(bot.session_id)).identical

    model = Cheap(rounds=0)
    dear = policy(ConstraintPolicy(max_cost_per_request=most, name="dear"))
    run(work, models=Models({"openai": model}), tools=(), policy=dear)


def test_a_model_without_a_price_is_not_called_where_a_rule_limits_what_calls_cost() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model="openai:nobody-knows-this-one")
        result = await bot.send("go")
        assert result.failure is not None and "is not known" in result.failure.message
        assert len(await events(bot, ModelDenied)) == 1
        one = await bot.send("go", model="openai:gpt-4o", policy={"constraints": [{"max_cost_per_request": "5"}]})
        assert one.status == "succeeded"

    dear = policy(ConstraintPolicy(max_cost_per_request=1))
    run(work, models=Models({"openai": Obedient(rounds=0)}), policy=dear)
