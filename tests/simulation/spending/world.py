"""A seeded world of spending: 50 sessions and their sub-sessions on one ledger, killed between any two commits.

What is played is the log (a dict of states), the loop's choice of who is next (chance, from the seed) and the provider,
who bills each call the moment he answers it. The judge holds his bills against the limits.
"""

from __future__ import annotations

import asyncio

from reenact.actors.clock import ManualClock
from reenact.events.agent import Interrupt
from reenact.events.message import Command
from reenact.events.session import CloseSession, CreateSession

from .drawn import Drawn
from .evidence import Evidence
from .judge import Judge
from .kernel import Kernel
from .limits import Limits
from .log import Log
from .messages import Messages
from .outside import Outside
from .provider import Provider
from .turns import Turns

PARENTS, CHILDREN = 10, 4
KILLS_MAX = 12
STEPS_MAX = 100_000
"""Most moves of one world. One that needs more is stuck in a circle."""


def spend(seed: int, *, free: bool = False, several: bool = False) -> World:
    """Live one seed through. free: a limit is set in the middle of it. several: principals share the sessions. Raises
    Overspent, or what else went wrong, with the seed in its words."""
    world = World(seed, free, several)
    try:
        asyncio.run(world.live())
    except Exception as error:
        error.add_note(f"SEED={seed}")
        raise
    return world


class World:
    """One seed. free: nothing is limited in the beginning. several: more than one principal sends to each session, and
    one of them is limited too. failure: what the judge found, or what raised. passed: the time that really passes."""

    def __init__(self, seed: int, free: bool = False, several: bool = False) -> None:
        self.free = free
        self.several = several
        self.drawn = Drawn(seed, free=free, several=several)
        self.chance = self.drawn.chance
        self.clock = ManualClock()
        self.passed = 0
        self.failure: BaseException | None = None
        self.turns = Turns(self.chance, self._failed)
        self.log = Log()
        self.limits = Limits(self)
        self.messages = Messages(self)
        self.provider = Provider(self)
        self.outside = Outside(self)
        self.evidence = Evidence(self)
        self.judge = Judge(self)
        self.kernel = Kernel(self)

    def _failed(self, error: Exception) -> None:
        self.failure = self.failure or error

    async def live(self) -> None:
        try:
            await self._live()
        finally:
            self.turns.finished = True

    async def _live(self) -> None:
        self.limits.begin()
        names = self._begin()
        deadly = self.chance.choice([0.0, 0.002, 0.01])
        steps = idle = 0
        while True:
            for _ in range(4):
                await asyncio.sleep(0)
            if self.failure is not None:
                raise self.failure
            if not self.turns.waiting:
                idle += 1
                over = not self.turns.tasks and not self.kernel.dispatch.under_way
                # Who waits in line takes some rounds to wake; and what a session at rest still holds stays owed.
                if over or (not self.turns.stirs and idle > 20):
                    if self.limits.limited:
                        break
                    idle = 0
                    self.turns.begin(self.limits.set())
                continue
            idle = 0
            steps += 1
            assert steps < STEPS_MAX, "it never ends"
            if self.chance.random() < deadly and self.kernel.kills < KILLS_MAX:
                await self.kernel.down()
                continue
            self._strike(names)
            self.turns.next()
        await self.kernel.dispatch.close()
        self.judge.all_is_counted()
        if self.failure is not None:
            raise self.failure

    def _begin(self) -> list[str]:
        """Every session is created and sent something, a sub-session as its parent is or when its parent's first tool
        runs. Their names."""
        parents = {f"p{n}": [f"p{n}.{child}" for child in range(CHILDREN)] for n in range(PARENTS)}
        names = [*parents, *(child for children in parents.values() for child in children)]
        for name in names:
            create = CreateSession(session_id=name, image_id="i", container_id="c", created_at=1)
            self.kernel.commit(f"session-{name}", create)
        for parent, children in parents.items():
            if self.chance.random() < 0.5:
                self.outside.children[f"session-{parent}"] = children
            else:
                for child in children:
                    self.turns.begin(self.messages.send(child))
            self.turns.begin(self.messages.send(parent))
        return names

    def _strike(self, names: list[str]) -> None:
        """What happens to those who work: somebody is interrupted, limits are moved, time passes."""
        chance, limits = self.chance, self.limits
        if chance.random() < 0.01:
            name = chance.choice(names)
            word: Command = Interrupt() if chance.random() < 0.8 else CloseSession()
            self.turns.begin(self.kernel.ask(f"session-{name}", word))
        if limits.times and not limits.limited and chance.random() < 0.01:
            self.turns.begin(limits.set())
        if limits.times and limits.limited and chance.random() < 0.01:
            self.turns.begin(limits.lift())
        if self.drawn.changing and chance.random() < 0.01:
            self.turns.begin(limits.change())
        if chance.random() < 0.02:
            moved = chance.choice([1.0, 30.0, -5.0])
            self.clock.move(s=moved)
            self.passed += max(0, int(moved * 1_000_000))  # a clock that is set back takes no time
