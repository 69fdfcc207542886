"""Histories to fold: a builder that writes what really happens in a session, and strategies for what might.

`History` writes batches as the deciders of a session do: one call here is one command there. `turns()` draws whole
conversations with it; `anything()` draws events in any order at all, for laws that hold whatever the log says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

from reenact.events import codec
from reenact.events.agent import (
    AgentConfigured,
    AgentRegistered,
    AgentUnregistered,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ToolAuthorised,
    ToolDoubted,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    ToolUnproved,
    TurnCompleted,
    TurnStarted,
)
from reenact.events.content import Failure, Image, Native, OutputPart, Text, Thinking, ToolCall, Usage
from reenact.events.message import Context, Erased, Event, Head, Recorded, Unknown
from reenact.events.session import (
    Definition,
    JobCancelled,
    JobFailed,
    JobQueued,
    JobResumed,
    JobStarted,
    JobStopping,
    JobSucceeded,
    JobTimedOut,
    JobWaiting,
    SessionClosed,
    SessionCreated,
)

START = 1_750_000_000_000_000  # microseconds
STEP = 1_000_000  # between two batches

SKIPPED = "Not run: the turn was stopped before this call began."
UNKNOWN = "It is not known whether this call took effect: the program stopped while it ran."

Say = str | OutputPart


class History:
    """One session's events in their envelopes, as they would lie in the log. Batches come a second apart."""

    def __init__(
        self, session_id: str = "sess_1", *, position: int = 0, at: int = START, wakes: bool = True, jobs: int = 0
    ) -> None:
        """jobs: how many there were before, in other sessions; a job's id is unique among all."""
        self.session_id = session_id
        self.context = Context(container_id="acme", image_id="img_1", session_id=session_id, agent_id="agent_1")
        self.events: list[Recorded] = []
        self.at = at
        self.batches = 0
        self._position = position
        self._jobs = jobs
        self._turns = self._calls = self._tools = self._agents = 0
        self.job: str | None = None
        self.queue: list[str] = []
        self.call: str | None = None
        self.attempt = 1
        self.steps = 0
        self.open: list[str] = []
        self.doubted: list[str] = []
        self.stopping: str | None = None
        self.stop_reason: str | None = None
        self._upto = 0
        if wakes:
            created = SessionCreated(
                session_id=session_id, image_id="img_1", container_id="acme", created_at=at // 1000, alias=None
            )
            self.batch("create_session", created)

    # -- reading --

    def __iter__(self) -> Iterator[Recorded]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    @property
    def version(self) -> int:
        return len(self.events)

    @property
    def data(self) -> list[Event]:
        return [recorded.data for recorded in self.events]

    # -- writing --

    def batch(self, asked: str, *events: Event) -> History:
        """Append these events as one batch."""
        self.batches += 1
        self.at += STEP
        head = Head(id=f"{self.batches:032x}", at=self.at, asked=asked, job=self.job, context=self.context)
        for part, event in enumerate(events):
            self._position += 1
            self.events.append(
                Recorded(
                    self._position,
                    f"session-{self.session_id}",
                    len(self.events) + 1,
                    part,
                    1,
                    event,
                    head,
                    codec.row_digest(codec.row(event)),
                )
            )
        return self

    def later(self, seconds: float) -> History:
        """Let time pass before the next batch."""
        self.at += int(seconds * 1_000_000)
        return self

    def send(self, *content: str | Any, overrides: Any = None) -> History:
        """Accept an input. It starts at once when nothing runs; the first one wakes the agent."""
        self._jobs += 1
        job_id = f"job_{self._jobs}"
        parts = tuple(Text(text=part) if isinstance(part, str) else part for part in content)
        events: list[Event] = [JobQueued(job_id=job_id, content=parts, overrides=overrides)]
        if self._agents == 0:
            events += self._wake()
        if self.job is None:
            events += self._start(job_id, self.version + len(events))
        else:
            self.queue.append(job_id)
        return self.batch("send", *events)

    def wake(self) -> History:
        return self.batch("wake_agent", *self._wake())

    def sleep(self) -> History:
        gone = AgentUnregistered(container_id="acme", agent_id=f"agent_{self._agents}", reason="stopped")
        return self.batch("stop_agent", gone)

    def _wake(self) -> list[Event]:
        self._agents += 1
        agent_id = f"agent_{self._agents}"
        return [
            AgentRegistered(container_id="acme", agent_id=agent_id, image_id="img_1", registered_at=self.at // 1000),
            AgentConfigured(definition=Definition(image_version=1, model="scripted:test")),
        ]

    def _start(self, job_id: str, version: int) -> list[Event]:
        """version: of the stream before these events."""
        self.job, self.stopping, self.stop_reason, self.steps = job_id, None, None, 0
        self._turns += 1
        return [
            JobStarted(job_id=job_id),
            TurnStarted(turn=self._turns, job_id=job_id),
            self._next_call(version + 1),
        ]

    def _next_call(self, upto: int) -> ModelCalled:
        self._calls += 1
        self.steps += 1
        self.call, self.attempt, self._upto = f"m{self._calls}", 1, upto
        return self._called()

    def _called(self, wait_ms: int = 0) -> ModelCalled:
        assert self.call is not None
        return ModelCalled(
            call=self.call,
            attempt=self.attempt,
            upto=self._upto,
            image_version=1,
            model="scripted:test",
            context="sha256:00",
            wait_ms=wait_ms,
        )

    def answers(
        self,
        *parts: Say,
        stop_reason: str | None = None,
        usage: Usage | None = None,
        problems: dict[int, str] | None = None,
    ) -> History:
        """The model answers. A call in it begins to run, unless `problems` names it (by its number among the calls)."""
        assert self.call is not None
        said = tuple(Text(text=part) if isinstance(part, str) else part for part in parts)
        calls = [(place, part) for place, part in enumerate(said) if isinstance(part, ToolCall)]
        reason = stop_reason or ("tool_use" if calls else "end_turn")
        self.stop_reason = reason
        call, self.call = self.call, None
        events: list[Event] = [
            ModelAnswered(call=call, parts=said, stop_reason=reason, usage=usage, model="test-1", duration_ms=900)
        ]
        for number, (place, part) in enumerate(calls):
            self._tools += 1
            tool = f"t{self._tools}"
            problem = (problems or {}).get(number)
            events.append(
                ToolRequested(
                    tool=tool,
                    call=call,
                    part=place,
                    name=part.name,
                    effect="unsafe",
                    timeout_s=60.0,
                    version="1",
                    problem=problem,
                )
            )
            if problem is not None:
                events.append(ToolSettled(tool=tool, outcome="error", output=problem, error_type="BadCall"))
            elif self.stopping or reason in ("refusal", "context_exceeded"):
                events.append(ToolSettled(tool=tool, outcome="skipped", output=SKIPPED))
            else:
                events += [ToolAuthorised(tool=tool), ToolStarted(tool=tool, attempt=1, arguments="sha256:00")]
                self.open.append(tool)
        if not self.open:
            events += self._goes_on(reason, bool(calls), self.version + len(events))
        return self.batch("answer_model", *events)

    def _goes_on(self, stop_reason: str, called: bool, version: int) -> list[Event]:
        if self.stopping:
            return self._ends("interrupted", version)
        if stop_reason == "context_exceeded":
            failure = Failure(code="context_exceeded", message="The conversation is longer than the model can read.")
            return self._ends("error", version, failure)
        if (called and stop_reason != "refusal") or stop_reason == "pause_turn":
            return [self._next_call(version)]
        return self._ends("completed", version)

    def _ends(self, reason: str, version: int, failure: Failure | None = None) -> list[Event]:
        assert self.job is not None
        job_id, stopping = self.job, self.stopping
        events: list[Event] = [
            TurnCompleted(
                turn=self._turns, reason=reason, stop_reason=self.stop_reason, failure=failure, steps=self.steps
            )
        ]
        if failure is not None:
            events.append(JobFailed(job_id=job_id, failure=failure))
        elif reason == "completed":
            events.append(JobSucceeded(job_id=job_id))
        elif stopping == "timeout":
            events.append(JobTimedOut(job_id=job_id))
        else:
            events.append(JobCancelled(job_id=job_id, reason=stopping or "interrupted"))
        self.job = self.stopping = self.call = None
        self.open, self.doubted = [], []
        if self.queue:
            events += self._start(self.queue.pop(0), version + len(events))
        return events

    def settles(
        self,
        tool: str | None = None,
        output: Any = "done",
        *,
        outcome: str = "ok",
        error_type: str | None = None,
        proof: str | None = None,
        asked: str = "settle_tool",
        duration_ms: int = 10,
    ) -> History:
        """A tool ends, by default the first open one."""
        tool = tool or self.open[0]
        self.open.remove(tool)
        events: list[Event] = [
            ToolSettled(
                tool=tool,
                outcome=outcome,
                output=output,
                error_type=error_type,
                proof=proof,
                duration_ms=duration_ms,
            )
        ]
        if tool in self.doubted:
            asked_of = self.doubted[0]
            self.doubted.remove(tool)
            if tool == asked_of and not self.stopping and self.job is not None:
                events.append(
                    JobWaiting(job_id=self.job, tool=self.doubted[0], reason="outcome unknown")
                    if self.doubted
                    else JobResumed(job_id=self.job)
                )
        if not self.open:
            if self.stopping:
                events += self._ends("interrupted", self.version + len(events))
            else:
                events.append(self._next_call(self.version + 1))
        return self.batch(asked, *events)

    def doubts(self, tool: str | None = None) -> History:
        """Its runner died, and nobody but a person can say what came of it."""
        tool = tool or self.open[0]
        assert self.job is not None
        events: list[Event] = [ToolDoubted(tool=tool, attempt=1), ToolUnproved(tool=tool)]
        if not self.doubted:
            events.append(JobWaiting(job_id=self.job, tool=tool, reason="outcome unknown"))
        self.doubted.append(tool)
        return self.batch("recover_effect", *events)

    def resolves(self, tool: str | None = None, output: str = "It happened.") -> History:
        """A person says so."""
        return self.settles(tool or self.doubted[0], output, proof="person", asked="resolve_tool", duration_ms=0)

    def fails(
        self,
        code: str = "server_error",
        *partial: Say,
        retry_in_ms: int | None = None,
        usage: Usage | None = None,
        message: str = "It failed.",
    ) -> History:
        """The model's attempt fails: for good, or to be tried again."""
        assert self.call is not None
        failure = Failure(code=code, message=message, retryable=retry_in_ms is not None)
        failed = ModelFailed(
            call=self.call,
            attempt=self.attempt,
            failure=failure,
            partial=tuple(Text(text=part) if isinstance(part, str) else part for part in partial),
            usage=usage,
            retry_in_ms=None if self.stopping else retry_in_ms,
        )
        if failed.retry_in_ms is not None:
            self.attempt += 1
            return self.batch("fail_model", failed, self._called(failed.retry_in_ms))
        self.call = None
        if self.stopping is not None or code == "cancelled":
            return self.batch("fail_model", failed, *self._ends("interrupted", self.version + 1))
        return self.batch("fail_model", failed, *self._ends("error", self.version + 1, failure))

    def dies(self) -> History:
        """The process goes while the model is called, and the next one calls it again."""
        self.attempt += 1
        return self.batch("recover_effect", self._called())

    def interrupt(self, reason: str = "user_interrupt", *, asked: str = "interrupt") -> History:
        """The running job is asked to end: at once where only a person was waited for, else when its effects have."""
        assert self.job is not None
        self.stopping = reason
        events: list[Event] = [JobStopping(job_id=self.job, reason=reason)]
        for tool in [tool for tool in self.open if tool in self.doubted]:
            self.open.remove(tool)
            events.append(ToolSettled(tool=tool, outcome="unknown", output=UNKNOWN))
        if self.doubted and not self.open:
            events += self._ends("interrupted", self.version + len(events))
        self.doubted = []
        return self.batch(asked, *events)

    def cancels(self, job_id: str, reason: str = "user_cancel") -> History:
        """A queued job is taken out."""
        self.queue.remove(job_id)
        return self.batch("cancel_job", JobCancelled(job_id=job_id, reason=reason))

    def closes(self) -> History:
        return self.batch("close_session", SessionClosed(reason="image_deleted"))


def call(name: str = "refund", *, id: str = "toolu_1", **input: Any) -> ToolCall:
    """A call as a model asks for it."""
    return ToolCall(id=id, name=name, input=input)


def usage(input_tokens: int = 10, output_tokens: int = 5) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)


