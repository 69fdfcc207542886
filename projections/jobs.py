"""The jobs board: every accepted input of every session, how far it is, what it took. A pure fold over the log."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from ..events.agent import ModelAnswered, ModelCalled, ModelFailed, ToolStarted, TurnStarted
from ..events.content import Failure, Usage, add_usage, text_of
from ..events.message import Event, Recorded
from ..events.session import (
    JobCancelled,
    JobFailed,
    JobQueued,
    JobResumed,
    JobStarted,
    JobStopping,
    JobSucceeded,
    JobTimedOut,
    JobWaiting,
)
from .projection import session_of

JobState = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled", "timed_out"]

ACTIVE: frozenset[JobState] = frozenset(("queued", "running", "waiting"))
OVER: frozenset[JobState] = frozenset(("succeeded", "failed", "cancelled", "timed_out"))

TITLE_CHARS = 80


class Job(Struct, frozen=True, kw_only=True, rename="camel"):
    """One job as the board shows it.

    title: the head of its text. Times are milliseconds since 1970-01-01 UTC. reason: why it waits, is being stopped or
    was cancelled. model: asked last. turns: begun. attempts: model calls begun, retries included. tool_runs: tools
    begun, repeats included. usage: the sum over its model calls, failed attempts included; None when no provider
    counted.
    """

    id: str
    session_id: str
    image_id: str | None = None
    container_id: str | None = None
    scope: str = "default"
    state: JobState = "queued"
    title: str = ""
    priority: int = 0
    queued_at: int
    started_at: int | None = None
    ended_at: int | None = None
    turns: int = 0
    attempts: int = 0
    tool_runs: int = 0
    usage: Usage | None = None
    failure: Failure | None = None
    reason: str | None = None
    model: str | None = None

    @property
    def over(self) -> bool:
        return self.state in OVER


class Jobs:
    """The board. `apply` takes every event of the log, in order, each once, and never raises."""

    name = "jobs"
    version = 1

    __slots__ = ("_jobs", "_running")

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}  # in the order in which they were accepted
        self._running: dict[str, str] = {}  # stream -> the job that its turns work on

    def apply(self, recorded: Recorded) -> None:
        take = _TAKE.get(type(recorded.data))
        if take is not None:
            take(self, recorded.data, recorded)

    def get(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def query(
        self,
        *,
        state: JobState | Collection[JobState] | None = None,
        session_id: str | None = None,
        image_id: str | None = None,
        container_id: str | None = None,
        scope: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
    ) -> list[Job]:
        """The jobs that pass every filter given, the most recently accepted first; at most `limit`.

        state: one or several. since_ms, until_ms: accepted at or after, and before.
        """
        states = None if state is None else frozenset((state,) if isinstance(state, str) else state)
        found: list[Job] = []
        for job in self:
            if limit is not None and len(found) >= limit:
                break
            if (
                (states is None or job.state in states)
                and (session_id is None or job.session_id == session_id)
                and (image_id is None or job.image_id == image_id)
                and (container_id is None or job.container_id == container_id)
                and (scope is None or job.scope == scope)
                and (since_ms is None or job.queued_at >= since_ms)
                and (until_ms is None or job.queued_at < until_ms)
            ):
                found.append(job)
        return found

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state that has any."""
        counts: dict[JobState, int] = {}
        for job in self._jobs.values():
            counts[job.state] = counts.get(job.state, 0) + 1
        return counts

    def __iter__(self) -> Iterator[Job]:
        """The most recently accepted first."""
        return reversed(self._jobs.values())

    def __len__(self) -> int:
        return len(self._jobs)

    # -- the life of a job --

    def _on_queued(self, event: JobQueued, recorded: Recorded) -> None:
        self._add(event.job_id, recorded, " ".join(text_of(event.content).split()), event.priority)

    def _add(self, job_id: str, recorded: Recorded, title: str = "", priority: int = 0) -> Job:
        context = recorded.context
        job = self._jobs[job_id] = Job(
            id=job_id,
            session_id=session_of(recorded),
            image_id=context.image_id,
            container_id=context.container_id,
            scope=context.scope,
            title=title if len(title) <= TITLE_CHARS else title[: TITLE_CHARS - 1] + "…",
            priority=priority,
            queued_at=recorded.timestamp,
        )
        return job

    def _change(self, job_id: str, recorded: Recorded, **changes: Any) -> None:
        job = self._jobs.get(job_id) or self._add(job_id, recorded)  # its acceptance may have been erased
        self._jobs[job_id] = replace(job, **changes)

    def _on_started(self, event: JobStarted, recorded: Recorded) -> None:
        self._running[recorded.stream] = event.job_id
        self._change(event.job_id, recorded, state="running", started_at=recorded.timestamp)

    def _on_waiting(self, event: JobWaiting, recorded: Recorded) -> None:
        self._change(event.job_id, recorded, state="waiting", reason=event.reason)

    def _on_resumed(self, event: JobResumed, recorded: Recorded) -> None:
        self._change(event.job_id, recorded, state="running", reason=None)

    def _on_stopping(self, event: JobStopping, recorded: Recorded) -> None:
        self._change(event.job_id, recorded, state="running", reason=event.reason)

    def _end(self, job_id: str, recorded: Recorded, state: JobState, **changes: Any) -> None:
        if self._running.get(recorded.stream) == job_id:
            del self._running[recorded.stream]
        self._change(job_id, recorded, state=state, ended_at=recorded.timestamp, **changes)

    def _on_succeeded(self, event: JobSucceeded, recorded: Recorded) -> None:
        self._end(event.job_id, recorded, "succeeded", reason=None)

    def _on_job_failed(self, event: JobFailed, recorded: Recorded) -> None:
        self._end(event.job_id, recorded, "failed", failure=event.failure)

    def _on_cancelled(self, event: JobCancelled, recorded: Recorded) -> None:
        self._end(event.job_id, recorded, "cancelled", reason=event.reason)

    def _on_timed_out(self, event: JobTimedOut, recorded: Recorded) -> None:
        self._end(event.job_id, recorded, "timed_out")

    # -- what it took --

    def _working(self, recorded: Recorded) -> Job | None:
        job_id = self._running.get(recorded.stream)
        return None if job_id is None else self._jobs.get(job_id)

    def _on_turn(self, event: TurnStarted, recorded: Recorded) -> None:
        self._running[recorded.stream] = event.job_id
        job = self._jobs.get(event.job_id)
        self._change(event.job_id, recorded, turns=job.turns + 1 if job else 1)

    def _on_called(self, event: ModelCalled, recorded: Recorded) -> None:
        job = self._working(recorded)
        if job is not None:
            self._jobs[job.id] = replace(job, attempts=job.attempts + 1, model=event.model)

    def _on_used(self, event: ModelAnswered | ModelFailed, recorded: Recorded) -> None:
        job = self._working(recorded)
        if job is not None and event.usage is not None:
            self._jobs[job.id] = replace(job, usage=add_usage(job.usage, event.usage))

    def _on_tool(self, event: ToolStarted, recorded: Recorded) -> None:
        job = self._working(recorded)
        if job is not None:
            self._jobs[job.id] = replace(job, tool_runs=job.tool_runs + 1)


_TAKE: dict[type[Event], Callable[[Jobs, Any, Recorded], None]] = {
    JobQueued: Jobs._on_queued,
    JobStarted: Jobs._on_started,
    JobWaiting: Jobs._on_waiting,
    JobResumed: Jobs._on_resumed,
    JobStopping: Jobs._on_stopping,
    JobSucceeded: Jobs._on_succeeded,
    JobFailed: Jobs._on_job_failed,
    JobCancelled: Jobs._on_cancelled,
    JobTimedOut: Jobs._on_timed_out,
    TurnStarted: Jobs._on_turn,
    ModelCalled: Jobs._on_called,
    ModelAnswered: Jobs._on_used,
    ModelFailed: Jobs._on_used,
    ToolStarted: Jobs._on_tool,
}
