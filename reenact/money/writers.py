"""Where the entries of a ledger go: a ledger in memory, or that of a runtime's scope, in its log."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec.structs import replace

from ..actors import decider
from ..actors.book import SCOPE, State, Sums, falls_under, whose
from ..actors.clock import Clock, SystemClock
from ..actors.ledger import LEDGER
from ..actors.ledger import decide as decided
from ..adapters import prices
from ..adapters.tools.acting import origin
from ..events import codec
from ..events.budget import Budget, dollars, used_dollars
from ..events.content import Usage
from ..events.errors import BadInput, KeyReused
from ..events.ledger import (
    Allot,
    RecordUsage,
    RemoveBudget,
    ReturnAllotment,
    SetBudget,
    UsageRecorded,
    is_reserved,
    model_named,
    tokens_used,
)
from ..events.message import Command, digest
from ..events.visible import shown
from ..identity.access import NO_LIMITS
from .entries import (
    LedgerEvent,
    LedgerEventType,
    UsageRecord,
    counted_of,
    duration_of,
    event_of,
    kind_of,
    metadata_of,
    name_of,
    time_of,
)
from .order import Order
from .recalls import Asker

if TYPE_CHECKING:
    from ..runtime import Runtime

HOLDER: ContextVar[str | None] = ContextVar("reenact_holder", default=None)
"""The reservation whose block is running."""

ENTRIES_MAX = 100_000
"""Entries that a writer in memory can list, and ids that it knows again. Its sums hold for ever."""


class LedgerWriter(Protocol):
    """Where entries go. `put` decides a command in the ledger of a scope, and gives the state after it.

    scope: the one that is meant where none is named. `checked` refuses a limit that cannot be set, `limit` sets one
    that has its number in `order` already.
    """

    @property
    def scope(self) -> str: ...
    @property
    def order(self) -> Order: ...
    def checked(self, budget: Budget) -> Budget: ...
    async def limit(self, budget: Budget, asked: int) -> None: ...
    async def put(self, scope_id: str, command: Command) -> tuple[State, bool]: ...
    async def state(self, scope_id: str) -> State: ...
    async def entries(self, scope_id: str) -> list[UsageRecorded]: ...
    def now(self) -> int: ...
    def new_id(self) -> str: ...


class _Writing:
    """What every writer offers beside the port."""

    async def used(self: Any, scope_id: str) -> State:
        """The state of a ledger that has heard of all that was used."""
        state: State = await self.state(scope_id)
        return state

    async def write(self: Any, event: LedgerEvent) -> None:
        """Record one entry; by the same `event_id` it counts once, however often it comes. What a tool records without
        a principal counts for whoever sent its job. Raises BadInput where its type, time, names, counts, cost, duration
        or metadata is none, or where a model has no price that a limit of money needs, and KeyReused where another
        entry has that id."""
        heard = self.now()
        command = RecordUsage(
            entry=event.event_id or self.new_id(),
            kind=kind_of(event.type),
            at=heard if event.timestamp is None else time_of(event.timestamp, heard),
            heard=heard,
            principal_id=event.principal_id or origin(event.scope_id) or None,
            session_id=event.session_id,
            run_id=event.run_id,
            job_id=event.job_id,
            provider=name_of("provider", event.provider),
            model=name_of("model", event.model),
            tool=event.tool_name,
            input_tokens=counted_of("input_tokens", event.input_tokens),
            output_tokens=counted_of("output_tokens", event.output_tokens),
            total_tokens=counted_of("total_tokens", event.total_tokens),
            cost=used_dollars("cost", event.cost),
            duration_ms=duration_of(event.duration_ms),
            metadata=metadata_of(event.metadata),
            holder=HOLDER.get(),
        )
        priced = replace(command, cost=await self._cost(event.scope_id, command))
        if not event.event_id:
            await self.put(event.scope_id, priced)
            return
        at = 0 if event.timestamp is None else command.at
        told = replace(command, principal_id=event.principal_id, heard=0, holder=None, at=at)
        await self._once(event.scope_id, priced, told)

    async def _cost(self: Any, scope_id: str, used: RecordUsage) -> str | None:
        """What was told that it cost; else, of what a model used, its list price. Where it has none, and a limit of
        money refuses what has none, BadInput, but for an entry that is known."""
        usage = _usage_of(used)
        if used.cost is not None or used.kind != LedgerEventType.MODEL_USAGE or usage is None:
            return used.cost
        provider, model = model_named(used.provider, used.model)
        if provider != "scripted" and not prices.loaded():
            await asyncio.to_thread(prices.load)
        amount = prices.price(usage, model, provider, used.at).amount
        if amount is not None:
            return used_dollars("cost", amount)
        state: State = await self.state(scope_id)
        for standing in falls_under(state, used.principal_id or "", used.session_id or ""):
            if standing.costs is None or standing.budget.unpriced == "allow":
                continue
            if not any(entry.entry == used.entry for entry in await self.entries(scope_id)):
                raise BadInput(
                    f"No cost is told, and no price is known for model {shown(used.model)} of provider"
                    f" {shown(used.provider)}, and {standing.costs} of the {standing.key[0]} is a limit of money: tell"
                    ' what it cost, or set the budget with unpriced="allow".'
                )
        return None

    def checked(self, budget: Budget) -> Budget:
        """A limit that may be set here. Raises BadInput, and NotAPerson where an agent or one of its tools sets it."""
        decided(State(), SetBudget(budget=budget, at=0))
        return budget

    async def get_usage(
        self: Any, scope_id: str, principal_id: str | None = None, session_id: str | None = None
    ) -> UsageRecord:
        """What a scope used, or one principal or session of it: told here, and by the sessions of a runtime, but for
        calls under way. What its ledger has not heard of is read in the log: where nothing is limited, all of it."""
        state: State = await self.used(scope_id)
        key = SCOPE
        if session_id is not None:
            key = ("session", session_id)
        elif principal_id is not None:
            key = ("principal", principal_id)
        total = state.sums.get(key, Sums()).total
        read = written = 0
        for entry in await self.entries(scope_id):
            if principal_id in (None, entry.principal_id) and session_id in (None, entry.session_id):
                read, written = read + entry.input_tokens, written + entry.output_tokens
        return UsageRecord(
            input_tokens=read,
            output_tokens=written,
            total_tokens=total.tokens,
            total_cost=Decimal(dollars(total.cost)),
            requests=total.requests,
            tool_calls=total.tools,
        )

    async def list_events(
        self: Any,
        scope_id: str,
        *,
        event_type: LedgerEventType | None = None,
        principal_id: str | None = None,
        limit: int = 100,
    ) -> list[LedgerEvent]:
        """The entries told here, the newest first. What sessions of a runtime used is none: it is in their own streams,
        and added up by `projections.ledger.Ledger` and `reenact cost`. Raises BadInput for a type that there is none
        of, and a limit that is no number."""
        kind, limit = None if event_type is None else kind_of(event_type, "event_type"), counted_of("limit", limit)
        found: list[LedgerEvent] = []
        for entry in reversed(await self.entries(scope_id)):
            if kind not in (None, entry.kind) or principal_id not in (None, entry.principal_id):
                continue
            if len(found) >= limit:
                break
            found.append(event_of(scope_id, entry))
        return found


class InMemoryLedgerWriter(_Writing):
    """A ledger for each scope, in memory: the same decisions as a stored one."""

    scope = "default"

    def __init__(self, clock: Clock | None = None) -> None:
        self.order = Order()
        self._clock = clock or SystemClock()
        self._states: dict[str, tuple[Any, ...]] = {}
        self._entries: dict[str, list[UsageRecorded]] = {}
        self._told: dict[tuple[str, str], bytes] = {}

    async def put(self, scope_id: str, command: Command) -> tuple[State, bool]:
        decided = self._decided(scope_id, command)
        match command:
            case SetBudget(budget=budget):
                self.order.done((scope_id, *whose(budget)), self.order.asked())
            case RemoveBudget(principal_id=principal, session_id=session):
                self.order.done((scope_id, principal, session), self.order.asked())
        return decided

    async def limit(self, budget: Budget, asked: int) -> None:
        scope = budget.scope_id or self.scope
        if not self.order.is_late((scope, *whose(budget)), asked):
            self._decided(scope, SetBudget(budget=budget, at=self.now()))
            self.order.done((scope, *whose(budget)), asked)

    def _decided(self, scope_id: str, command: Command) -> tuple[State, bool]:
        states = self._states.get(scope_id, LEDGER.initial)
        decision = decider.decide(LEDGER, states, command, version=0, at=self.now(), epoch=1)
        self._states[scope_id] = decision.states
        entries = self._entries.setdefault(scope_id, [])
        entries += [event for event in decision.events if isinstance(event, UsageRecorded)]
        del entries[:-ENTRIES_MAX]
        return decision.states[0], bool(decision.events)

    async def _once(self, scope_id: str, command: RecordUsage, told: RecordUsage) -> None:
        body, place = _digest_of(told), (scope_id, command.entry)
        if self._told.get(place, body) != body:
            raise KeyReused
        if place not in self._told:
            await self.put(scope_id, command)
            self._told[place] = body
            if len(self._told) > ENTRIES_MAX:
                del self._told[next(iter(self._told))]

    async def state(self, scope_id: str) -> State:
        state: State = self._states.get(scope_id, LEDGER.initial)[0]
        return state

    async def entries(self, scope_id: str) -> list[UsageRecorded]:
        return list(self._entries.get(scope_id, ()))

    def now(self) -> int:
        return self._clock.now()

    def new_id(self) -> str:
        return self._clock.new_id()


class RuntimeLedgerWriter(_Writing):
    """The ledger of a runtime's own scope, in its log."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._holders: set[str] = set()

    @property
    def scope(self) -> str:
        """The one scope that it writes to."""
        return self._runtime.scope

    @property
    def order(self) -> Order:
        """That of all who set limits of the scope, by way of a ledger or not."""
        return self._runtime._treasury.order

    def _stream(self, scope_id: str) -> str:
        if scope_id != self._runtime.scope:
            raise BadInput(f"This runtime works for the scope {self._runtime.scope!r}, not for {scope_id!r}.")
        return f"ledger-{scope_id}"

    def checked(self, budget: Budget) -> Budget:
        self._runtime._access.check_person(NO_LIMITS)
        if budget.degrade_to is not None:
            self._runtime._models.parse(budget.degrade_to)
        return super().checked(self._runtime._treasury.checked(budget))

    async def limit(self, budget: Budget, asked: int) -> None:
        await self._runtime._limit(budget, asked)

    async def put(self, scope_id: str, command: Command) -> tuple[State, bool]:
        """Limits are set and lifted as the runtime does it. What is set aside is for those that reserve here, and for
        no session. Raises NotAPerson, and BadInput for any other command."""
        stream = self._stream(scope_id)
        match command:
            case SetBudget(budget=budget):
                asked, before = self.order.asked(), (await self.state(scope_id)).version
                await self._runtime._limit(budget, asked)
                after = await self.state(scope_id)
                return after, after.version > before
            case RemoveBudget(principal_id=principal, session_id=session):
                gone = await self._runtime.remove_budget(principal_id=principal, session_id=session)
                return await self.state(scope_id), gone
            case Allot(session_id=holder) if is_reserved(holder):
                await self._runtime._treasury.counted()
                self._holders.add(holder)
                self._runtime._treasury.recalls.outside.add(holder)  # asked back of nobody
                return await self._allot(stream, command)
            case ReturnAllotment(session_id=holder) if holder in self._holders:
                self._holders.discard(holder)
                self._runtime._treasury.recalls.outside.discard(holder)
            case RecordUsage():
                return await self._keyed(stream, command)
            case _:
                raise BadInput(f"{command.type} is not for a program to put to a ledger.")
        access = self._runtime._access
        reply = await access.kernel.ask(stream, command, by=access.who)
        return reply.states[0], bool(reply.events)

    async def _allot(self, stream: str, command: Allot) -> tuple[State, bool]:
        """What lies idle is asked back before the ledger may deny. What is in use is not waited for."""
        access, holder, recalls = self._runtime._access, command.session_id, self._runtime._treasury.recalls
        reply = await access.kernel.ask(stream, replace(command, last=False), by=access.who)
        if command.last and not reply.events:
            await recalls.all_but(stream, Asker(holder), None)
            reply = await access.kernel.ask(stream, command, by=access.who)
        book: State = reply.states[0]
        if holder not in book.accounts:
            self._holders.discard(holder)
            recalls.outside.discard(holder)
        return book, bool(reply.events)

    async def _once(self, scope_id: str, command: RecordUsage, told: RecordUsage) -> None:
        hidden = self._runtime._access.kernel.vault.hidden(told, scope_id)  # not even a digest of a secret is stored
        try:
            await self._keyed(self._stream(scope_id), command, _digest_of(hidden))
        except KeyReused:  # or it was told without an id and has that one since, of which no digest is stored
            await self._keyed(self._stream(scope_id), command)

    async def _keyed(self, stream: str, command: RecordUsage, body: bytes = b"") -> tuple[State, bool]:
        access = self._runtime._access
        reply = await access.kernel.ask(stream, command, key=f"usage:{command.entry}", body=body, by=access.who)
        return reply.states[0], bool(reply.events)

    async def state(self, scope_id: str) -> State:
        state: State = (await self._runtime._peek(self._stream(scope_id)))[0]
        return state

    async def used(self, scope_id: str) -> State:
        self._stream(scope_id)
        return await self._runtime._treasury.counting.all_told()

    async def entries(self, scope_id: str) -> list[UsageRecorded]:
        stored = self._runtime.log.read(self._stream(scope_id))
        found = [recorded.data for batch in stored for recorded in codec.unpack(batch)]
        return [entry for entry in found if isinstance(entry, UsageRecorded)]

    def now(self) -> int:
        return self._runtime.clock.now()

    def new_id(self) -> str:
        return self._runtime.clock.new_id()


def _usage_of(used: RecordUsage) -> Usage | None:
    """The tokens that were told, None where there are none."""
    read, written = tokens_used(used)
    return Usage(input_tokens=read, output_tokens=written) if read or written else None


def _digest_of(told: RecordUsage) -> bytes:
    """Of what is said in an entry, whatever later releases may say in one besides."""
    return digest(
        msgspec.json.encode(
            {name: value for name, value in msgspec.structs.asdict(told).items() if value}, order="sorted"
        )
    )
