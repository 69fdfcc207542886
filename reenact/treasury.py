"""The treasury of a runtime: which limits are in force, what an agent must know of them, and money fetched when asked.

A session spends what it was allotted by itself. When that runs out, its asking is taken to the ledger of its scope.
Where too little is left, every other session that holds something is asked to let go of what it does not need; and
while calls are under way that may cost less than was set aside for them, it waits, in the order of asking, before the
ledger may deny.

When a limit is set or lifted, the ledger owes that everybody lets go of what was allotted under the limits before:
those at rest at once, those at work before their next call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from .actors import judge
from .actors.book import Account, State, settled, usage_of, used_of
from .actors.calendar import DAY_US
from .actors.clock import Clock
from .actors.ledger import evolve
from .actors.purse import Purse, tokens_of
from .adapters import prices
from .ends import retell_s
from .events import codec
from .events.agent import ModelAnswered, ModelFailed, TurnCompleted
from .events.budget import NOTHING, Amount, Breach, Budget, BudgetSpec, Rate, Terms, budget_of, dollars
from .events.errors import BadInput, Busy, Conflict, Corrupt, DiskFull, StoreError
from .events.failpoint import failpoint
from .events.image import ImageConfig
from .events.ledger import (
    RESERVED,
    Allot,
    AllotmentDenied,
    AllotmentReturned,
    Allotted,
    BudgetRaised,
    BudgetRemoved,
    BudgetSet,
    RaiseBudget,
    RecallAllotment,
    RemoveBudget,
    ReturnAllotment,
    SetBudget,
    UsageRecorded,
)
from .events.message import Command, Recorded
from .events.purse import (
    AllotmentReleased,
    AllotmentTaken,
    RefuseAllotment,
    ReleaseAllotment,
    RequestAllotment,
    TakeAllotment,
)
from .kernel import Kernel, Who

if TYPE_CHECKING:
    from .actors.system import Reply

WAIT_MAX_S = 300.0
"""The longest that a session waits for what others may give back, before the ledger may deny."""

RECALLS_MAX = 64
"""Sessions that are asked at once to let go of what they do not need."""

TERMS_MAX = 10_000
"""Definitions whose terms are remembered."""

_log = logging.getLogger("reenact")


class LimitUse(Struct, frozen=True, kw_only=True, rename="camel"):
    """One limit and what is used of it in its window: money in US dollars as exact decimals, the rest whole numbers.

    of: scope, principal or session; name: whose it is. used: settled, with what sessions have spent of what they hold.
    outstanding: set aside for sessions, and not spent. left: what may still be set aside. strategy: what follows when
    it would be passed: deny, degrade, warn, or ask, where a person may raise it.
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
        self._in_force = State()
        self._terms: dict[Any, Terms | None] = {}
        self._rates: dict[tuple[str, int], Rate | None] = {}
        self._line: list[_Waiter] = []
        self._hears: Any = None
        self.outside: set[str] = set()
        """Who holds something for a program, and no session; see `budgets.Ledger.reserve`."""

    async def open(self) -> None:
        """Look which limits are in force, and who holds what is called back."""
        if await asyncio.to_thread(self._kernel.log.head, self._stream):
            state: State = (await self._peek(self._stream))[0]
            self._in_force = State(budgets=state.budgets)
            for session_id, ask in state.due.items():
                if not session_id.startswith(RESERVED):
                    self._kernel.called_back[f"session-{session_id}"] = ask
            try:
                await self._settle_reserved(state)
            except StoreError as error:
                _log.error("what an earlier process had reserved could not be settled, the next start does: %s", error)

    async def _settle_reserved(self, state: State) -> None:
        """What an earlier owner's programs had reserved nobody can give back, nor say what was used of it: what was set
        aside is used, as a call that was under way is, but for what was recorded meanwhile."""
        left = {
            holder: account
            for holder, account in state.accounts.items()
            if holder.startswith(RESERVED) and account.held != NOTHING
        }
        if not left:
            return
        doubt: dict[str, Amount] = {}  # what was asked for; more may have been allotted, which no program used
        for batch in await asyncio.to_thread(lambda: list(self._kernel.log.read(self._stream))):
            for one in codec.unpack(batch):
                match one.data:
                    case Allotted(session_id=holder, want=want) if holder in left:
                        doubt[holder] = want
                    case UsageRecorded(holder=str(holder)) as usage if holder in doubt:
                        doubt[holder] -= usage_of(usage) or NOTHING
        for holder, account in left.items():
            spent = account.told + doubt.get(holder, account.held)
            await self._ask(self._stream, self._back(holder, account.ask, spent, NOTHING))

    def hear(self, recorded: Recorded) -> None:
        """A limit was set or lifted; or a session has let go of something."""
        data = recorded.data
        if isinstance(data, AllotmentReleased):
            self._kernel.later(self._settle(recorded.stream.removeprefix("session-"), data, recorded.context.scope))
        elif isinstance(data, BudgetSet | BudgetRemoved | BudgetRaised) and recorded.stream == self._stream:
            self._in_force = evolve(self._in_force, data, recorded.stamp)
            self._terms.clear()

    # -- what an agent must know --

    @property
    def rules(self) -> tuple[Budget, ...]:
        """The limits in force in this scope."""
        return tuple(standing.budget for standing in self._in_force.budgets)

    def is_given(self, budget: Budget) -> bool:
        """Whether a limit in force was set like this, though people may have raised it since."""
        return any(standing.given == budget for standing in self._in_force.budgets)

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
        place = key, self._clock.now() // DAY_US
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
        rates = (self._rate(model) for model in dict.fromkeys(models))
        return tuple(rate for rate in rates if rate is not None)

    def _rate(self, model: str) -> Rate | None:
        """The most that a model charges today, None where no price is known."""
        now = self._clock.now()
        place = model, now // DAY_US
        if place not in self._rates:
            if len(self._rates) >= TERMS_MAX:
                self._rates.clear()
            self._rates[place] = prices.rate(model, now)
        return self._rates[place]

    # -- setting and showing limits --

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

    async def set(self, budget: Budget, ask: Callable[..., Awaitable[Reply]]) -> Budget:
        """Set a limit of this scope, of one of its principals or sessions. Raises BadInput for one without a limit.
        When it returns, whoever holds something has heard of it, but for those who are about to take it.

        ask: puts the command to the ledger, on behalf of whoever sets it.
        """
        await ask(self._stream, SetBudget(budget=budget, at=self._clock.now()))
        await self._kernel.dispatch.performed(self._stream)
        return budget

    async def remove(
        self, ask: Callable[..., Awaitable[Reply]], principal_id: str | None = None, session_id: str | None = None
    ) -> bool:
        """Lift the limits of this scope, or those of one principal or session. False when there were none."""
        command = RemoveBudget(principal_id=principal_id, session_id=session_id, at=self._clock.now())
        removed = bool((await ask(self._stream, command)).events)
        await self._kernel.dispatch.performed(self._stream)
        return removed

    def _mine(self, budget: Budget) -> Budget:
        if budget.scope_id is None:
            return msgspec.structs.replace(budget, scope_id=self.scope)
        if budget.scope_id != self.scope:
            raise BadInput(f"This runtime works for the scope {self.scope!r} and sets no limits of another.")
        return budget

    async def use(self) -> list[LimitUse]:
        """Every limit in force, with what is used of it now."""
        state: State = (await self._peek(self._stream))[0]
        purses = {}
        for session_id, account in state.accounts.items():
            if account.held != NOTHING:
                purses[session_id] = (await self._peek(f"session-{session_id}"))[1].purse
        return uses(state, purses, self._clock.now())

    # -- the performer of what a session asks for --

    async def fetch(self, stream: str, effect: RequestAllotment) -> Command:
        """Ask the ledger, and give the session's command: it takes the allotment, or hears why there is none."""
        session = await self._kernel.telling.session(stream)
        newest = session.newest
        cause = None if newest is None else newest.id
        correlation = None if newest is None else newest.head.correlation
        ledger = f"ledger-{effect.ledger}"

        def asking(last: bool, seen: int | None = None) -> Allot:
            return Allot(
                session_id=effect.session_id,
                principal_id=session.ids.principal,
                ask=effect.id,
                spent=effect.spent,
                want=effect.want,
                least=effect.least,
                at=max(self._clock.now(), effect.at),
                priced=effect.priced,
                last=last,
                seen=seen,
            )

        async def ask(last: bool, seen: int | None = None) -> Account | None:
            command = asking(last, seen)
            failpoint("ledger.ask")
            reply = await self._patiently(lambda: self._ask(ledger, command, cause=cause, correlation=correlation))
            failpoint("ledger.asked")
            account: Account | None = reply.states[0].accounts.get(effect.session_id)
            return account if account is not None and account.ask == effect.id else None

        if effect.raises is not None:
            consent = RaiseBudget(
                session_id=effect.session_id,
                principal_id=session.ids.principal,
                consent=effect.raises,
                at=max(self._clock.now(), effect.at),
            )
            failpoint("ledger.raise")
            await self._patiently(lambda: self._ask(ledger, consent, cause=cause, correlation=correlation))
            failpoint("ledger.raised")
        waiter = _Waiter(effect.session_id, session.ids.principal)
        account = None if self._is_behind(waiter) else await ask(last=False)
        if account is None:
            account = await self._in_line(ledger, waiter, asking, ask)
        if account is not None and account.grant is not None:
            return TakeAllotment(ask=effect.id, grant=account.grant)
        assert account is not None and account.breach is not None, "the ledger answers what it is asked"
        return RefuseAllotment(ask=effect.id, breach=account.breach)

    # -- waiting for what others may give back --

    async def _in_line(
        self,
        ledger: str,
        waiter: _Waiter,
        asking: Callable[[bool], Allot],
        ask: Callable[[bool, int | None], Awaitable[Account | None]],
    ) -> Account | None:
        """Ask again whenever something was given back, behind those who wait for the same; then for the last time."""
        until = asyncio.get_running_loop().time() + WAIT_MAX_S
        state: State = (await self._peek(ledger))[0]
        breach = judge.in_the_way(state, asking(False))
        waiter.waits_for = None if breach is None else breach.of
        for other in self._line:  # what it held it gives back with what it asks for, which its ledger has not heard
            other.heard_of.add(waiter.session_id)
            other.news.set()
        self._line.append(waiter)
        if self._hears is None:
            self._hears = self._kernel.bus.on(_NEWS, self._news)
        try:
            everybody = True
            while True:
                if not self._is_behind(waiter):
                    whom, waiter.heard_of = (None if everybody else waiter.heard_of), set()
                    everybody = False
                    await self._recall(ledger, waiter, whom)
                    account = await ask(False, None)
                    if account is not None:
                        return account
                    state = (await self._peek(ledger))[0]
                    breach = judge.in_the_way(state, asking(False))
                    if breach is None:
                        continue  # something came back just now
                    waiter.waits_for = breach.of
                    if not judge.may_come_back(state, asking(False), breach, waiter.lost, waiter.calling):
                        account = await ask(True, state.version)
                        if account is not None:
                            return account
                        continue  # something has changed meanwhile
                left = until - asyncio.get_running_loop().time()
                if left <= 0:
                    return await ask(True, None)
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await waiter.news.wait()
                waiter.news.clear()
        finally:
            self._line.remove(waiter)
            for other in self._line:
                other.news.set()
            if not self._line:
                hears, self._hears = self._hears, None
                hears.unsubscribe()

    def _is_behind(self, waiter: _Waiter) -> bool:
        """Whether somebody waits before it for a limit that it falls under as well."""
        for other in self._line:
            if other is waiter:
                return False
            if other.waits_for == "scope" or (other.waits_for and other.principal == waiter.principal):
                return True
        return False

    def _news(self, recorded: Recorded) -> None:
        """Something happened that may leave more than there was."""
        data = recorded.data
        whom = data.session_id if isinstance(data, Allotted) else recorded.stream.removeprefix("session-")
        for waiter in self._line:
            waiter.heard_of.add(whom)
            waiter.news.set()

    # -- limits that were changed --

    async def recall(self, effect: RecallAllotment) -> Command:
        """Have a session let go of what was allotted under other limits, and give its ledger's command. One that is in
        the middle of something lets go before its next call of a model."""
        stream = f"session-{effect.session_id}"
        self._kernel.called_back[stream] = effect.ask
        failpoint("ledger.recall")
        back = await self._called_back(stream, effect.ask)
        failpoint("ledger.recalled")
        return not_back(effect) if back is None else back

    async def heeded(self, stream: str) -> None:
        """Before a session calls a model: it lets go of what is called back, but for this call."""
        ask = self._kernel.called_back.get(stream)
        if ask is not None:
            back = await self._called_back(stream, ask)
            if back is not None:
                await self._patiently(lambda: self._ask(self._stream, back))

    async def _called_back(self, stream: str, ask: str) -> ReturnAllotment | None:
        session_id = stream.removeprefix("session-")
        state: State = (await self._peek(self._stream))[0]
        account = state.accounts.get(session_id)
        gone = account is None or account.ask != ask
        try:
            back = None if account is None or gone else await self._let_go(session_id, account)
        except _LeftAlone:
            back = None
        if (gone or back is not None) and self._kernel.called_back.get(stream) == ask:
            del self._kernel.called_back[stream]
        return back

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
                await asyncio.sleep(retell_s(tries))
                tries += 1

    async def _recall(self, ledger: str, waiter: _Waiter, whom: Collection[str] | None) -> None:
        """Have every other session that holds something of this ledger let go of what it does not need; or those of
        `whom`."""
        state: State = (await self._peek(ledger))[0]
        holding = [
            (session_id, account)
            for session_id, account in state.accounts.items()
            if account.held != NOTHING and session_id != waiter.session_id and (whom is None or session_id in whom)
        ]

        async def one(session_id: str, account: Account) -> None:
            try:
                back = await self._let_go(session_id, account)
            except (_LeftAlone, Corrupt):
                waiter.lost.add(session_id)
            else:
                if back is not None:
                    if back.kept.requests:
                        waiter.calling[session_id] = back.ask
                    await self._patiently(lambda: self._ask(ledger, back))

        for at in range(0, len(holding), RECALLS_MAX):
            await asyncio.gather(*(one(*each) for each in holding[at : at + RECALLS_MAX]))

    async def _let_go(self, session_id: str, account: Account) -> ReturnAllotment | None:
        """Have a session let go of what it does not need. Gives what its ledger is told; None where it is about to take
        it, and lets go later. Raises _LeftAlone."""
        if session_id in self.outside:
            return None
        stream = f"session-{session_id}"
        ours = self._kernel.dispatch.is_at(stream)  # what it owed a moment ago may have its end by now
        states = await self._peek(stream)
        purse: Purse | None = states[1].purse
        if purse is None:
            spent, kept = account.told, NOTHING
        elif purse.asking is not None and purse.asking.ask == account.ask:
            return None
        elif purse.source != account.ask:
            spent, kept = purse.spent, NOTHING  # nobody took it
        else:
            if purse.ceiling - purse.spent != _under_way(purse):
                if not ours and not self._kernel.may_touch(stream, states):
                    raise _LeftAlone
                reply = await self._ask(stream, ReleaseAllotment(ask=account.ask))
                purse = reply.states[1].purse
                assert purse is not None
            if purse.source != account.ask:
                return None  # it has asked for more meanwhile, and told all
            spent, kept = purse.spent, purse.ceiling - purse.spent
        return self._back(session_id, account.ask, spent, kept)

    def _back(self, session_id: str, ask: str, spent: Amount, kept: Amount) -> ReturnAllotment:
        return ReturnAllotment(session_id=session_id, ask=ask, spent=spent, kept=kept, at=self._clock.now())

    async def _settle(self, session_id: str, released: AllotmentReleased, scope: str) -> None:
        """A session has let go of something: let the ledger know. Were this cut short, the next recall tells it."""
        await self._ask(f"ledger-{scope}", self._back(session_id, released.ask, released.spent, released.kept))


