"""The treasury of a runtime: which limits are in force, what an agent must know of them, and money fetched when asked.

A session spends what it was allotted by itself. When that runs out, its asking is taken to the ledger of its scope.
Where too little is left, every other session that holds something is asked to let go of what it does not need, before
the ledger may deny.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from .actors import ledger as rules
from .actors.clock import Clock
from .actors.ledger import Account
from .actors.purse import Purse, tokens_of
from .adapters import prices
from .events.budget import NOTHING, Amount, Breach, Budget, BudgetSpec, Rate, Terms, budget_of, dollars
from .events.errors import BadInput, Busy, Conflict, DiskFull
from .events.failpoint import failpoint
from .events.image import ImageConfig
from .events.ledger import Allot, BudgetRemoved, BudgetSet, RemoveBudget, ReturnAllotment, SetBudget
from .events.message import Command, Recorded
from .events.purse import (
    AllotmentReleased,
    RefuseAllotment,
    ReleaseAllotment,
    RequestAllotment,
    TakeAllotment,
)
from .kernel import Kernel, Who

if TYPE_CHECKING:
    from .actors.system import Reply

RETRY_MAX_S = 5.0
"""The longest wait before a ledger that could not be written is asked again."""

RECALLS_MAX = 64
"""Sessions that are asked at once to let go of what they do not need."""

TERMS_MAX = 10_000
"""Definitions whose terms are remembered."""

_log = logging.getLogger("reenact")


class LimitUse(Struct, frozen=True, kw_only=True, rename="camel"):
    """One limit and what is used of it in its window: money in US dollars as exact decimals, the rest whole numbers.

    of: scope, principal or session; name: whose it is. used: settled, with what sessions have spent of what they hold.
    outstanding: set aside for sessions, and not spent. left: what may still be set aside. strategy: what follows when
    it would be passed.
    """

    limit: str
    of: str
    name: str | None
    window: str
    most: str | int
    used: str | int
    outstanding: str | int
    left: str | int
    strategy: str


class Treasury:
    """Kept by a runtime, for its own scope."""

    def __init__(self, kernel: Kernel, clock: Clock, scope: str) -> None:
        self._kernel = kernel
        self._ask = partial(kernel.ask, by=Who(scope, kernel.who.principal))
        self._peek = partial(kernel.peek, scope=scope)
        self._clock = clock
        self.scope = scope
        self._stream = f"ledger-{scope}"
        self._in_force = rules.State()
        self._terms: dict[Any, Terms | None] = {}
        self._rates: dict[tuple[str, int], Rate | None] = {}

    async def open(self) -> None:
        """Look which limits are in force."""
        if await asyncio.to_thread(self._kernel.log.head, self._stream):
            state: rules.State = (await self._peek(self._stream))[0]
            self._in_force = rules.State(budgets=state.budgets)

    def hear(self, recorded: Recorded) -> None:
        """A limit was set or lifted; or a session has let go of something."""
        data = recorded.data
        if isinstance(data, AllotmentReleased):
            self._kernel.later(self._settle(recorded.stream.removeprefix("session-"), data, recorded.context.scope))
        elif isinstance(data, BudgetSet | BudgetRemoved) and recorded.stream == self._stream:
            self._in_force = rules.evolve(self._in_force, data, recorded.stamp)
            self._terms.clear()

    # -- what an agent must know --

    @property
    def rules(self) -> tuple[Budget, ...]:
        """The limits in force in this scope."""
        return tuple(standing.budget for standing in self._in_force.budgets)

    def waits(self, models: Iterable[str], spec: object = None, *, priced: bool = False) -> bool:
        """Whether prices must be loaded first, to know what these models charge. priced: a rule limits their cost."""
        if spec is None and not self._in_force.budgets and not priced:
            return False
        return not prices.loaded() and any(not model.startswith("scripted:") for model in models)

    async def ready(self) -> None:
        """Load the prices, off the loop."""
        if not prices.loaded():
            await asyncio.to_thread(prices.load)

    def terms(
        self, key: Any, config: ImageConfig, overhead: Callable[[], str], *, priced: bool = False
    ) -> Terms | None:
        """What an agent of this definition must know of money; None where nothing limits it.

        key: of the definition, with its version. overhead: gives the text of instructions and tools. priced: a rule
        limits what a call may cost.
        """
        if config.budget is None and not self._in_force.budgets and not priced:
            return None
        place = key, self._clock.now() // rules.DAY_US
        if place not in self._terms:
            if len(self._terms) >= TERMS_MAX:
                self._terms.clear()
            models = (config.model, *config.fallbacks)
            self._terms[place] = self._made(config.budget, models, config.degrade_to, overhead())
        return self._terms[place]

    def own_terms(
        self,
        spec: BudgetSpec | None,
        model: str | None,
        fallbacks: Sequence[str] | None,
        config: ImageConfig,
        overhead: Callable[[], str],
        *,
        priced: bool = False,
    ) -> Terms | None:
        """What one job brings along: limits of its own, and the prices of models that its image does not name."""
        named = (*((model,) if model is not None else ()), *(fallbacks or ()))
        limited = config.budget is not None or bool(self._in_force.budgets)
        if spec is None and not priced and not (named and limited):
            return None
        if spec is not None or (priced and not limited):
            return self._made(spec, (*named, config.model, *config.fallbacks), config.degrade_to, overhead())
        return Terms(rates=self._rates_of(named))

    def _made(self, spec: BudgetSpec | None, models: Iterable[str], degrade_to: str | None, overhead: str) -> Terms:
        cheaper = [budget.degrade_to for budget in self.rules]
        return Terms(
            spec=spec,
            ledger=self.scope if self._in_force.budgets else None,
            rates=self._rates_of(model for model in (*models, degrade_to, *cheaper) if model is not None),
            overhead=tokens_of(overhead) + 64,
            degrade_to=degrade_to,
        )

    def _rates_of(self, models: Iterable[str]) -> tuple[Rate, ...]:
        now = self._clock.now()
        rates = []
        for model in dict.fromkeys(models):
            place = model, now // rules.DAY_US
            if place not in self._rates:
                if len(self._rates) >= TERMS_MAX:
                    self._rates.clear()
                self._rates[place] = prices.rate(model, now)
            rate = self._rates[place]
            if rate is not None:
                rates.append(rate)
        return tuple(rates)

    # -- setting and showing limits --

    def checked(self, given: object) -> Budget:
        """A limit of this scope. Raises BadInput."""
        return self._mine(budget_of(given))

    async def set(self, budget: Budget, ask: Callable[..., Awaitable[Reply]]) -> Budget:
        """Set a limit of this scope, of one of its principals or sessions. Raises BadInput for one without a limit.

        ask: puts the command to the ledger, on behalf of whoever sets it.
        """
        await ask(self._stream, SetBudget(budget=budget, at=self._clock.now()))
        return budget

    async def remove(
        self, ask: Callable[..., Awaitable[Reply]], principal_id: str | None = None, session_id: str | None = None
    ) -> bool:
        """Lift the limits of this scope, or those of one principal or session. False when there were none."""
        command = RemoveBudget(principal_id=principal_id, session_id=session_id, at=self._clock.now())
        return bool((await ask(self._stream, command)).events)

    def _mine(self, budget: Budget) -> Budget:
        if budget.scope_id is None:
            return msgspec.structs.replace(budget, scope_id=self.scope)
        if budget.scope_id != self.scope:
            raise BadInput(f"This runtime works for the scope {self.scope!r} and sets no limits of another.")
        return budget

    async def use(self) -> list[LimitUse]:
        """Every limit in force, with what is used of it now."""
        state: rules.State = (await self._peek(self._stream))[0]
        purses = {}
        for session_id, account in state.accounts.items():
            if account.held != NOTHING:
                purses[session_id] = (await self._peek(f"session-{session_id}"))[1].purse
        return uses(state, purses, self._clock.now())

    # -- the performer of what a session asks for --

    async def fetch(self, stream: str, effect: RequestAllotment) -> Command:
        """Ask the ledger, and give the session's command: it takes the allotment, or hears why there is none."""
        session = await self._kernel.session(stream)
        newest = session.newest
        cause = None if newest is None else newest.id
        correlation = None if newest is None else newest.head.correlation
        ledger = f"ledger-{effect.ledger}"

        async def ask(last: bool) -> Account | None:
            command = Allot(
                session_id=effect.session_id,
                principal_id=session.ids.principal,
                ask=effect.id,
                spent=effect.spent,
                want=effect.want,
                least=effect.least,
                at=max(self._clock.now(), effect.at),
                priced=effect.priced,
                last=last,
            )
            failpoint("ledger.ask")
            reply = await self._patiently(lambda: self._ask(ledger, command, cause=cause, correlation=correlation))
            failpoint("ledger.asked")
            account: Account | None = reply.states[0].accounts.get(effect.session_id)
            return account if account is not None and account.ask == effect.id else None

        account = await ask(last=False)
        if account is None:
            await self._recall(ledger, effect.session_id)
            account = await ask(last=True)
        if account is not None and account.grant is not None:
            return TakeAllotment(ask=effect.id, grant=account.grant)
        assert account is not None and account.breach is not None, "the ledger answers what it is asked"
        return RefuseAllotment(ask=effect.id, breach=account.breach)

    @staticmethod
    def failed(effect: RequestAllotment, code: str) -> Command:
        """The command for an asking that could not be made."""
        return RefuseAllotment(ask=effect.id, breach=Breach(code=code, limit="ledger", of="scope"))

    async def _patiently(self, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """Ask again where nothing was written and there may be room soon."""
        tries = 0
        while True:
            try:
                return await ask()
            except (DiskFull, Busy, Conflict) as error:
                _log.log(logging.DEBUG if tries else logging.ERROR, "the ledger could not be written: %s", error)
                await asyncio.sleep(min(RETRY_MAX_S, 0.05 * 2 ** min(tries, 10)))
                tries += 1

    async def _recall(self, ledger: str, but: str) -> None:
        """Have every other session that holds something of this ledger let go of what it does not need."""
        state: rules.State = (await self._peek(ledger))[0]
        holding = [
            (session_id, account)
            for session_id, account in state.accounts.items()
            if account.held != NOTHING and session_id != but
        ]
        for at in range(0, len(holding), RECALLS_MAX):
            some = holding[at : at + RECALLS_MAX]
            await asyncio.gather(*(self._let_go(ledger, session_id, account) for session_id, account in some))

    async def _let_go(self, ledger: str, session_id: str, account: Account) -> None:
        stream = f"session-{session_id}"
        states = await self._peek(stream)
        purse: Purse | None = states[1].purse
        if purse is None:
            spent, kept = account.told, NOTHING
        elif purse.asking is not None and purse.asking.ask == account.ask:
            return  # it is about to take it
        elif purse.source != account.ask:
            spent, kept = purse.spent, NOTHING  # nobody took it
        else:
            if purse.ceiling - purse.spent != _under_way(purse):
                if not self._kernel.may_touch(stream, states):
                    return  # an earlier owner left it in the middle of something, and nobody has taken that up
                reply = await self._ask(stream, ReleaseAllotment(ask=account.ask))
                purse = reply.states[1].purse
                assert purse is not None
            if purse.source != account.ask:
                return  # it has asked for more meanwhile, and told all
            spent, kept = purse.spent, purse.ceiling - purse.spent
        await self._give_back(ledger, session_id, account.ask, spent, kept)

    async def _settle(self, session_id: str, released: AllotmentReleased, scope: str) -> None:
        """A session has let go of something: let the ledger know. Were this cut short, the next recall tells it."""
        await self._give_back(f"ledger-{scope}", session_id, released.ask, released.spent, released.kept)

    async def _give_back(self, ledger: str, session_id: str, ask: str, spent: Amount, kept: Amount) -> None:
        command = ReturnAllotment(session_id=session_id, ask=ask, spent=spent, kept=kept, at=self._clock.now())
        await self._ask(ledger, command)


def _under_way(purse: Purse) -> Amount:
    return NOTHING if purse.held is None else purse.held.amount


def uses(state: rules.State, purses: dict[str, Purse | None], at: int) -> list[LimitUse]:
    """Every limit of a ledger with what is used of it. purses: of the sessions that hold something."""
    for session_id, account in state.accounts.items():
        purse = purses.get(session_id)
        if account.held != NOTHING and purse is not None:
            kept = account.held - (purse.spent - account.told) if purse.source == account.ask else account.held
            state = rules.settled(state, session_id, account.principal, purse.spent, kept, at)
    found = []
    for standing in state.budgets:
        of, name = standing.key
        for limit, most in standing.limits:
            settled, out = rules.used_of(state, standing, limit, at)
            show = dollars if limit.of == "cost" else int
            found.append(
                LimitUse(
                    limit=limit.name,
                    of=of,
                    name=name or None,
                    window=limit.window,
                    most=show(most),
                    used=show(settled),
                    outstanding=show(out),
                    left=show(max(0, most - settled - out)),
                    strategy=standing.budget.exceed_strategy,
                )
            )
    return found