def erase(events: Sequence[Recorded], *versions: int) -> list[Recorded]:
    """The same events after the keys of these versions were destroyed."""
    return [
        _with(recorded, Erased(name=recorded.type, key="k1")) if recorded.version in versions else recorded
        for recorded in events
    ]


def _with(recorded: Recorded, data: Event) -> Recorded:
    return Recorded(
        recorded.position, recorded.stream, recorded.version, recorded.part, recorded.epoch, data, recorded.head
    )


# -- what might happen --

texts = st.sampled_from(["", " ", "hello", "two\nlines", "é"])
call_ids = st.sampled_from(["", "a", "a", "b", "a-2", "call-1"])
calls = st.builds(lambda id, name: ToolCall(id=id, name=name, input={"n": 1}), call_ids, st.sampled_from(["f", "g"]))
output_parts = st.one_of(
    st.builds(lambda text: Text(text=text), texts),
    calls,
    st.just(Thinking(thinking="hm", provider="anthropic", signature="s")),
    st.just(Native(provider="openai", block={"type": "x"}, text="seen")),
)
answers = st.lists(output_parts, max_size=4).map(tuple)
outcomes = st.sampled_from(["ok", "error", "denied", "unknown", "skipped"])
outputs = st.sampled_from(["", "done", (Text(text="seen"), Image(media_type="image/png", data="AA=="))])