class _LeftAlone(Exception):
    """An earlier owner left it in the middle of something, and nobody has taken that up."""


class _Waiter:
    """A session that waits for money. waits_for: whose limit is in the way, as far as it is known. heard_of: sessions
    of which something was heard since it asked last. lost: those who cannot be asked for what they hold. calling: those
    who call a model with it, and their ask."""

    __slots__ = ("calling", "heard_of", "lost", "news", "principal", "session_id", "waits_for")

    def __init__(self, session_id: str, principal: str) -> None:
        self.session_id = session_id
        self.principal = principal
        self.news = asyncio.Event()
        self.waits_for: str | None = None
        self.heard_of: set[str] = set()
        self.lost: set[str] = set()
        self.calling: dict[str, str] = {}


_NEWS = tuple(
    kind.type
    for kind in (
        AllotmentReturned,
        Allotted,
        AllotmentDenied,
        BudgetSet,
        BudgetRaised,
        BudgetRemoved,
        AllotmentTaken,
        ModelAnswered,
        ModelFailed,
        TurnCompleted,
    )
)
"""After these somebody may hold less, or let go of something."""


def not_back(effect: RecallAllotment) -> ReturnAllotment:
    """What its ledger is told where nothing came back: nothing. It stays owed, for the next owner to see to."""
    return ReturnAllotment(session_id=effect.session_id, ask="", spent=NOTHING, at=0)


