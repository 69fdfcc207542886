"""The kernel on a log that cannot be written: what ended in the world waits for room, or whoever waits is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reenact import Runtime, kernel, tool
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.errors import DiskFull, UnknownOutcome
from reenact.events.log import MemoryLog
from tests.runtimes import HELLO, Heard


class Choosy(MemoryLog):
    """A log that has no room for the first batches of a kind."""

    def __init__(self, kind: str, error: type[Exception], *, times: int = 1) -> None:
        super().__init__()
        self.kind = kind
        self.error = error
        self.times = times
        self.refused = 0

    def commit(self, transactions: Any) -> Any:
        asked = {each.head.asked for one in transactions for each in one.batches}
        if self.refused < self.times and self.kind in asked:
            self.refused += 1
            raise self.error()
        return super().commit(transactions)


@pytest.mark.parametrize("kind", ["answer_model", "settle_tool"])
def test_the_end_of_an_effect_waits_for_room_on_the_disk(kind: str) -> None:
    ran: list[str] = []

    @tool
    def charge() -> str:
        """Unsafe: it must not run twice, and that it ran must not be forgotten."""
        ran.append("charge")
        return "charged"

    async def work() -> None:
        log = Choosy(kind, DiskFull)
        models = Models({"scripted": Scripted([{"tool_calls": [{"name": "charge"}]}, {"text": "ok"}])})
        options = {"models": models, "tools": [charge], "default_agent": {"model": "scripted:any"}}
        async with Runtime(log, **options) as opened:
            heard = Heard(opened)
            bot = await opened.image("support")
            assert (await bot.send("go").result(10)).status == "succeeded"
            assert log.refused == 1 and len(heard.of("system_error")) == 1
            assert (await opened.replay(bot.session_id)).identical

    asyncio.run(work())
    assert ran == ["charge"]


def test_however_long_there_is_no_room_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "RETELL_MAX_S", 0.0)

    async def work() -> None:
        log = Choosy("answer_model", DiskFull, times=1100)
        models = Models({"scripted": Scripted(HELLO)})
        async with Runtime(log, models=models, default_agent={"model": "scripted:any"}) as opened:
            bot = await opened.image("support")
            assert (await bot.send("go").result(20)).status == "succeeded"
        assert log.refused == 1100

    asyncio.run(work())


def test_a_log_that_stops_fails_whoever_waits() -> None:
    async def work() -> None:
        models = Models({"scripted": Scripted(HELLO)})
        log = Choosy("answer_model", UnknownOutcome)
        async with Runtime(log, models=models, default_agent={"model": "scripted:any"}) as opened:
            bot = await opened.image("support")
            with pytest.raises(UnknownOutcome):
                await bot.send("go").result(10)
            with pytest.raises(UnknownOutcome):
                await bot.send("go").result(10)

    asyncio.run(work())