@st.composite
def turns(draw: st.DrawFn, *, moves_max: int = 25) -> History:
    """A conversation as it may really go: sends while busy, parallel calls, retries, interruptions, doubts, cuts."""
    history = History()
    for _ in range(draw(st.integers(1, moves_max))):
        moves = ["send"]
        if history.call:
            moves += ["answer", "answer", "answer", "retry", "fail"]
            if not history.stopping:  # else the next process makes no call
                moves.append("die")
        if history.open:
            moves += ["settle", "settle"]
        if set(history.open) - set(history.doubted) and not history.stopping:
            moves += ["doubt"]
        if history.job and not history.stopping:
            moves += ["interrupt"]
        if history.queue:
            moves += ["cancel"]
        match draw(st.sampled_from(moves)):
            case "send":
                history.send(draw(texts))
            case "answer":
                reasons = st.sampled_from([None, None, None, "pause_turn", "refusal", "max_tokens", "context_exceeded"])
                problems = draw(st.sampled_from([{}, {0: "no such tool"}]))
                counted = draw(st.sampled_from([None, usage()]))
                history.answers(*draw(answers), stop_reason=draw(reasons), problems=problems, usage=counted)
            case "retry":
                history.fails("overloaded", *draw(answers), retry_in_ms=100)
            case "fail":
                history.fails(draw(st.sampled_from(["stream_cut", "cancelled"])), *draw(answers))
            case "die":
                history.dies()
            case "settle":
                tool = draw(st.sampled_from(history.open))
                if tool in history.doubted:
                    history.resolves(tool, draw(st.sampled_from(["", "It happened."])))
                else:
                    history.settles(tool, draw(outputs), outcome=draw(st.sampled_from(["ok", "ok", "error"])))
            case "doubt":
                history.doubts(draw(st.sampled_from([tool for tool in history.open if tool not in history.doubted])))
            case "interrupt":
                history.interrupt(draw(st.sampled_from(["user_interrupt", "timeout"])))
            case "cancel":
                history.cancels(draw(st.sampled_from(history.queue)))
    return history


