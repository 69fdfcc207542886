"""The limits of a world: which stand now, and how they are set, changed and lifted while everybody works."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from reenact.actors import book, decider
from reenact.actors.ledger import LEDGER
from reenact.events.budget import Budget, BudgetSpec, Terms, dollars
from reenact.events.errors import Closed
from reenact.events.ledger import RemoveBudget, SetBudget
from reenact.events.policy import ApplyPolicy

from .log import LEDGER_STREAM, SCOPE
from .provider import RATE

if TYPE_CHECKING:
    from .world import World


class Limits:
    """limited: whether any stand. times: how often a first one is still set by chance."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.budget = world.drawn.budget
        self.limited = not world.free
        self.times = world.drawn.times
        self.changed = 0
        bob = world.drawn.budget_of_bob
        self.of_bob = book.standing_of(bob) if bob is not None else None
        self._at_first = book.standing_of(self.budget).limits

    def begin(self) -> None:
        """Some have stood since before there was a log."""
        if self.limited:
            self._stands(self.budget)
        if self.of_bob is not None:
            self._stands(self.of_bob.budget)

    def _stands(self, budget: Budget) -> None:
        states, at = self.world.log.states, self.world.clock.now()
        command = SetBudget(budget=budget, at=at)
        states[LEDGER_STREAM] = decider.decide(LEDGER, states[LEDGER_STREAM], command, version=0, at=at, epoch=1).states

    async def set(self) -> None:
        """A limit is set where none stood: whoever works hears of it."""
        world, evidence = self.world, self.world.evidence
        await world.turns.turn()
        if self.limited:
            return
        _, using = evidence.used()
        self.limited, evidence.before = True, evidence.spent()
        # Under way, or its end is on its way to the log.
        evidence.late = using + (world.provider.billed_free - evidence.used_free)
        self.times -= 1
        world.kernel.commit(LEDGER_STREAM, SetBudget(budget=self.budget, at=world.clock.now(), counts=True))
        for stream, states in list(world.log.sessions):
            if states[0].running is not None:
                world.turns.begin(self.bring(stream))

    async def lift(self) -> None:
        """Nothing is limited any more. Whoever works goes on asking; who begins does not."""
        await self.world.turns.turn()
        if not self.limited:
            return
        self.limited = False
        self.world.kernel.commit(LEDGER_STREAM, RemoveBudget(at=self.world.clock.now()))

    async def change(self) -> None:
        """A limit is set, lower or higher than what it was. What was used already stays used."""
        world, chance, evidence = self.world, self.world.chance, self.world.evidence
        await world.turns.turn()
        if not self.limited:
            return
        fields = {
            limit.name: int(most * chance.choice([0, 0.5, 0.9, 1.5])) for limit, most in self._at_first if most > 1
        }
        money = {name: dollars(most) for name, most in fields.items() if "cost" in name}
        budget = Budget(**{**fields, **money})
        if budget == self.budget:
            return
        used, using = evidence.used()
        self.budget, evidence.before = budget, evidence.spent() if world.free else used + using
        self.changed += 1
        world.kernel.commit(LEDGER_STREAM, SetBudget(budget=self.budget, at=world.clock.now()))

    async def bring(self, stream: str) -> None:
        """A session is held to what is limited now."""
        definition = self.world.log.states[stream][1].definition
        if self.limited and definition is not None and (definition.terms is None or definition.terms.ledger is None):
            with suppress(Closed):
                terms = self.terms(None if definition.terms is None else definition.terms.spec)
                await self.world.kernel.ask(stream, ApplyPolicy(policy=(), scope=SCOPE, terms=terms))

    def terms(self, spec: BudgetSpec | None) -> Terms | None:
        """What a session must know of them, and of a limit of its own."""
        if spec is None and not self.limited:
            return None
        return Terms(spec=spec, ledger=SCOPE if self.limited else None, rates=(RATE,), overhead=20)
