"""The same command several times, late, out of order, over restarts: one job, one effect, one answer for all."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reenact import Runtime, tool
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.cli.verify import verify
from reenact.events.content import text_of
from reenact.events.errors import KeyReused
from tests.conftest import LONG, Figure
from tests.simulation.broken import build

SENT = 10_000 if LONG else 500
LIVES = 10
IMAGES = 100


def steps(request: Any, seen: Any) -> Any:
    last = request.items[-1]
    if type(last).__name__ == "ResultItem":
        return {"text": "Paid."}
    return {"tool_calls": [{"name": "pay", "input": {"order": text_of(last.parts)}}]}


class Till:
    def __init__(self, path: Path) -> None:
        self.paid: Counter[str] = Counter()
        self.path = path

        @tool(effect="unsafe")
        async def pay(order: str) -> str:
            """Pay an order."""
            self.paid[order] += 1
            return "paid"

        self.tool = pay

    def runtime(self) -> Runtime:
        models = Models({"scripted": Scripted(steps)})
        agent = {"model": "scripted:any"}
        return Runtime(f"sqlite:///{self.path}", tools=[self.tool], models=models, default_agent=agent, threads=2)


def repeated(till: Till, seed: int) -> tuple[int, int]:
    """Send one to five copies of each order in any order, over several lives of the runtime. Gives orders and copies.

    Raises AssertionError where copies differ in what they are told, or an order is paid more than once.
    """
    chance = random.Random(seed)
    copies = [f"order-{n}" for n in range(SENT // 3) for _ in range(chance.randint(1, 5))]
    chance.shuffle(copies)
    jobs: dict[str, set[str]] = {}
    refused = 0

    async def send(images: list[Any], order: str) -> None:
        nonlocal refused
        bot = images[int(order.partition("-")[2]) % IMAGES]
        if chance.random() < 0.1:
            try:
                await bot.send(f"{order} and something else", key=order)
            except KeyReused:
                refused += 1
                return
            jobs.setdefault(order, set())  # it came before the true one, which is refused from now on
            return
        try:
            result = await bot.send(order, key=order)
        except KeyReused:
            return
        assert result.text == "Paid.", result
        jobs.setdefault(order, set()).add(result.job_id)

    async def life(number: int) -> None:
        async with till.runtime() as runtime:
            images = [await runtime.image(f"bot {n}") for n in range(IMAGES)]
            some = copies[number::LIVES]
            for at in range(0, len(some), 50):
                await asyncio.gather(*(send(images, order) for order in some[at : at + 50]))

    for number in range(LIVES):
        asyncio.run(asyncio.wait_for(life(number), 600))
    more = {order: ids for order, ids in jobs.items() if len(ids) > 1}
    assert not more, f"{len(more)} orders became several jobs: {sorted(more)[:3]}"
    twice = {order: times for order, times in till.paid.items() if times > 1}
    assert not twice, f"{len(twice)} orders were paid more than once"
    orders = {order.partition(" ")[0] for order in till.paid}
    assert len(orders) == len(till.paid) == len(set(copies)), "an order was paid under two texts, or not at all"
    assert refused > 0
    return len(orders), len(copies)


def test_however_often_a_command_comes_there_is_one_job_and_one_effect(tmp_path: Path, figure: Figure) -> None:
    till = Till(tmp_path / "log.db")
    orders, copies = repeated(till, seed=13)
    report = verify(str(till.path))
    assert report.sound and report.commands >= orders, report.violations[:3]
    figure(f"{copies} commands, copies of {orders}, over {LIVES} lives: each paid once; {report.summary}")


def test_a_build_that_forgets_keys_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.test_duplicates.SENT", 60)
    with build("keys are ignored"), pytest.raises(AssertionError, match="several jobs"):
        repeated(Till(tmp_path / "log.db"), seed=13)