_jobs = st.sampled_from(["job_1", "job_2"])
_names = st.sampled_from(["t1", "t2", "t3"])
_models = st.sampled_from(["m1", "m2"])


def _any_event() -> st.SearchStrategy[Event]:
    """One event of any kind, its ids from small pools so that they meet by chance, and clash."""
    lost = st.sampled_from(["job_queued", "job_started", "model_answered", "model_failed", "tool_settled", "new_thing"])
    failure = Failure(code="stream_cut", message="cut")
    return st.one_of(
        st.builds(lambda job, text: JobQueued(job_id=job, content=(Text(text=text),)), _jobs, texts),
        st.builds(lambda job: JobStarted(job_id=job), _jobs),
        st.builds(lambda job: JobCancelled(job_id=job, reason="r"), _jobs),
        st.builds(lambda job: JobSucceeded(job_id=job), _jobs),
        st.builds(lambda job: JobFailed(job_id=job, failure=failure), _jobs),
        st.builds(lambda job: JobStopping(job_id=job, reason="r"), _jobs),
        st.builds(lambda job: JobWaiting(job_id=job, tool="t1", reason="r"), _jobs),
        st.builds(lambda job: JobResumed(job_id=job), _jobs),
        st.builds(lambda job: TurnStarted(turn=1, job_id=job), _jobs),
        st.builds(lambda reason: TurnCompleted(turn=1, reason=reason), st.sampled_from(["completed", "interrupted"])),
        st.builds(
            lambda call, upto: ModelCalled(
                call=call, attempt=1, upto=upto, image_version=1, model="x", context="sha256:00"
            ),
            _models,
            st.integers(0, 40),
        ),
        st.builds(
            lambda call, parts: ModelAnswered(call=call, parts=parts, stop_reason="end_turn", usage=None, model="x"),
            _models,
            answers,
        ),
        st.builds(
            lambda call, parts, retry: ModelFailed(
                call=call, attempt=1, failure=failure, partial=parts, retry_in_ms=retry
            ),
            _models,
            answers,
            st.sampled_from([None, 100]),
        ),
        st.builds(
            lambda tool, call, part: ToolRequested(
                tool=tool, call=call, part=part, name="f", effect="unsafe", timeout_s=1.0, version="1"
            ),
            _names,
            _models,
            st.integers(0, 3),
        ),
        st.builds(lambda tool: ToolStarted(tool=tool, attempt=1, arguments=""), _names),
        st.builds(
            lambda tool, outcome, output: ToolSettled(tool=tool, outcome=outcome, output=output),
            _names,
            outcomes,
            outputs,
        ),
        st.builds(lambda tool: ToolDoubted(tool=tool, attempt=1), _names),
        st.builds(lambda name: Erased(name=name, key="k1"), lost),
        st.builds(lambda name: Unknown(name=name, version=9, raw=b"\x80"), lost),
    )


_events = _any_event()


@st.composite
def anything(draw: st.DrawFn, *, events_max: int = 40) -> History:
    """Events in any order and number, sense or no sense, in batches of any length."""
    history = History(wakes=False)
    for batch in draw(st.lists(st.lists(_events, min_size=1, max_size=6), max_size=events_max // 3)):
        history.batch("anything", *batch)
    return history


@st.composite
def erased(draw: st.DrawFn) -> History:
    """A conversation of which some events were erased afterwards."""
    history = draw(turns())
    versions = draw(st.sets(st.integers(1, max(1, history.version)), max_size=8))
    history.events = erase(history.events, *versions)
    return history


def histories() -> st.SearchStrategy[History]:
    """Any history that a projection may be given."""
    return st.one_of(turns(), anything(), erased())
