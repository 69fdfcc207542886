"""A seeded world of spending: 50 sessions and their sub-sessions on one ledger, killed between any two commits.

The deciders, the dispatch and the treasury are the real ones. What is played is the log (a dict of states), the loop's
choice of who is next (chance, from the seed) and the provider, who bills each call the moment he answers it, whether or
not anybody lives to hear of it. The judge holds his bills against the limits.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any, Self

from reenact.actors import book, decider
from reenact.actors.balance import Balance, Changes
from reenact.actors.book import Account, State
from reenact.actors.cell import noun_of
from reenact.actors.clock import ManualClock
from reenact.actors.dispatch import Dispatch, Origin, Work
from reenact.actors.ledger import LEDGER
from reenact.actors.mind import knows_ledger
from reenact.actors.system import Reply
from reenact.actors.turn import NOT_ASKED
from reenact.counting import Counting, not_counted
from reenact.events.agent import (
    AnswerModel,
    CallModel,
    CancelEffect,
    FailModel,
    Interrupt,
    ModelAnswered,
    ModelFailed,
    ProbeTool,
    RecoverEffect,
    RunTool,
    SettleTool,
    ToolStarted,
)
from reenact.events.budget import LIMITS, NOTHING, UNCOUNTED, Amount, Budget, BudgetSpec, Rate, Terms, dollars, nanos
from reenact.events.content import Cost, Failure, Text, ToolCall, Usage
from reenact.events.errors import Closed
from reenact.events.ledger import (
    AllotmentDenied,
    BudgetRemoved,
    BudgetSet,
    CountUsage,
    RecallAllotment,
    RemoveBudget,
    SetBudget,
)
from reenact.events.log import Batch, Stored
from reenact.events.message import Command, Context, Head, Recorded
from reenact.events.model import ModelAnswer, ModelParams
from reenact.events.policy import ApplyPolicy
from reenact.events.purse import (
    AllotmentReleased,
    AllotmentTaken,
    AllotmentWanted,
    BudgetReserved,
    ReleaseAllotment,
    RequestAllotment,
)
from reenact.events.session import CloseSession, CreateSession, Definition, Send, Waking
from reenact.events.tool import CallCheck
from reenact.kernel import Who
from reenact.line import not_asked
from reenact.recalls import not_back
from reenact.treasury import Treasury

RATE = Rate("scripted:any", 3_000_000, 15_000_000)  # three and fifteen dollars for a billion tokens: small numbers
PARENTS, CHILDREN = 10, 4
SCOPE = "acme"


class Overspent(AssertionError):
    """More was billed than there was."""


class Starved(AssertionError):
    """Somebody was denied what nobody used."""


class Disobeyed(AssertionError):
    """A session went on with what was allotted before a limit was changed."""


class Session:
    """What the treasury knows of a session that is awake."""

    def __init__(self, newest: Recorded | None) -> None:
        self.newest = newest


class Hearing:
    """One that hears of some events."""

    def __init__(self, news: dict[str, list[Any]], kinds: tuple[str, ...], handler: Any) -> None:
        self.lists, self.handler = [news.setdefault(kind, []) for kind in kinds], handler
        for handlers in self.lists:
            handlers.append(handler)

    def unsubscribe(self) -> None:
        for handlers in self.lists:
            if self.handler in handlers:
                handlers.remove(self.handler)


class Reading(Counting):
    """Reads when chance says so, and in no thread."""

    async def _aside(self, work: Any) -> Any:
        await self._kernel.turn()  # type: ignore[attr-defined]
        return work()


class World:
    """One seed. `billed` is the truth: what the provider asks for. free: nothing is limited in the beginning. several:
    more than one principal sends to each session, and one of them is limited too."""

    def __init__(self, seed: int, free: bool = False, several: bool = False) -> None:
        self.chance = random.Random(seed)
        chances = random.Random(-seed - 1)
        self.clock = ManualClock()
        self.states: dict[str, tuple[Any, ...]] = {}
        self.versions: dict[str, int] = {}
        self.newest: dict[str, Recorded] = {}
        self.epoch = 1
        self.position = 0
        self.billed = NOTHING
        self.commits = self.kills = self.denied = 0
        self.waiting: list[asyncio.Future[None]] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.failure: BaseException | None = None
        self.finished = False  # nothing begins any more, so that a world leaves nothing pending behind
        self.children: dict[str, list[str]] = {}
        self.bus = self
        self.news: dict[str, list[Any]] = {}
        self.changes = Changes()
        self.balance: dict[str, Balance] = {}
        self.called_back: dict[str, str] = {}
        self.greedy = self.chance.random() < 0.5  # every call costs all that was set aside for it
        self.budget = self._budget()
        self.limits = book.standing_of(self.budget).limits
        self.changing = chances.random() < 0.4
        self.changed = 0
        self.before = NOTHING  # that limits which were set later do not undo
        self.free = free
        self.limited = not free
        self.limits_left = 0 if self.limited else chances.choice([1, 1, 2])
        self.stored: list[Stored] = []
        self.billed_free = self.late = NOTHING  # for calls with nothing set aside for them; and since a limit stands
        self.used_free = NOTHING  # of it, what the log knows
        self.begun_tools = 0
        self.asked: set[tuple[str, str]] = set()
        self.left: set[str] = set()  # by the process before, and not taken up at once
        self.unasked = 0  # calls that were stopped before the provider was asked
        self.people = random.Random(f"people {seed}") if several else None
        self.sent: dict[str, str] = {}  # the principals of jobs
        self.billed_to: dict[str, Amount] = {}
        self.used_by: dict[str, Amount] = {}
        self.calls_of_bob: list[tuple[int, int]] = []  # when, by the time that really passes, and how many
        self.passed = 0
        self.his = book.standing_of(self._budget_of_bob()) if several else None
        self.changing = self.changing and not several

    def _budget(self) -> Budget:
        chance = self.chance
        limits: dict[str, Any] = {"max_tokens_total": chance.randint(2_000, 20_000)}
        if chance.random() < 0.6:
            limits["max_cost_total"] = dollars(chance.randint(20_000, 200_000))
        if chance.random() < 0.5:
            limits["max_requests_daily"] = chance.randint(10, 120)
        if chance.random() < 0.3:
            limits["max_tool_calls_daily"] = chance.randint(5, 60)
        return Budget(**limits)

    def _budget_of_bob(self) -> Budget:
        assert self.people is not None
        limits: dict[str, Any] = {"max_requests_daily": self.people.randint(0, 20)}
        if self.people.random() < 0.5:
            limits["max_tokens_total"] = self.people.randint(0, 4_000)
        if self.people.random() < 0.5:
            limits["max_requests_per_minute"] = self.people.randint(1, 4)
        return Budget(principal_id="bob", **limits)

    # -- a log and its loop --

    async def turn(self) -> None:
        """Stand in line: chance says who is next."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(mine)
        await mine

    def commit(self, stream: str, command: Command, principal: str = "ann") -> tuple[tuple[Any, ...], list[Recorded]]:
        noun = noun_of(stream)
        states, version = self.states.get(stream, noun.initial), self.versions.get(stream, 0)
        earlier = states
        decision = decider.decide(
            noun, states, command, version=version, at=self.clock.now(), epoch=self.epoch, principal=principal
        )
        if not decision.events:
            return states, []
        self.commits += 1
        owed = decider.owed(noun, decision.states)
        owes = tuple(effect.id for effect in owed)
        context = Context(scope=SCOPE, principal=principal)
        head = Head(id=self.clock.new_id(), at=self.clock.now(), asked=command.type, context=context, owes=owes)
        events = []
        for part, event in enumerate(decision.events):
            self.position += 1
            events.append(Recorded(self.position, stream, version + part + 1, part, self.epoch, event, head))
        self.states[stream], self.versions[stream] = decision.states, version + len(events)
        self.newest[stream] = events[-1]
        self.stored.append(Stored(events[0].position, self.epoch, Batch(stream, version, head, decision.rows)))
        self.spends(earlier, decision.states, events)
        self.slips(stream, earlier, events)
        self.judge()
        for recorded in events:
            for what in self.balance.setdefault(stream, Balance(self.changes)).see(recorded):
                self.failure = Disobeyed(what)
            if isinstance(recorded.data, AllotmentDenied):
                self.denied += 1
                self.is_used_up(recorded.data)
        for recorded in events:
            for handler in [*self.news.get(recorded.type, ())]:
                handler(recorded)
            if isinstance(recorded.data, AllotmentReleased | BudgetSet | BudgetRemoved):
                self.treasury.hear(recorded)
        self.dispatch.owed(stream, owed, events)
        return decision.states, events

    def judge(self) -> None:
        """What was billed keeps to every limit, and so does what the ledger counts."""
        if not self.limited:
            return
        for limit, most in book.standing_of(self.budget).limits:
            billed, most = getattr(self.billed, limit.of), max(most, getattr(self.before, limit.of))
            most += getattr(self.late, limit.of)
            most += getattr(self.billed_free - self.used_free, limit.of)  # what nobody lived to hear of
            if billed > most:
                self.failure = Overspent(f"{limit.name}: {billed} billed of {most}")
            state = self.states[f"ledger-{SCOPE}"][0]
            settled, out = book.used_of(state, state.budgets[0], limit, 0)
            if (
                settled + out > most and not self.changed and not self.free
            ):  # else what was under way then may be told later
                self.failure = Overspent(f"{limit.name}: {settled} settled and {out} set aside of {most}")
        for limit, most in self.his.limits if self.his is not None else ():
            billed = getattr(self.billed_to.get("bob", NOTHING), limit.of)
            if limit.window == "minute":
                billed = sum(count for at, count in self.calls_of_bob if at > self.passed - 60_000_000)
            if billed > most:
                self.failure = Overspent(f"{limit.name} of bob: {billed} billed of {most}")

    def bill(self, stream: str, amount: Amount) -> None:
        """What the provider asks for, and of whom: of whoever sent the running job."""
        self.billed += amount
        whose = self.runs_for(self.states[stream])
        self.billed_to[whose] = self.billed_to.get(whose, NOTHING) + amount
        if whose == "bob" and amount.requests:
            self.calls_of_bob.append((self.passed, amount.requests))

    def runs_for(self, states: tuple[Any, ...]) -> str:
        running = states[0].running
        return self.sent.get(running.job_id, "ann") if running is not None else "ann"

    def spends(self, earlier: tuple[Any, ...], states: tuple[Any, ...], events: list[Recorded]) -> None:
        """Who spent what was set aside; and what the log knows of that nothing was set aside for."""
        if events[0].stream.startswith("session-") and states[1].purse is not None:
            before = earlier[1].purse.spent if earlier[1].purse is not None else NOTHING
            whose = self.runs_for(earlier if earlier[0].running is not None else states)
            self.used_by[whose] = self.used_by.get(whose, NOTHING) + (states[1].purse.spent - before)
        for recorded in events:
            match recorded.data:
                case ModelAnswered(call=call, usage=usage, cost=cost) | ModelFailed(call=call, usage=usage, cost=cost):
                    purse = earlier[1].purse
                    if purse is None or purse.held is None or purse.held.call != call:
                        tokens = 0 if usage is None else usage.input_tokens + usage.output_tokens
                        paid = 0 if cost is None else nanos(cost.amount)
                        asked = not (isinstance(recorded.data, ModelFailed) and recorded.data.failure == NOT_ASKED)
                        self.used_free += Amount(tokens, paid, 1) if asked else NOTHING
                        self.unasked += asked and (recorded.stream, call) not in self.asked
                case ToolStarted(attempt=1):
                    self.begun_tools += 1
                    if states[1].purse is None or not states[1].purse.counts:
                        self.used_free += Amount(tools=1)
                    if self.limited and not knows_ledger(states[1]):
                        self.late += Amount(tools=1)

    def slips(self, stream: str, earlier: tuple[Any, ...], events: list[Recorded]) -> None:
        """What a session that has not heard of a change yet begins with what it had before; the same events may go on
        to ask for more."""
        session_id = stream.removeprefix("session-")
        due = self.states[f"ledger-{SCOPE}"][0].due.get(session_id)
        if due is None:
            return
        held = None if earlier[1].purse is None else earlier[1].purse.source
        for recorded in events:
            match recorded.data:
                case AllotmentTaken(ask=ask):
                    held = ask
                case AllotmentWanted():
                    held = None
                case BudgetReserved(tokens=tokens, cost=cost) if held == due:
                    self.before += Amount(tokens, cost, 1, 0)
                case ToolStarted(attempt=1) if held == due:
                    self.before += Amount(tools=1)

    def used(self) -> tuple[Amount, Amount]:
        """What sessions have used, and what they are using."""
        used = using = NOTHING
        for stream, states in self.states.items():
            purse = states[1].purse if stream.startswith("session-") else None
            if purse is not None:
                used, using = used + purse.spent, using + (purse.at_most - purse.spent)
        return used + self.used_free, using

    def is_used_up(self, denial: AllotmentDenied) -> None:
        """Who is denied something is denied what sessions have really used, or are using."""
        breach = denial.breach
        assert breach.code != UNCOUNTED, "nobody waited so long"
        of = next(limit.of for limit in LIMITS if limit.name == breach.limit)
        used, using = (getattr(amount, of) for amount in self.used())
        if breach.limit == "max_requests_per_minute":
            return  # of several calls that are told together the newest says when they were made
        if breach.of == "principal":
            used = getattr(self.used_by.get(denial.principal_id, NOTHING), of)
        surely = using if of == "requests" else 0  # a call under way may cost less, but it is one
        accounts = self.states[f"ledger-{SCOPE}"][0].accounts
        # What an earlier process left was taken up later, and whoever asked before does not wait for it.
        surely += sum(getattr(account.held, of) for name, account in accounts.items() if name in self.left)
        if used + surely + breach.wanted <= breach.most:
            what = f"{used} of {breach.most} are used, and {using} set aside for calls under way"
            self.failure = Starved(f"{denial.session_id} is denied {breach.wanted} {of}: {what}")

    # -- what the treasury and the dispatch need of a kernel --

    async def ask(self, stream: str, command: Command, **envelope: Any) -> Reply:
        await self.turn()
        states, events = self.commit(stream, command, envelope.get("principal", "ann"))
        await self.turn()
        return Reply(states, events)

    who = Who(SCOPE, "user")

    async def peek(self, stream: str, **_: Any) -> tuple[Any, ...]:
        await self.turn()
        return self.states.get(stream, noun_of(stream).initial)

    @property
    def telling(self) -> Self:
        return self

    async def session(self, stream: str) -> Session:
        return Session(self.newest.get(stream))

    def may_touch(self, stream: str, states: tuple[Any, ...]) -> bool:
        return self.dispatch.is_at(stream) or not decider.owed(noun_of(stream), states)

    def on(self, kinds: tuple[str, ...], handler: Any) -> Hearing:
        """As its own bus."""
        return Hearing(self.news, kinds, handler)

    def wake(self, stream: str) -> None:
        owed = decider.owed(noun_of(stream), self.states[stream])
        if owed:
            self.dispatch.owed(stream, owed, [])

    @property
    def log(self) -> Self:
        """As its own log."""
        return self

    def read(self, stream: str, *, after: int = 0) -> list[Stored]:
        return [stored for stored in self.stored if stored.batch.stream == stream and stored.batch.last > after]

    def read_all(self, *, after: int, limit: int) -> list[Stored]:
        return [stored for stored in self.stored if stored.position > after][:limit]

    def later(self, work: Any) -> None:
        self.begin(work)

    def begin(self, work: Any) -> None:
        if self.finished:
            work.close()
            return
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and isinstance(task.exception(), Exception):
            self.failure = self.failure or task.exception()

    def tell(self, stream: str, command: Command, origin: Origin | None, otherwise: Any) -> None:
        self.begin(self._told(stream, command))

    async def _told(self, stream: str, command: Command) -> None:
        if isinstance(command, RecoverEffect) and stream in self.called_back:
            await self.ask(stream, ReleaseAllotment(ask=self.called_back[stream]))
        await self.ask(stream, command)

    # -- the outside --

    async def perform(self, stream: str, effect: Work) -> Command:
        if isinstance(effect, RequestAllotment):
            return await self.treasury.line.fetch(stream, effect)
        if isinstance(effect, CountUsage):
            return await self.treasury.counting.count(effect)
        if isinstance(effect, RecallAllotment):
            return await self.treasury.recalls.recall(effect)
        if isinstance(effect, CallModel):
            return await self.call(stream, effect)
        assert isinstance(effect, RunTool)
        await self.turn()
        self.bill(stream, Amount(tools=1) if effect.attempt == 1 else NOTHING)
        self.judge()
        for child in self.children.pop(stream, []):
            self.begin(self.start(child))
        await self.turn()
        return SettleTool(tool=effect.id, outcome="ok", output="x" * self.chance.randint(0, 200))

    async def call(self, stream: str, effect: CallModel) -> Command:
        """A call: billed when it is answered, whether or not anybody hears of it."""
        chance = self.chance
        await self.turn()
        await self.treasury.recalls.heeded(stream)
        if self.treasury.limited and not effect.paid:
            await self.treasury.counting.late(stream.removeprefix("session-"))
            self.begin(self.bring(stream))
        purse = self.states[stream][1].purse
        held = None if purse is None else purse.held
        most = held.amount.tokens - effect.params.max_tokens if held is not None else 0
        read = max(0, most) if self.greedy else chance.randint(0, max(0, most))
        most = most if held is not None else 200
        written = effect.params.max_tokens or 0
        written = written if self.greedy else chance.randint(0, written)
        paid = RATE.cost(read, written)
        usage, cost = Usage(input_tokens=read, output_tokens=written), Cost(amount=dollars(paid), table="world")
        fate = chance.choices(["answers", "uses tools", "is cut", "is counted and cut", "is refused"], [5, 4, 1, 1, 1])[
            0
        ]
        bill = Amount(requests=1) if fate == "is refused" else Amount(tokens=read + written, cost=paid, requests=1)
        self.bill(stream, bill)
        self.asked.add((stream, effect.id))
        self.billed_free += bill if held is None else NOTHING
        self.late += bill if self.limited and not effect.paid else NOTHING
        self.judge()
        await self.turn()
        again = chance.choice([0, None])
        if fate == "is refused":
            failure = Failure(code="overloaded", message="no")
            return FailModel(call=effect.id, attempt=effect.attempt, failure=failure, retry_in_ms=again)
        if fate == "is cut":
            failure = Failure(code="stream_cut", message="cut")
            return FailModel(call=effect.id, attempt=effect.attempt, failure=failure, retry_in_ms=again)
        if fate == "is counted and cut":
            failure = Failure(code="cancelled", message="cut")
            return FailModel(
                call=effect.id,
                attempt=effect.attempt,
                failure=failure,
                partial=(Text(text="x"),),
                usage=usage,
                cost=cost,
                retry_in_ms=again,
            )
        calls = chance.randint(1, 3) if fate == "uses tools" else 0
        parts: tuple[Any, ...] = tuple(ToolCall(id=f"c{n}", name="look", input={}) for n in range(calls))
        answer = ModelAnswer(
            parts=parts or (Text(text="Done."),), stop_reason="tool_use" if calls else "end_turn", usage=usage
        )
        checks = tuple(CallCheck(name="look", effect=chance.choice(["read", "idempotent"])) for _ in range(calls))
        return AnswerModel(call=effect.id, answer=answer, checks=checks, cost=cost)

    def gone(self, effect: CancelEffect, *, begun: bool) -> Command:
        if effect.tool:
            return SettleTool(tool=effect.target, outcome="error", output="stopped")
        failure = Failure(code="cancelled", message="stopped")
        return FailModel(call=effect.target, attempt=effect.attempt, failure=failure)

    def failed(self, effect: Any, error: BaseException) -> Command:
        if isinstance(effect, RequestAllotment):
            return not_asked(effect, "internal")
        if isinstance(effect, RecallAllotment):
            return not_back(effect)
        if isinstance(effect, CountUsage):
            return not_counted(effect)
        if isinstance(effect, CallModel):
            failure = Failure(code="cancelled", message=str(error))
            return FailModel(call=effect.id, attempt=effect.attempt, failure=failure)
        assert isinstance(effect, RunTool) and not isinstance(effect, ProbeTool)
        return SettleTool(tool=effect.id, outcome="error", output="failed")

    # -- a life --

    async def start(self, name: str) -> None:
        """A message to a session. Sub-sessions draw on the ledger of all."""
        spec = BudgetSpec(max_tokens=self.chance.randint(300, 4000)) if self.chance.random() < 0.3 else None
        definition = Definition(
            image_version=1,
            model=RATE.model,
            params=ModelParams(max_tokens=self.chance.choice([50, 100, 400])),
            max_steps=4,
            terms=self.terms(spec),
        )
        waking = Waking(agent_id="a", image_id="i", container_id="c", registered_at=1, definition=definition)
        text = Text(text="x" * self.chance.randint(1, 300))
        for n in range(1 if self.people is None else self.people.randint(1, 4)):
            job = f"job-{name}-{n}"
            self.sent[job] = "ann" if self.people is None else self.people.choice(["ann", "bob", "bob", "cid"])
            with suppress(Closed):
                message = Send(job_id=job, content=(text,), waking=waking)
                await self.ask(f"session-{name}", message, principal=self.sent[job])

    def terms(self, spec: BudgetSpec | None) -> Terms | None:
        if spec is None and not self.limited:
            return None
        return Terms(spec=spec, ledger=SCOPE if self.limited else None, rates=(RATE,), overhead=20)

    def spent(self) -> Amount:
        """What was billed, with what is set aside for calls under way, and the tools that are at it."""
        _, using = self.used()
        return self.billed + using + Amount(tools=self.begun_tools) - Amount(tools=self.billed.tools)

    async def limit(self) -> None:
        """A limit is set where none stood: whoever works hears of it."""
        await self.turn()
        if self.limited:
            return
        _, using = self.used()
        self.limited, self.before = True, self.spent()
        self.late = using + (self.billed_free - self.used_free)  # under way, or its end is on its way to the log
        self.limits_left -= 1
        self.commit(f"ledger-{SCOPE}", SetBudget(budget=self.budget, at=self.clock.now(), counts=True))
        for stream, states in list(self.states.items()):
            if stream.startswith("session-") and states[0].running is not None:
                self.begin(self.bring(stream))

    async def lift(self) -> None:
        """Nothing is limited any more. Whoever works goes on asking; who begins does not."""
        await self.turn()
        if not self.limited:
            return
        self.limited = False
        self.commit(f"ledger-{SCOPE}", RemoveBudget(at=self.clock.now()))

    async def bring(self, stream: str) -> None:
        """A session is held to what is limited now."""
        definition = self.states[stream][1].definition
        if self.limited and definition is not None and (definition.terms is None or definition.terms.ledger is None):
            with suppress(Closed):
                await self.ask(stream, ApplyPolicy(policy=(), scope=SCOPE, terms=self.terms(None)))

    async def taken_up(self, stream: str) -> None:
        """What an earlier process left goes on under the limits of now."""
        await self.bring(stream)
        await self.turn()
        self.wake(stream)

    async def change(self) -> None:
        """A limit is set, lower or higher than what it was. What was used already stays used."""
        await self.turn()
        if not self.limited:
            return
        fields = {
            limit.name: int(most * self.chance.choice([0, 0.5, 0.9, 1.5])) for limit, most in self.limits if most > 1
        }
        money = {name: dollars(most) for name, most in fields.items() if "cost" in name}
        budget = Budget(**{**fields, **money})
        if budget == self.budget:
            return
        used, using = self.used()
        self.budget, self.before = budget, self.spent() if self.free else used + using
        self.changed += 1
        self.commit(f"ledger-{SCOPE}", SetBudget(budget=self.budget, at=self.clock.now()))

    def made(self) -> Treasury:
        treasury = Treasury(self, self.clock, SCOPE)  # type: ignore[arg-type]
        treasury.counting = Reading(self, self.clock, SCOPE)  # type: ignore[arg-type]
        state: State = self.states[f"ledger-{SCOPE}"][0]
        treasury._in_force = State(budgets=state.budgets)
        return treasury

    def up(self) -> None:
        """A process begins: it knows the log, and nothing else."""
        self.dispatch = Dispatch(self, self.tell, clock=self.clock)
        self.news, self.left = {}, set()
        self.treasury = self.made()
        due = self.states[f"ledger-{SCOPE}"][0].due
        self.called_back = {f"session-{session_id}": ask for session_id, ask in due.items()}
        for stream, states in self.states.items():
            owed = decider.owed(noun_of(stream), states)
            if not owed:
                continue
            if self.free and stream.startswith("session-"):
                self.left.add(stream.removeprefix("session-"))
                self.begin(self.taken_up(stream))
            else:
                self.dispatch.owed(stream, owed, [])

    async def down(self) -> None:
        """It is killed: whatever was not committed never was."""
        self.kills += 1
        dispatch, tasks = self.dispatch, list(self.tasks)
        dispatch._closed = True
        for flights in dispatch._flights.values():
            tasks += [flight.task for flight in flights.values() if flight.task is not None]
        for task in tasks:
            task.cancel()
        self.waiting.clear()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.tasks.clear()
        self.waiting.clear()
        self.epoch += 1
        self.up()

    async def live(self) -> None:
        try:
            await self._live()
        finally:
            self.finished = True

    async def _live(self) -> None:
        chance = self.chance
        self.states[f"ledger-{SCOPE}"] = LEDGER.initial
        self.dispatch = Dispatch(self, self.tell, clock=self.clock)
        self.treasury = self.made()
        if self.limited:
            self.states[f"ledger-{SCOPE}"] = _with(self.states[f"ledger-{SCOPE}"], self.budget, self.clock.now())
        if self.his is not None:
            ledger = _with(self.states[f"ledger-{SCOPE}"], self.his.budget, self.clock.now())
            self.states[f"ledger-{SCOPE}"] = ledger
        parents = [f"p{n}" for n in range(PARENTS)]
        children = [f"{parent}.{n}" for parent in parents for n in range(CHILDREN)]
        for name in (*parents, *children):
            create = CreateSession(session_id=name, image_id="i", container_id="c", created_at=1)
            self.commit(f"session-{name}", create)
        for parent in parents:
            if chance.random() < 0.5:
                self.children[f"session-{parent}"] = [f"{parent}.{n}" for n in range(CHILDREN)]
            else:
                children_now = [f"{parent}.{n}" for n in range(CHILDREN)]
                for child in children_now:
                    self.begin(self.start(child))
            self.begin(self.start(parent))
        deadly = chance.choice([0.0, 0.002, 0.01])
        steps = idle = 0
        while True:
            for _ in range(4):
                await asyncio.sleep(0)
            if self.failure is not None:
                raise self.failure
            if not self.waiting:
                if not self.tasks and not self.dispatch.under_way:
                    if self.limited:
                        break
                    self.begin(self.limit())
                    continue
                idle += 1
                if not self._stirs() and idle > 20:  # who waits in line takes some rounds to wake
                    break
                continue
            idle = 0
            steps += 1
            assert steps < 100_000, "it never ends"
            if chance.random() < deadly and self.kills < 12:
                await self.down()
                continue
            if chance.random() < 0.01:
                name = chance.choice(parents + children)
                word: Command = Interrupt() if chance.random() < 0.8 else CloseSession()
                self.begin(self.ask(f"session-{name}", word))
            if self.limits_left and not self.limited and chance.random() < 0.01:
                self.begin(self.limit())
            if self.limits_left and self.limited and chance.random() < 0.01:
                self.begin(self.lift())
            if self.changing and chance.random() < 0.01:
                self.begin(self.change())
            if chance.random() < 0.02:
                moved = chance.choice([1.0, 30.0, -5.0])
                self.clock.move(s=moved)
                self.passed += max(0, int(moved * 1_000_000))  # a clock that is set back takes no time
            ready = self.waiting.pop(chance.randrange(len(self.waiting)))
            if not ready.done():
                ready.set_result(None)
        await self.dispatch.close()
        self.over()
        if self.failure is not None:
            raise self.failure

    def _stirs(self) -> bool:
        """Whether anything can still go on: tasks that wait for nothing but each other cannot."""
        return any(not task.done() for task in self.tasks)

    def over(self) -> None:
        """Every job has ended, and once all is given back the ledger has counted at least what was billed."""
        state = self.states[f"ledger-{SCOPE}"][0]
        for stream, states in ((s, v) for s, v in self.states.items() if s.startswith("session-")):
            session, agent = states[0], states[1]
            assert session.running is None, f"{stream} never ended"
            purse = agent.purse
            if purse is None:
                continue
            account: Account | None = state.accounts.get(stream.removeprefix("session-"))
            if account is not None:
                state = book.settled(state, stream.removeprefix("session-"), "ann", purse.spent, NOTHING, 0)
        sums = state.sums.get(book.SCOPE)
        counted = sums.total if sums is not None else NOTHING
        used_free = self.used_free - Amount(requests=self.unasked)
        known = self.billed - self.billed_free - Amount(tools=used_free.tools) + used_free
        if not counted.covers(known):
            raise Overspent(f"{counted} was counted and {known} billed")
        told = sum(state.counted.values(), NOTHING)
        is_told = told.covers(used_free) and self.used_free.covers(told)
        if self.free and (not is_told or state.counting or state.open):
            raise Overspent(f"{told} was counted of {self.used_free} that nothing was set aside for")
        for whose, billed in self.billed_to.items() if self.people is not None else ():
            his = state.sums.get(("principal", whose), book.NO_SUMS).total
            if not his.covers(billed) or not self.used_by[whose].covers(his):
                raise Overspent(f"{his} was counted for {whose}, {billed} billed and {self.used_by[whose]} used")
        assert sums is None or sums.out == NOTHING, f"{sums.out} is set aside for nobody"
        assert self.free or state.overrun == NOTHING, f"sessions spent {state.overrun} beyond what they were allotted"
        self.judge()
        for stream, _, what in self.changes.found():
            raise Disobeyed(f"{stream}: {what}")


def _with(states: tuple[Any, ...], budget: Budget, at: int) -> tuple[Any, ...]:
    decision = decider.decide(LEDGER, states, SetBudget(budget=budget, at=at), version=0, at=at, epoch=1)
    return decision.states


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
