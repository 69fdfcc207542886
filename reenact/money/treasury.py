"""The treasury of a runtime: which limits are in force, what an agent must know of them, and money fetched when asked.

A session spends what it was allotted by itself. When that runs out, its asking is taken to the ledger of its scope
(line.py). What is held under limits that were changed, or that another waits for, is called back (recalls.py).
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from ..actors.book import State, whose
from ..actors.calendar import DAY_US
from ..actors.clock import Clock
from ..actors.ledger import evolve
from ..actors.length import tokens_of
from ..adapters import prices
from ..catalog.unreadable import passed_over
from ..events.budget import NOTHING, Budget, BudgetSpec, Rate, Terms, budget_of
from ..events.errors import BadInput, Corrupt, StoreError
from ..events.image import ImageConfig
from ..events.ledger import (
    BudgetRaised,
    BudgetRemoved,
    BudgetSet,
    CountUsage,
    RecallAllotments,
    RemoveBudget,
    SetBudget,
    is_reserved,
)
from ..events.message import Effect, Recorded
from ..events.purse import AllotmentReleased
from ..flow.kernel import Kernel, Who
from .counting import Counting
from .line import Line
from .order import Order
from .recalls import Recalls
from .uses import LimitUse, uses

if TYPE_CHECKING:
    from ..actors.system import Reply

TERMS_MAX = 10_000
"""Definitions whose terms are remembered."""

Addresses = Callable[[str], tuple[str | None, ...]]
"""Where the calls of a model may go, None for its provider's own address."""

Places = Mapping[str, tuple[str | None, ...]]
"""The same, of the models that may be called."""

_log = logging.getLogger("reenact")


