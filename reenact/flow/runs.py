"""The runs of jobs, by session and by job: who hears of what happens, and whom a job asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..events.errors import ReenactError
from ..events.message import BusEvent, Recorded
from ..events.model import Credentials
from ..events.session import JobStarted
from ..people.halt import Halt
from ..run import READER, STATUS, Run


class AllRuns(dict[str, "Runs"]):
    """Of every session that somebody waits for, by its id."""

    __slots__ = ()

    def of(self, session_id: str) -> Runs:
        """Those of one session, to add to."""
        runs = self.get(session_id)
        if runs is None:
            runs = self[session_id] = Runs()
        return runs

    def let_go(self, run: Run) -> None:
        """A run is over."""
        runs = self.get(run.session_id)
        if runs is not None and runs.remove(run):
            del self[run.session_id]

    def handler_of(self, session_id: str, job_id: str) -> Any:
        """What decides the approvals of a job, as whoever sent it said; None where nobody did."""
        runs = self.get(session_id)
        return None if runs is None else runs.handler_of(job_id)

    def credentials(self, session_id: str, provider: str) -> tuple[Credentials, ...]:
        """Those that came with the run of the job that runs in a session; none, as after a restart: ()."""
        runs = self.get(session_id)
        return () if runs is None else runs.credentials(provider)

    def fail(self, error: ReenactError) -> None:
        """The log takes no more: whoever waits is told. What is owed stays owed, for the next owner."""
        for runs in list(self.values()):
            runs.fail(error)


class Runs:
    """The runs of one session, by job. Each hears of its own job only, however many are queued."""

    __slots__ = ("_by_job", "_halt", "_running")

    def __init__(self) -> None:
        self._by_job: dict[str, list[Run]] = {}
        self._running: str | None = None
        self._halt: Halt | None = None

    def add(self, run: Run) -> None:
        """From here on it hears of its job."""
        self._by_job.setdefault(run.job_id, []).append(run)

    def credentials(self, provider: str) -> tuple[Credentials, ...]:
        """Those that came with the job that runs."""
        for run in self._by_job.get(self._running or "", ()):
            if provider in run.credentials:
                return run.credentials[provider]
        return ()

    def remove(self, run: Run) -> bool:
        """It hears no more. True when nobody is left."""
        runs = self._by_job.get(run.job_id, [])
        if run in runs:
            runs.remove(run)
        if not runs:
            self._by_job.pop(run.job_id, None)
        return not self._by_job

    def handler_of(self, job_id: str) -> Any:
        """What decides the approvals of a job, None where none of its runs says."""
        return next((run.handler for run in self._by_job.get(job_id, ()) if run.handler is not None), None)

    def join(self, run: Run, past: Sequence[Recorded]) -> None:
        """Add a run to a job that was accepted before, and tell it what was."""
        before = Runs()
        before.add(run)
        self.add(run)
        for recorded in past:
            before.tell(recorded)
        if self._running is None:
            self._running = before._running

    def tell(self, recorded: Recorded) -> None:
        """An event of the session: to the runs of the job it is about."""
        data = recorded.data
        kind = type(data)
        job = getattr(data, "job_id", None)
        if kind is JobStarted:
            self._running = job
        elif job is None:
            job = self._running or recorded.head.job
        elif kind in STATUS and job == self._running:
            self._running = None
        for run in tuple(self._by_job.get(job or "", ())):
            run.see(recorded)

    def read(self, job_id: str) -> bool:
        """Whether whoever reads a job's events answers its questions."""
        return any(run.handler is READER for run in self._by_job.get(job_id, ()))

    def stand(self, halt: Halt | None, job_id: str | None) -> None:
        """How the session stands after something happened to a job, when all runs were told: waiting or going on."""
        if halt is None and self._halt is None:
            return
        jobs = [job_id or ""] if halt == self._halt else list(self._by_job)
        self._halt = halt
        for job in jobs:
            for run in tuple(self._by_job.get(job, ())):
                run.halt(halt)

    def signal(self, event: BusEvent) -> None:
        """Something seen live: to the runs of the job that runs."""
        for run in self._by_job.get(self._running or "", ()):
            run.see(event)

    def fail(self, error: ReenactError) -> None:
        """Nobody will bring the end of any of them."""
        for runs in list(self._by_job.values()):
            for run in list(runs):
                run.fail(error)
