"""Several principals in one session: whose limits a call falls under, for whom it is counted, and what a log says."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from reenact.actors import agent
from reenact.actors import purse as money
from reenact.actors.verify import verify
from reenact.adapters.models import Models
from reenact.events import codec
from reenact.events.ledger import Allotted
from reenact.events.log import MemoryLog, MemoryStore
from reenact.projections.meter import uses
from reenact.runtime import Runtime
from tests.money import counted, dear, everything_replays, ledger_of, look
from tests.runtimes import Gate, Heard, run

LIMITS = [{"max_requests_daily": 2}, {"max_cost_total": "0"}, {"max_requests_per_minute": 1}]


async def send(opened: Runtime, principal: str, image: Any) -> str:
    sent = await opened.scoped(principal=principal).send(image.id, "hi")
    return (await sent.result()).status


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: next(iter(limit)))
def test_a_principal_is_held_to_its_limit_in_a_session_that_another_used_first(limit: dict[str, Any]) -> None:
    store = MemoryStore()
    allowed = int(next(iter(limit.values())))

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        assert await send(opened, "bob", bot) == "succeeded"
        told = [await send(opened, "ann", bot) for _ in range(5)]
        assert told == ["succeeded"] * allowed + ["failed"] * (5 - allowed)
        assert await send(opened, "bob", bot) == "succeeded", "who has no limit is not held to another's"

    run(work, store=store, budget={"principal_id": "ann", **limit}, **dear())
    everything_replays(MemoryLog(store))


def test_what_is_used_is_counted_for_who_used_it() -> None:
    """They share a session under a limit of the scope; then each of them is limited."""
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", tools=["look"])
        for principal in ("ann", "ann", "bob", "bob", "bob", "ann"):
            assert await send(opened, principal, bot) == "succeeded"
        for principal in ("ann", "bob"):
            await opened.set_budget({"principal_id": principal, "max_requests_daily": 50, "max_tool_calls_daily": 50})
        assert {(use.name, use.limit): use.used for use in await opened.budget() if use.of == "principal"} == {
            ("ann", "max_requests_daily"): 6,
            ("ann", "max_tool_calls_daily"): 3,
            ("bob", "max_requests_daily"): 6,
            ("bob", "max_tool_calls_daily"): 3,
        }

    script = [counted(tool_calls=[{"name": "look", "input": {"n": 1}}]), counted()]
    run(work, script, store=store, tools=[look], budget={"max_tokens_total": 10**6})
    everything_replays(MemoryLog(store))


async def one_behind_the_other(opened: Runtime, gate: Gate, *principals: str) -> None:
    """Each sends to one session while the first one's model speaks; then it goes on, and all succeed."""
    heard = Heard(opened)
    bot = await opened.image("bot")
    runs = []
    for principal in principals:
        runs.append(await opened.scoped(principal=principal).send(bot.id, "hi"))
        if len(runs) == 1:
            await heard.until("text_delta")
    gate.opened.set()
    assert [(await each.result()).status for each in runs] == ["succeeded"] * len(runs)


def test_who_waits_in_a_session_does_not_pay_for_the_job_before() -> None:
    """Bob's message is in the lane while ann's job asks its ledger: it asks for ann."""
    store = MemoryStore()
    gate = Gate()

    async def work(opened: Runtime) -> None:
        await one_behind_the_other(opened, gate, "ann", "bob", "ann")

    models = Models({"scripted": gate})
    run(work, store=store, models=models, budget={"principal_id": "ann", "max_requests_daily": 2})
    allotted = [event.principal_id for event in ledger_of(MemoryLog(store)) if isinstance(event, Allotted)]
    assert allotted == ["ann", "bob", "ann"]
    everything_replays(MemoryLog(store))


def test_a_principal_that_goes_on_alone_asks_its_ledger_once() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        assert [await send(opened, "ann", bot) for _ in range(4)] == ["succeeded"] * 4

    run(work, [counted()], store=store, budget={"max_tokens_total": 10**6})
    assert len([event for event in ledger_of(MemoryLog(store)) if isinstance(event, Allotted)]) == 1


def _for_whomever(purse: Any, at: int, principal: str, terms: Any) -> Any:
    whose = "" if purse is None or purse.grant is None else purse.grant.principal
    return _BEGAN(purse, at, whose, terms)


def _for_bob(state: Any, purse: Any) -> Any:
    return _OWED_FOR(replace(state, principal="bob"), purse)


