"""Policies of a runtime, a container, an image and a message are layers: each narrows, none widens."""

from __future__ import annotations

import asyncio

import pytest

from reenact.adapters.models import Models
from reenact.events.log import MemoryStore
from reenact.events.policy import Policy, Profile, ToolDenied
from reenact.rules.policies import Policies
from reenact.runtime import Runtime
from tests.obedient import NAMES, RAN, TOOLS, Obedient, events, obeying, policy, rule
from tests.runtimes import run, runtime


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


def test_container_image_and_message_each_narrow_and_none_widens() -> None:
    model = Obedient(*NAMES)

    async def work(opened: Runtime) -> None:
        await opened.set_policy("acme", Policy(name="acme", deny=["exec"]))
        bot = await opened.image("bot", container="acme", tools=NAMES, policy=Policy(name="bot", deny=["write"]))
        job = Policy(name="job", allow=["exec", "write", "read", "refund", "pay_bill"])
        await bot.send("go", policy=job)
        assert set(RAN) == {"read", "refund"} == set(model.offered[0])
        by = {denied.tool: denied.policy for denied in await events(bot, ToolDenied)}
        assert by == {"t2": "bot", "t3": "bot", "t4": "acme", "t5": "job", "t7": "house"}
        RAN.clear()
        await bot.send("and now without")
        assert set(RAN) == {"read", "refund", "web_search"}

    run(work, models=Models({"scripted": model}), tools=TOOLS, policy=Policy(name="house", deny=["pay_bill"]))


def test_containers_of_one_name_in_two_scopes_have_their_own_policies() -> None:
    """Whatever order they are looked at in, heard of in, changed in, and after a restart."""

    async def names(of: Runtime) -> list[tuple[str, ...]]:
        bot = await of.image("bot", container="acme")
        return [layer.deny for layer in await of.policies_of(bot.id)]

    store, models = MemoryStore(), Models({"scripted": Obedient()})

    async def first() -> None:
        async with runtime(store=store, models=models, tools=TOOLS) as opened:
            one, two, three = (opened.scoped(scope=scope) for scope in ("one", "two", "default"))
            assert await names(one) == await names(two) == [], "both are at hand"
            await one.set_policy("acme", Policy(deny=["refund"]))
            assert (await names(one), await names(two), await names(three)) == ([("refund",)], [], [])
            await two.set_policy("acme", Policy(deny=["read"]))
            await three.set_policy("acme", Policy(deny=["pay_bill"]))
            assert (await names(one), await names(two)) == ([("refund",)], [("read",)])
            late = opened.scoped(scope="three")  # not looked at before others of its name were heard of
            assert await names(late) == [] and await names(three) == [("pay_bill",)]
            await one.set_policy("acme", None)
            assert (await names(one), await names(two)) == ([], [("read",)])

    async def second() -> None:
        async with runtime(store=store, models=models, tools=TOOLS) as opened:
            found = [await names(opened.scoped(scope=scope)) for scope in ("three", "two", "one", "default")]
            assert found == [[], [("read",)], [], [("pay_bill",)]]

    asyncio.run(first())
    asyncio.run(second())


def test_a_build_that_keeps_containers_of_all_scopes_together_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    together: dict[str, Policy | None] = {}
    monkeypatch.setattr(
        Policies, "_containers", property(lambda self: together, lambda self, value: None), raising=False
    )
    with pytest.raises(AssertionError):
        test_containers_of_one_name_in_two_scopes_have_their_own_policies()


def test_a_policy_of_a_container_has_a_version_that_counts_and_may_be_taken_away() -> None:
    async def work(opened: Runtime) -> None:
        first = await opened.set_policy("acme", Policy(name="acme", version="mine", deny=["exec"]))
        again = await opened.set_policy("acme", Policy(name="acme", version="other", deny=["exec"]))
        second = await opened.set_policy("acme", Policy(name="acme", deny=["exec", "write"]))
        assert first and again and second and (first.version, again.version, second.version) == ("1", "1", "2")
        assert await opened.set_policy("acme", None) is None
        third = await opened.set_policy("acme", Policy(name="acme", deny=["exec"]))
        assert third and third.version == "4"
        state = await opened.container_state("acme")
        assert state.policies == 4 and state.policy == third

    run(work, tools=TOOLS)


def test_the_scope_of_a_runtime_is_the_one_that_rules_ask_for() -> None:
    only = policy(rule("search_*", "refund", allowed_scopes=["internal"]))

    async def work(scope: str) -> list[str]:
        RAN.clear()
        async with obeying(Obedient("refund"), policy=only, scope=scope) as opened:
            await (await opened.image("bot")).send("go")
            return list(RAN)

    assert asyncio.run(work("internal")) == ["refund"] and asyncio.run(work("tenant-1")) == []


def test_an_idempotency_key_stands_for_a_message_with_its_policy() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        await bot.send("go", key="k", policy=Policy(deny=["exec"]))
        await bot.send("go", key="k", policy=Policy(deny=["exec"]))
        with pytest.raises(Exception, match="key"):
            await bot.send("go", key="k")

    run(work, tools=TOOLS)


def test_a_profile_of_the_house_serves_every_image_under_it() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", tools=NAMES, policy={"profile": "shop"})
        layers = await opened.policies_of(bot.id)
        assert layers[-1].profile_tools == ("refund", "web_search", "web_fetch") and layers[0].profiles == ()
        await bot.send("go", policy={"profile": "shop", "deny": ["web_search"]})
        assert RAN == ["refund"]

    house = Policy(profiles=[Profile(name="shop", tools=["refund", "group:web"])])
    run(work, models=Models({"scripted": Obedient(*NAMES)}), tools=TOOLS, policy=house)