def _may_be_cheaper(name: str, rate: Rate | None, than: str, its: Rate | None) -> bool:
    """Whether some call of one model may cost less than the same of another; where a price is not known, it may."""
    if name == than:
        return False
    return rate is None or its is None or rate.input < its.input or rate.output < its.output


def _under_way(purse: Purse) -> Amount:
    return NOTHING if purse.held is None else purse.held.amount


def uses(state: State, purses: dict[str, Purse | None], at: int) -> list[LimitUse]:
    """Every limit of a ledger with what is used of it. purses: of the sessions that hold something."""
    for session_id, account in state.accounts.items():
        purse = purses.get(session_id)
        if account.held != NOTHING and purse is not None:
            kept = account.held - (purse.spent - account.told) if purse.source == account.ask else account.held
            state = settled(state, session_id, account.principal, purse.spent, kept, at)
    found = []
    for standing in state.budgets:
        of, name = standing.key
        for limit, most in standing.limits:
            used, out = used_of(state, standing, limit, at)
            show = dollars if limit.of == "cost" else int
            found.append(
                LimitUse(
                    limit=limit.name,
                    of=of,
                    name=name or None,
                    window=limit.window,
                    most=show(most),
                    used=show(used),
                    outstanding=show(out),
                    left=show(max(0, most - used - out)),
                    strategy="ask" if judge.asks(standing.budget, limit) else standing.budget.exceed_strategy,
                )
            )
    return found
