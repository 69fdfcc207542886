"""What may go wrong, how often, and where it strikes. All of it is drawn from the one source of chance of a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from reenact.events.errors import Busy, DiskFull, UnknownOutcome
from reenact.events.log import MemoryLog, Result, Transaction

if TYPE_CHECKING:
    from .node import Node


class Died(KeyboardInterrupt):
    """The process is gone. Derived from what nobody catches, so that it leaves from wherever it strikes."""


class Options(Struct, frozen=True, kw_only=True):
    """A seed's world. Chances are per occasion; what is 0 does not happen in this one.

    deaths, takeovers, jumps: how many there may be. at_failpoint: that the place of the next death is chosen anew.
    awake: streams kept awake. actions: what people do in all.
    """

    actions: int
    images: int
    awake: int
    deaths: int
    at_failpoint: float
    at_step: float
    takeovers: int
    jumps: int
    busy: float
    full: float
    unknown: float
    refuses: float
    fails_late: float
    hangs: float
    model_fails: float
    model_hangs: float
    calls: float
    twice: float
    nonsense: float


def draw(chance: random.Random) -> Options:
    """The options of a seed: each kind of fault is off in about half of all worlds, so that others get further."""

    def some(most: float) -> float:
        return 0.0 if chance.random() < 0.5 else chance.random() * most

    def few(most: int) -> int:
        return 0 if chance.random() < 0.4 else chance.randint(1, most)

    return Options(
        actions=chance.randint(10, 60),
        images=chance.randint(1, 3),
        awake=chance.choice([2, 4, 10_000]),
        deaths=few(8),
        at_failpoint=0.01,
        at_step=some(0.03),
        takeovers=few(3),
        jumps=few(3),
        busy=some(0.1),
        full=some(0.1),
        unknown=some(0.03),
        refuses=some(0.3),
        fails_late=some(0.3),
        hangs=some(0.2),
        model_fails=some(0.4),
        model_hangs=some(0.1),
        calls=chance.choice([0.5, 0.8, 0.9]),
        twice=some(0.3),
        nonsense=some(0.5),
    )


CALM = Options(
    actions=0,
    images=0,
    awake=10_000,
    deaths=0,
    at_failpoint=0.0,
    at_step=0.0,
    takeovers=0,
    jumps=0,
    busy=0.0,
    full=0.0,
    unknown=0.0,
    refuses=0.0,
    fails_late=0.0,
    hangs=0.0,
    model_fails=0.0,
    model_hangs=0.0,
    calls=0.0,
    twice=0.0,
    nonsense=0.0,
)
"""Nothing goes wrong any more."""


class SimLog(MemoryLog):
    """The log of one owner: `MemoryLog` on the world's disk, in a process that may die, on a disk that may fail."""

    node: Node

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        world, options = self.node.world, self.node.world.options
        if self.node.dead:
            raise Died
        world.note("commit", self.node.name, *(batch.head.id for each in transactions for batch in each.batches))
        struck = world.chance.random()
        if struck < options.busy:
            raise Busy
        if struck < options.busy + options.full:
            raise DiskFull
        world.handed_in(self.epoch, transactions)
        if struck < options.busy + options.full + options.unknown:
            self.node.doomed = True
            if world.chance.random() < 0.5:
                world.stored(super().commit(transactions))
            raise UnknownOutcome
        results = super().commit(transactions)
        world.stored(results)
        return results