_BEGAN, _OWED_FOR = money.began, agent.owed_for


@pytest.mark.parametrize("name", ["an allotment outlives its principal", "it is asked for on behalf of another"])
def test_a_log_in_which_one_principal_paid_for_another_is_not_sound(name: str) -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        for principal in ("bob", "ann"):
            assert await send(opened, principal, bot) == "succeeded"

    outlives = patch.object(money, "began", _for_whomever)
    with outlives if name.startswith("an allotment") else patch.object(agent, "owed_for", _for_bob):
        run(work, [counted()], store=store, budget={"max_tokens_total": 10**6})
    found = [violation for violation in verify(MemoryLog(store)).violations if violation.invariant == "budget"]
    assert [violation.what for violation in found] == [
        "m2, which ann asked for, is paid with what was allotted for bob"
    ]


def test_what_was_spent_under_a_limit_of_the_image_before_any_other_is_counted_for_who_spent_it() -> None:
    """Also what is spent while that other limit is lifted."""
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", tools=["look"], budget={"max_turns": 50})

        async def limited(ann: int, bob: int) -> None:
            for name, calls in (("ann", ann), ("bob", bob)):
                await opened.set_budget({"principal_id": name, "max_requests_daily": calls, "max_tool_calls_daily": 50})
                [used] = [use for use in await opened.budget() if use.name == name and "requests" in use.limit]
                assert used.used == calls
                assert await send(opened, name, bot) == "failed"
            tools = {use.name: use.used for use in await opened.budget() if "tool" in use.limit}
            assert tools == {"ann": ann // 2, "bob": bob // 2}

        for name in ("ann", "ann", "bob", "ann"):
            assert await send(opened, name, bot) == "succeeded"
        await limited(ann=6, bob=2)
        for name in ("ann", "bob"):
            await opened.set_budget({"principal_id": name, "max_requests_daily": 50})
            assert await send(opened, name, bot) == "succeeded"
        for name in ("ann", "bob"):
            await opened.remove_budget(principal_id=name)
        for name in ("bob", "ann", "bob"):
            assert await send(opened, name, bot) == "succeeded"
        await limited(ann=10, bob=8)

    script = [counted(tool_calls=[{"name": "look", "input": {"n": 1}}]), counted()]
    run(work, script, store=store, tools=[look])
    everything_replays(MemoryLog(store))


def test_what_was_used_before_any_limit_is_counted_for_who_used_it() -> None:
    """Ann's job waits in the lane while bob's runs, and begins where that ends."""
    store = MemoryStore()
    gate = Gate()

    async def work(opened: Runtime) -> None:
        await one_behind_the_other(opened, gate, "bob", "ann", "ann")
        for principal in ("ann", "bob"):
            await opened.set_budget({"principal_id": principal, "max_requests_daily": 50})
        used = {use.name: (use.used, use.counting) for use in await opened.budget()}
        assert used == {"ann": (2, False), "bob": (1, False)}

    run(work, store=store, models=Models({"scripted": gate}))
    log = MemoryLog(store)
    every = [recorded for stream in log.streams() for stored in log.read(stream) for recorded in codec.unpack(stored)]
    assert [use.principal for use in uses(every)] == ["bob", "ann", "ann"], "and so it says who cost what"
    everything_replays(MemoryLog(store))


def test_given_a_session_that_is_not_counted_yet_who_is_denied_does_not_pay_for_another() -> None:
    """The first limit is set while bob's call is under way, and ann has used it up before."""
    store, gate = MemoryStore(), Gate()

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bot = await opened.image("bot", budget={"max_turns": 50})
        gate.opened.set()
        assert await send(opened, "ann", bot) == "succeeded"
        gate.opened.clear()
        first, second = [await opened.scoped(principal="bob").send(bot.id, "hi") for _ in range(2)]
        await heard.until("text_delta", 3)
        await opened.set_budget({"max_requests_daily": 1})
        gate.opened.set()
        assert [(await each.result()).status for each in (first, second)] == ["succeeded", "failed"]
        for name in ("ann", "bob"):
            await opened.set_budget({"principal_id": name, "max_requests_daily": 50})
        assert {use.name: use.used for use in await opened.budget() if use.name} == {"ann": 1, "bob": 1}

    run(work, store=store, models=Models({"scripted": gate}))
    everything_replays(MemoryLog(store))
