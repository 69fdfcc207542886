"""A conversation under every command, in any order, sense or no sense, held against a model of it.

The model is `talk.Talk`. After each step the two must agree on what runs, waits and is owed, and the laws that hold
for any conversation must hold for this one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from reenact.actors import decider
from reenact.actors.cell import Cell, fold
from reenact.actors.conversation import CONVERSATION
from reenact.actors.replay import replay
from reenact.events import codec
from reenact.events.agent import (
    FailModel,
    Interrupt,
    ProveTool,
    RecoverEffect,
    ResolveTool,
    Selection,
    SelectModel,
    StartTool,
    StopAgent,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    WakeAgent,
)
from reenact.events.content import Failure
from reenact.events.errors import BadInput, ReenactError
from reenact.events.log import MemoryLog, MemoryStore, Transaction
from reenact.events.message import Asked, Command, Recorded
from reenact.events.model import ModelParams
from reenact.events.policy import Policy
from reenact.events.session import (
    CancelJob,
    CloseSession,
    CreateSession,
    Definition,
    ExpireJob,
    JobCancelled,
    JobFailed,
    JobQueued,
    JobResumed,
    JobStarted,
    JobSucceeded,
    JobTimedOut,
    JobWaiting,
    Overrides,
)
from reenact.events.tool import CallCheck
from tests.actors.talk import Talk
from tests.actors.words import asks, fails, says, send, settles, waking

OVERLOADED = Failure(code="overloaded", message="Busy.")
HOW = {JobSucceeded: "succeeded", JobFailed: "failed", JobCancelled: "cancelled", JobTimedOut: "timed_out"}
DEFINITIONS = [Definition(image_version=n, model=f"scripted:{n}", max_steps=n) for n in (1, 2, 5)]
OTHERWISE = Overrides(model="scripted:other", params=ModelParams(max_tokens=9))
WITHIN = Overrides(within=(Policy(name="of the sender", deny=("nobody",)),), origin="alice")
OF_AGENT = Overrides(origin="alice")
OVERRIDES = [None, None, OTHERWISE, WITHIN, OF_AGENT, replace(OTHERWISE, within=WITHIN.within)]
EFFECTS = ("read", "idempotent", "probeable", "unsafe")
SAID = ["ok", "ok", "ok", "error", "error", "retry", "retry", "shrug"]

reasons = st.sampled_from(["user_interrupt", "timeout", "cancelled", ""])
near = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])
checks = st.one_of(
    st.just([]),
    st.lists(st.tuples(st.sampled_from(EFFECTS), st.sampled_from([False, False, False, True])), min_size=1, max_size=3),
)
stop_reasons = st.sampled_from(
    ["end_turn", "end_turn", "tool_use", "max_tokens", "pause_turn", "refusal", "context_exceeded", "new_reason"]
)


class Conversation(RuleBasedStateMachine):
    """The stream lives in a cell on a log in memory, so what is tested is what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.log = MemoryLog(self.store)
        self.cell = Cell("session-sess_1")
        self.talk = Talk()
        self.told: list[Recorded] = []
        self.at = 1_000_000
        self.asked = self.jobs = self.agents = 0
        self.seen: Counter[str] = Counter()

    # -- one command, on both sides --

    def ask(self, command: Command, expect: Any, *args: Any) -> None:
        """expect(*args): what the model does; True when it changed, or the error it refuses with."""
        try:
            wanted: bool | type[Exception] = expect(*args)
        except ReenactError as error:
            wanted = type(error)
        got = self.put(command)
        assert got == wanted, f"{command}: the model says {wanted}, the conversation {got}"
        if wanted is True and not isinstance(command, Interrupt):  # which may stop the next turn the second time
            assert self.put(command) in (False, BadInput), (
                f"{command.type} asked twice changed something the second time"
            )

    def put(self, command: Command) -> bool | type[Exception]:
        """Have the cell decide and the log store it. True when something happened, the error when it was refused."""
        self.asked += 1
        asked = Asked(id=f"{self.asked:032x}", at=self.at, command=command)
        states, version = self.cell.states, self.cell.version
        try:
            prepared = self.cell.prepare(asked, self.log)
        except ReenactError as error:
            assert (self.cell.states, self.cell.version) == (states, version), "what is refused changes nothing"
            return type(error)
        if prepared is None:
            return False
        [[stored]] = self.log.commit([Transaction((prepared.batch,))])  # type: ignore[misc]
        events = self.cell.accept(prepared, stored)
        self.told += events
        self.recalls(command, states, version, stored)
        for recorded, again in zip(events, codec.unpack(stored), strict=True):
            assert recorded == again, "what is told is what is stored"
        return True

    def recalls(self, command: Command, states: Any, version: int, stored: Any) -> None:
        batch = stored.batch
        events = [recorded.data for recorded in codec.unpack(stored)]
        recalled = decider.recall(CONVERSATION, batch.head.asked, events)
        assert recalled is not None, f"nobody recalls {command} from {events}"
        again = decider.decide(CONVERSATION, states, recalled, version=version, at=batch.head.at, epoch=stored.epoch)
        assert again.rows == batch.rows, f"{recalled} is not decided as {command} was"

    # -- the session's commands --

    @initialize(there=st.sampled_from([True, True, True, True, False]), busy=st.booleans())
    def begin(self, there: bool, busy: bool) -> None:
        if there:
            self.create("sess_1", "img_1")
        if there and busy:
            self.sends(False, 0, True, True, DEFINITIONS[2], None, 0)
            self.answers(0, "tool_use", [(effect, False) for effect in EFFECTS], 1)

    @rule(session=st.sampled_from(["sess_1", "sess_1", "sess_2"]), image=st.sampled_from(["img_1", "img_1", "img_2"]))
    def create(self, session: str, image: str) -> None:
        command = CreateSession(session_id=session, image_id=image, container_id="acme", created_at=1)
        self.ask(command, self.talk.create, session, image)

    @rule(
        again=st.sampled_from([False, False, False, True]),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        timed=st.booleans(),
        wakes=st.sampled_from([True, True, True, False]),
        definition=st.sampled_from(DEFINITIONS),
        overrides=st.sampled_from(OVERRIDES),
        which=st.integers(0, 5),
    )
    def sends(
        self,
        again: bool,
        priority: int,
        timed: bool,
        wakes: bool,
        definition: Definition,
        overrides: Any,
        which: int,
    ) -> None:
        live = self.talk.live
        if again and live:
            job = live[which % len(live)]
        else:
            self.jobs += 1
            job = f"job_{self.jobs}"
        agent = self.new_agent() if wakes else None
        command = send(
            job,
            waking=waking(agent, definition) if agent else None,
            priority=priority,
            timeout_ms=500 if timed else None,
            overrides=overrides,
        )
        deadline = self.at + 500_000 if timed else None
        self.ask(command, self.talk.send, job, priority, deadline, agent, definition)

    @rule(which=st.integers(0, 8), reason=reasons)
    def cancels(self, which: int, reason: str) -> None:
        job = self.some_job(which)
        if self.talk.running and self.talk.running[0] == job and reason == "timeout":
            reason = "too slow"  # the word of the deadline
        self.ask(CancelJob(job_id=job, reason=reason), self.talk.cancel, job)

    @rule(which=st.integers(0, 8))
    def expires(self, which: int) -> None:
        job = self.some_job(which)
        self.ask(ExpireJob(job_id=job), self.talk.cancel, job, "timed_out")

    @rule(rare=st.integers(0, 19))
    def closes(self, rare: int) -> None:
        if rare == 0:
            self.ask(CloseSession(), self.talk.close)

    # -- the agent's commands --

    @rule(definition=st.sampled_from(DEFINITIONS))
    def wakes(self, definition: Definition) -> None:
        agent = self.new_agent()
        self.ask(WakeAgent(waking=waking(agent, definition)), self.talk.wake, agent, definition)

    @rule(rare=st.integers(0, 2))
    def sleeps(self, rare: int) -> None:
        if rare == 0:
            self.ask(StopAgent(), self.talk.stop_agent)

    @rule(rare=st.integers(0, 2))
    def interrupts(self, rare: int) -> None:
        if rare == 0:
            self.ask(Interrupt(), self.talk.interrupt)

    @rule(off=near, stop_reason=stop_reasons, calls=checks, short=st.integers(0, 9))
    def answers(self, off: int, stop_reason: str, calls: list[tuple[str, bool]], short: int) -> None:
        call = self.some_call(off)
        if not calls:
            self.ask(says(call, stop_reason=stop_reason), self.talk.answer, call, stop_reason, [])
            return
        named = [
            CallCheck(name=effect, effect=effect, arguments="sha256:a", problem="It is bad." if bad else None)  # type: ignore[arg-type]
            for effect, bad in calls
        ]
        command = asks(call, *named, stop_reason=stop_reason)
        if short == 0:
            unchecked = command.__class__(call=call, answer=command.answer, checks=command.checks[1:])
            is_due = self.talk.call is not None and self.talk.call[0] == call
            assert self.put(unchecked) == (BadInput if is_due else False)
        self.ask(command, self.talk.answer, call, stop_reason, calls)

    @rule(
        off=near,
        late=st.sampled_from([0, 0, 0, -1, 1]),
        code=st.sampled_from(["overloaded", "cancelled"]),
        retry_in_ms=st.sampled_from([None, None, 0, 250]),
        text=st.sampled_from(["", "so f"]),
    )
    def model_fails(self, off: int, late: int, code: str, retry_in_ms: int | None, text: str) -> None:
        call, attempt = self.some_call(off), late + (self.talk.call[1] if self.talk.call else 1)
        command = fails(call, code, retry_in_ms, text, attempt)
        if attempt == 0 and self.talk.call is not None:
            return  # means the one that is owed, whichever it is
        self.ask(command, self.talk.fail, call, attempt, code, retry_in_ms is not None)

    @rule(
        off=near,
        late=st.sampled_from([0, 0, 0, -1, 1]),
        model=st.sampled_from(["scripted:1", "scripted:9"]),
        asked=st.booleans(),
    )
    def another_model_is_selected(self, off: int, late: int, model: str, asked: bool) -> None:
        """After the one that was asked had failed, or before anybody was asked."""
        call, attempt = self.some_call(off), late + (self.talk.call[1] if self.talk.call else 1)
        select = Selection(model=model, reason="fallback", because="overloaded")
        if asked and attempt:
            command = FailModel(call=call, attempt=attempt, failure=OVERLOADED, select=select)
            self.ask(command, self.talk.fail, call, attempt, "overloaded", True)
        elif not asked:
            self.ask(
                SelectModel(call=call, attempt=attempt, select=select),
                self.talk.fail,
                call,
                attempt,
                "overloaded",
                True,
            )

    @rule(which=st.integers(0, 8), outcome=st.sampled_from(["ok", "ok", "error", "unknown"]))
    def tool_ends(self, which: int, outcome: str) -> None:
        tool = self.some_tool(which)
        self.ask(settles(tool, outcome), self.talk.settle, tool, outcome)

    @rule(which=st.integers(0, 8), off=st.sampled_from([0, 0, 0, -1, 1]))
    def recovers(self, which: int, off: int) -> None:
        owed = [self.talk.call[0]] if self.talk.call else list(self.talk.open)
        effect = owed[which % len(owed)] if owed and which < 7 else f"m{which}"
        attempt = off + (self.talk.call[1] if self.talk.call else self.talk.open.get(effect, [0, 0, 1])[2])
        self.ask(RecoverEffect(effect=effect, attempt=attempt), self.talk.recover, effect, attempt)

    @rule(which=st.integers(0, 8), happened=st.sampled_from([True, False, None]))
    def proves(self, which: int, happened: bool | None) -> None:
        tool = self.some_tool(which, "doubted")
        self.ask(ProveTool(tool=tool, happened=happened, output="seen"), self.talk.prove, tool, happened)

    @rule(which=st.integers(0, 8), off=st.sampled_from([0, 0, 0, -1, 1]))
    def is_looked_at(self, which: int, off: int) -> None:
        tool = self.some_tool(which, "authorised")
        effect, _, attempt = self.talk.open.get(tool, ["read", "", 1])
        look = StartTool(tool=tool, attempt=attempt + off, at=self.at, effect=effect)
        self.ask(look, self.talk.start, tool, attempt + off)

    @rule(which=st.integers(0, 8), outcome=st.sampled_from(SAID))
    def person_says(self, which: int, outcome: str) -> None:
        tool = self.some_tool(which, "unproved")
        self.ask(ResolveTool(tool=tool, outcome=outcome, output="I saw it."), self.talk.resolve, tool, outcome)

    @rule(tool=st.sampled_from(["", "t", "x1", "t0", "t-1", "t99999", "t²", "t" + "9" * 5000, "m1", "1"]))
    def person_says_nonsense(self, tool: str) -> None:
        self.ask(ResolveTool(tool=tool, outcome="ok"), self.talk.resolve, tool, "ok")

    # -- the usual, so that conversations get somewhere between the nonsense --

    @rule(data=st.data())
    def goes_on(self, data: st.DataObject) -> None:
        """Whatever is pending comes to some end, and when nothing is, somebody says something."""
        talk = self.talk
        tools = list(talk.open)
        if talk.call is not None:
            if data.draw(st.integers(0, 4)) == 0:
                code, retry_in_ms = data.draw(st.sampled_from([("overloaded", 100), ("auth", None)]))
                self.model_fails(0, 0, code, retry_in_ms, "so f")
            else:
                self.answers(0, data.draw(st.sampled_from(["end_turn", "tool_use"])), data.draw(checks), 1)
        elif tools:
            which = data.draw(st.integers(0, len(tools) - 1))
            status = talk.open[tools[which]][1]
            if status == "doubted":
                self.ask(
                    prove := ProveTool(tool=tools[which], happened=data.draw(st.sampled_from([True, False, None]))),
                    talk.prove,
                    tools[which],
                    prove.happened,
                )
            elif status == "unproved":
                said = data.draw(st.sampled_from(["ok", "error", "retry"]))
                self.ask(ResolveTool(tool=tools[which], outcome=said), talk.resolve, tools[which], said)
            elif status == "authorised":
                self.is_looked_at(which, 0)
            elif data.draw(st.booleans()):
                self.recovers(which, 0)
            else:
                outcome = data.draw(st.sampled_from(["ok", "error", "unknown"]))
                self.ask(settles(tools[which], outcome), talk.settle, tools[which], outcome)
        else:
            self.sends(False, 0, False, True, DEFINITIONS[2], None, 0)

    goes_on_2 = goes_on_3 = goes_on_4 = goes_on_5 = goes_on

    # -- time, and the end of processes --

    @rule(seconds=st.sampled_from([1, 3600, -3600]))
    def time_passes(self, seconds: int) -> None:
        self.at += seconds * 1_000_000

    @rule()
    def owner_dies(self) -> None:
        """The next owner reads the stream, and finds the same states and the same debts."""
        before = self.cell.states, self.cell.owed, self.cell.version, self.cell.chain
        self.log = MemoryLog(self.store)
        self.cell = Cell("session-sess_1")
        self.cell.load(self.log)
        assert (self.cell.states, self.cell.owed, self.cell.version, self.cell.chain) == before

    # -- after each step --

    @invariant()
    def the_two_agree(self) -> None:
        session, agent, _ = self.cell.states
        talk = self.talk
        assert session.session_id == talk.session and session.closed == talk.closed
        assert agent.agent_id == talk.agent and session.awake == (talk.agent is not None)
        assert [job.job_id for job in session.queue] == [job for job, _, _ in talk.queue]
        running = talk.running[0] if talk.running else None
        assert (session.running.job_id if session.running else None) == running == agent.job_id
        assert (session.stopping is not None) == (agent.stopping is not None) == bool(talk.stopping)
        assert ([agent.call.id, agent.call.attempt] if agent.call else None) == talk.call
        assert {tool.id: [tool.effect, tool.status, tool.attempt] for tool in agent.open} == talk.open
        assert (agent.calls, agent.tools) == (talk.calls, talk.tools)
        assert [effect.id for effect in self.cell.owed] == talk.owes
        if session.running and not talk.stopping:
            assert sorted(session.doubts) == sorted(talk.waits)

    @invariant()
    def what_is_owed_has_an_id_of_its_own(self) -> None:
        ids = [effect.id for effect in self.cell.owed]
        assert len(ids) == len(set(ids))

    @invariant()
    def what_is_over_owes_nothing(self) -> None:
        session, _, _ = self.cell.states
        if session.running is None and not session.queue:
            assert self.cell.owed == ()

    @invariant()
    def a_job_starts_once_and_ends_once_and_one_runs_at_a_time(self) -> None:
        started: set[str] = set()
        running, ended = None, {}
        queued: Counter[str] = Counter()
        waiting = False
        asked_of: list[str] = []
        for recorded in self.told:
            match recorded.data:
                case JobQueued() as event:
                    queued[event.job_id] += 1
                case JobStarted() as event:
                    assert running is None and event.job_id not in started and queued[event.job_id] == 1
                    running = event.job_id
                    started.add(running)
                case JobSucceeded() | JobFailed() | JobCancelled() | JobTimedOut() as event:
                    assert event.job_id not in ended and queued[event.job_id] == 1
                    ended[event.job_id] = HOW[type(event)]
                    if event.job_id == running:
                        running, waiting = None, False
                case JobWaiting() as event:
                    assert event.job_id == running and event.tool not in asked_of[-1:]
                    waiting = True
                    asked_of.append(event.tool)
                case JobResumed() as event:
                    assert event.job_id == running and waiting
                    waiting = False
                    asked_of.clear()
        assert ended == self.talk.ended
        assert waiting == bool(running and not self.talk.stopping and self.talk.waits) or self.talk.stopping

    @invariant()
    def a_call_is_settled_once_and_an_unsafe_one_starts_again_only_when_a_person_says_so(self) -> None:
        effects: dict[str, str] = {}
        started, settled = Counter[str](), Counter[str]()
        for recorded in self.told:
            match recorded.data:
                case ToolRequested() as event:
                    assert event.tool not in effects
                    effects[event.tool] = event.effect
                case ToolStarted() as event:
                    assert not settled[event.tool]
                    started[event.tool] += 1
                    assert event.attempt == started[event.tool]
                case ToolSettled() as event:
                    settled[event.tool] += 1
        for tool, effect in effects.items():
            assert settled[tool] == (0 if tool in self.talk.open else 1)
            if effect == "unsafe":
                assert started[tool] <= 1 + self.talk.retries.get(tool, 0)

    def teardown(self) -> None:
        stored = self.log.read("session-sess_1")
        verdict = replay("session-sess_1", stored)
        assert verdict.identical, verdict.summary
        events = [recorded for batch in stored for recorded in codec.unpack(batch)]
        assert events == self.told
        assert fold(CONVERSATION, events) == self.cell.states == (verdict.states or CONVERSATION.initial)
        for recorded in events:
            assert codec.decode(recorded.type, recorded.schema, codec.encode(recorded.data)) == recorded.data

    # -- choosing --

    def new_agent(self) -> str:
        self.agents += 1
        return f"agent_{self.agents}"

    def some_job(self, which: int) -> str:
        """Mostly one that lives, else one that is over or never was."""
        live = self.talk.live
        return live[which % len(live)] if live and which < 7 else f"job_{which - 6}"

    def some_call(self, off: int) -> str:
        """Mostly the one that is owed, else an older one or one that is not asked yet."""
        return f"m{self.talk.calls + off}"

    def some_tool(self, which: int, status: str = "started") -> str:
        """Mostly an open one, of this status if there is one."""
        mine = [tool for tool, (_, is_, _) in self.talk.open.items() if is_ == status] or list(self.talk.open)
        return mine[which % len(mine)] if mine and which < 7 else f"t{which - 5}"


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=max(200, settings.default.max_examples), stateful_step_count=60)