class Treasury:
    """Kept by a runtime, for its own scope."""

    def __init__(self, kernel: Kernel, clock: Clock, scope: str) -> None:
        self._kernel = kernel
        self._ask = partial(kernel.ask, by=Who(scope, kernel.who.principal))
        self._peek = partial(kernel.peek, scope=scope)
        self._clock = clock
        self.scope = scope
        self._stream = f"ledger-{scope}"
        self._in_force: Any = State()
        self._terms: dict[Any, Terms | None] = {}
        self._rates: dict[Any, Rate | None] = {}
        self._foreseen: list[str] = []
        self.lifts = 0
        """How often the last limit was lifted."""
        self.told = -1
        """After which of these all who were at work were told what things cost, since something is limited."""
        self.order = Order()
        self.recalls = Recalls(kernel, clock, scope)
        self.counting = Counting(kernel, clock, scope)
        self.line = Line(kernel, clock, scope, self.recalls)

    async def open(self) -> None:
        """Look which limits are in force, and who holds what is called back."""
        if await asyncio.to_thread(self._kernel.log.head, self._stream):
            try:
                state = await self._state()
            except Corrupt as error:
                _log.error("nothing is spent in the scope %s: %s", self.scope, error)
                self._in_force = _Unread(error)
                return
            self._in_force = State(budgets=state.budgets, opened=state.opened)
            self.told = 0 if state.budgets else -1
            for session_id, ask in state.due.items():
                if not is_reserved(session_id):
                    self._kernel.called_back[f"session-{session_id}"] = ask
            try:
                await self._settle_reserved(state)
            except StoreError as error:
                _log.error("what an earlier process had reserved could not be settled, the next start does: %s", error)

    async def _settle_reserved(self, state: State) -> None:
        """What an earlier owner's programs had reserved nobody can give back, nor say what was used of it: what was set
        aside is used, as a call that was under way is, but for what was recorded meanwhile."""
        left = [name for name, account in state.accounts.items() if is_reserved(name) and account.held != NOTHING]
        for holder in sorted(left):
            account = state.accounts[holder]
            back = self.recalls.back(holder, account.ask, account.told + account.held, NOTHING)
            await self._ask(self._stream, back)

    def hear(self, recorded: Recorded) -> None:
        """A limit was set or lifted; or a session has let go of something."""
        data = recorded.data
        if isinstance(data, AllotmentReleased):
            session_id, scope = recorded.stream.removeprefix("session-"), recorded.context.scope
            self._kernel.later(self.recalls.settle(session_id, data, scope))
        elif isinstance(data, BudgetSet | BudgetRemoved | BudgetRaised) and recorded.stream == self._stream:
            self._in_force = evolve(self._in_force, data, recorded.stamp)
            self.lifts += not self._in_force.budgets
            self._terms.clear()

    # -- what an agent must know --

    @property
    def rules(self) -> tuple[Budget, ...]:
        """The limits in force in this scope."""
        return tuple(standing.budget for standing in self._in_force.budgets)

    def opened_with(self, budget: Budget) -> bool:
        """Whether it is what a program opened with last: then what was set, raised or lifted since stands. Where that
        is another, the log says so."""
        owner = whose(budget)
        if self._in_force.opened.get(owner) != budget:
            return False
        standing = next((each for each in self.rules if whose(each) == owner), None)
        if standing != budget:
            _log.warning(
                "the budget that this program opens with is not in force, in its place is %s."
                " To go back: reenact budget set %s",
                "none" if standing is None else _options(standing, self.scope),
                _options(budget, self.scope),
            )
        return True

    def waits(self, models: Iterable[str], spec: object, priced: Callable[[], bool]) -> bool:
        """Whether prices must be loaded first, to know what these models charge. priced: whether a rule limits that."""
        if prices.loaded() or all(model.startswith("scripted:") for model in models):
            return False
        return spec is not None or bool(self._in_force.budgets) or priced()

    async def ready(self) -> None:
        """Load the prices, off the loop."""
        if not prices.loaded():
            await asyncio.to_thread(prices.load)

    def terms(
        self,
        key: Any,
        config: ImageConfig,
        overhead: Callable[[], str],
        addresses: Addresses,
        *,
        priced: Callable[[], bool],
        models: tuple[str, ...] = (),
    ) -> Terms | None:
        """What an agent of this definition must know of money; None where nothing limits it.

        key: of the definition, with its version and tools, and the models. overhead: gives the text of instructions and
        tools. addresses: where calls of a model may go. priced: whether a rule limits what a call costs. models: those
        that it may call besides.
        """
        if config.budget is None and not self._in_force.budgets and not priced():
            return None
        places = {model: addresses(model) for model in (*self._models_of(config), *models)}
        place = key, self._clock.now() // DAY_US, tuple(places.values())
        if place not in self._terms:
            if len(self._terms) >= TERMS_MAX:
                self._terms.clear()
            self._terms[place] = self._made(config.budget, places, config.degrade_to, overhead())
        return self._terms[place]

    def _models_of(self, config: ImageConfig) -> Iterable[str]:
        """Those that may be called for a definition: its own, and the cheaper ones."""
        cheaper = (config.degrade_to, *(budget.degrade_to for budget in self.rules), *self._foreseen)
        return (config.model, *config.fallbacks, *(model for model in cheaper if model is not None))

    def own_terms(
        self,
        spec: BudgetSpec | None,
        model: str | None,
        fallbacks: Sequence[str] | None,
        config: ImageConfig,
        overhead: Callable[[], str],
        addresses: Addresses,
        *,
        elsewhere: bool = False,
        priced: bool = False,
    ) -> Terms | None:
        """What one job brings along: limits of its own, and the prices of models that its image does not name; of all,
        where it may go `elsewhere` with them."""
        named = (*((model,) if model is not None else ()), *(fallbacks or ()))
        limited = config.budget is not None or bool(self._in_force.budgets)
        if spec is None and not priced and not ((named or elsewhere) and limited):
            return None
        every = (*named, *self._models_of(config))
        if spec is not None or (priced and not limited):
            return self._made(spec, {name: addresses(name) for name in every}, config.degrade_to, overhead())
        return Terms(rates=self._rates_of({name: addresses(name) for name in (every if elsewhere else named)}))

    def _made(self, spec: BudgetSpec | None, places: Places, degrade_to: str | None, overhead: str) -> Terms:
        return Terms(
            spec=spec,
            ledger=self.scope if self._in_force.budgets else None,
            rates=self._rates_of(places),
            overhead=tokens_of(overhead) + 64,
            degrade_to=degrade_to,
        )

    def _rates_of(self, places: Places) -> tuple[Rate, ...]:
        rates = (self._rate(model, where) for model, where in places.items())
        return tuple(rate for rate in rates if rate is not None)

    def _rate(self, model: str, where: tuple[str | None, ...] = (None,)) -> Rate | None:
        """The most that a model charges today and tomorrow, None where no price is known."""
        now = self._clock.now()
        place = model, where, now // DAY_US
        if place not in self._rates:
            if len(self._rates) >= TERMS_MAX:
                self._rates.clear()
            self._rates[place] = prices.rate(model, now, where)
        return self._rates[place]

    # -- setting and showing limits --

    @contextmanager
    def foreseeing(self, model: str) -> Iterator[None]:
        """Terms that are made meanwhile say what this model charges: a limit is being set that goes on with it."""
        self._foreseen.append(model)
        self._terms.clear()
        try:
            yield
        finally:
            self._foreseen.remove(model)
            self._terms.clear()

    def checked(self, given: object) -> Budget:
        """A limit of this scope. Raises BadInput."""
        return self._mine(budget_of(given))

    def check_degrading(self, budget: Budget, configs: Sequence[ImageConfig]) -> None:
        """Raises BadInput for a limit that degrades and has no cheaper model to go on with, as far as is known now.

        configs: of whoever may fall under it. Where it cannot be known, it is found out before a call, and denied.
        """
        named = {budget.degrade_to or config.degrade_to for config in configs} - {None}
        if not named:
            raise BadInput(
                "A limit that degrades needs a cheaper model to go on with, and none is named: give it degrade_to"
                " (--degrade-to MODEL), or the images that it limits, or let it deny or warn."
            )
        if budget.degrade_to is None:
            return
        cheaper = self._rate(budget.degrade_to)
        costs = any(name.startswith("max_cost") and value for name, value in msgspec.structs.asdict(budget).items())
        if cheaper is None and costs and budget.unpriced == "deny":
            raise BadInput(
                f"No price is known for {budget.degrade_to}, which this limit of money is to degrade to: name another"
                ' model, or set it with unpriced="allow".'
            )
        models = {config.model for config in configs}
        if all(not _may_be_cheaper(budget.degrade_to, cheaper, model, self._rate(model)) for model in models):
            raise BadInput(
                f"{budget.degrade_to} costs no less than {', '.join(sorted(models))}: name a cheaper model in"
                " degrade_to, or let the limit deny or warn."
            )

    async def set(
        self, budget: Budget, ask: Callable[..., Awaitable[Reply]], asked: int, *, opening: bool = False
    ) -> Budget:
        """Set a limit of this scope, of one of its principals or sessions, unless another was set or it was lifted that
        was asked for later. Raises BadInput for one without a limit. When it returns, whoever holds something has heard
        of it, but for those who are about to take it.

        ask: puts the command to the ledger, on behalf of whoever sets it. asked: its number in `order`. opening: it is
        what a program opens with.
        """
        command = SetBudget(budget=budget, at=self._clock.now(), counts=True, opening=opening)
        await self.order.take((self.scope, *whose(budget)), asked, lambda: ask(self._stream, command))
        await self._kernel.dispatch.performed(self._stream, _calls_back)
        return budget

    async def remove(
        self, ask: Callable[..., Awaitable[Reply]], principal_id: str | None = None, session_id: str | None = None
    ) -> bool:
        """Lift the limits of this scope, or those of one principal or session. False when there were none."""
        command = RemoveBudget(principal_id=principal_id, session_id=session_id, at=self._clock.now())
        owner = self.scope, *whose(Budget(principal_id=principal_id, session_id=session_id))
        reply = await self.order.take(owner, self.order.asked(), lambda: ask(self._stream, command))
        await self._kernel.dispatch.performed(self._stream, _calls_back)
        return reply is not None and bool(reply.events)

    async def counted(self) -> None:
        """Wait until what was used before the limits were set is counted, but for calls under way. Where nothing owed
        is done, as by a process that only sets a limit, it is counted here: that reads the log and nothing else."""
        counting = (await self._state()).counting
        if not counting:
            return
        self._kernel.wake(self._stream)  # where nobody has taken up what an earlier process left
        await self._state()
        await self._kernel.dispatch.performed(
            self._stream, lambda effect: isinstance(effect, CountUsage) and effect.count == counting
        )
        state = await self._state()
        if state.counting and not self._kernel.telling.armed:
            command = await self.counting.count(CountUsage(id="", count=state.counting, after=state.upto))
            await self._ask(self._stream, command)

    @property
    def limited(self) -> bool:
        """Whether any limit is in force in this scope."""
        return bool(self._in_force.budgets)

    async def _state(self) -> State:
        state: State = (await self._peek(self._stream))[0]
        return state

    def _mine(self, budget: Budget) -> Budget:
        if budget.scope_id is None:
            return msgspec.structs.replace(budget, scope_id=self.scope)
        if budget.scope_id != self.scope:
            raise BadInput(f"This runtime works for the scope {self.scope!r} and sets no limits of another.")
        return budget

    async def use(self) -> list[LimitUse]:
        """Every limit in force, with what is used of it now."""
        state = await self._state()
        purses = {}
        for session_id, account in state.accounts.items():
            if account.held != NOTHING:
                with passed_over(f"session-{session_id}"):  # it counts with what was told of it
                    purses[session_id] = (await self._peek(f"session-{session_id}"))[1].purse
        return uses(state, purses, self._clock.now())


class _Unread:
    """In place of what is in force, where that cannot be read: whoever asks for it hears why, and spends nothing."""

    def __init__(self, error: Corrupt) -> None:
        self._error = error

    @property
    def budgets(self) -> NoReturn:
        raise Corrupt(str(self._error))

    opened = budgets


def _calls_back(effect: Effect) -> bool:
    return isinstance(effect, RecallAllotments)


def _options(budget: Budget, scope: str) -> str:
    """As `reenact budget set` is given it."""
    plain = msgspec.structs.asdict(Budget())
    named = {name: value for name, value in msgspec.structs.asdict(budget).items() if value != plain[name]}
    named["scope_id"] = None if scope == "default" else scope
    return " ".join(
        f"--{name.removesuffix('_id').replace('_', '-')}={shlex.quote(str(value))}"
        for name, value in named.items()
        if value is not None
    )


def _may_be_cheaper(name: str, rate: Rate | None, than: str, its: Rate | None) -> bool:
    """Whether some call of one model may cost less than the same of another; where a price is not known, it may."""
    if name == than:
        return False
    return rate is None or its is None or rate.input < its.input or rate.output < its.output
