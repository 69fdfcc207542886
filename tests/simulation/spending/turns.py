"""Whoever does something stands in line before each step of it, and chance says who is next."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any


class Turns:
    """waiting: who stands in line. tasks: what was begun and is not over; what it raises is told to `failed`."""

    def __init__(self, chance: random.Random, failed: Callable[[Exception], None]) -> None:
        self._chance = chance
        self._failed = failed
        self.waiting: list[asyncio.Future[None]] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.finished = False  # nothing begins any more, so that a world leaves nothing pending behind

    async def turn(self) -> None:
        """Stand in line until it is one's turn."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(mine)
        await mine

    def next(self) -> None:
        """One of those who wait goes on."""
        ready = self.waiting.pop(self._chance.randrange(len(self.waiting)))
        if not ready.done():
            ready.set_result(None)

    def begin(self, work: Any) -> None:
        if self.finished:
            work.close()
            return
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._failed(error)

    @property
    def stirs(self) -> bool:
        """Whether anything can still go on: tasks that wait for nothing but each other cannot."""
        return any(not task.done() for task in self.tasks)

    async def end(self, others: Iterable[asyncio.Task[Any]]) -> None:
        """Nobody goes on, nor do these."""
        tasks = [*self.tasks, *others]
        for task in tasks:
            task.cancel()
        self.waiting.clear()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.tasks.clear()
        self.waiting.clear()
