"""The words of a session: what was said and done, in order; its lane and its jobs. Stream `session-<id>`."""

from __future__ import annotations

from typing import ClassVar

from msgspec import UNSET, Struct, UnsetType

from .budget import Terms
from .content import Failure, InputPart
from .message import Command, Event
from .model import ModelParams
from .policy import Policy
from .tool import APPROVAL_TIMEOUT_S


class Definition(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """What an agent thinks with, as drawn from its image when it last changed; recorded in the session, once a change.

    tools: digest over the names and versions of the tools it is offered. policy: the layers of rules it is held to,
    outermost first, with every name written out. scope: the tenant for whom they are asked. fallbacks: the models that
    are asked when `model` does not answer, in this order. approval_required: a person is asked before every call of a
    tool. approval_timeout_s: how long they may take. terms: what it must know of money, None where nothing limits what
    it spends.
    """

    image_version: int
    model: str
    params: ModelParams = ModelParams()
    max_steps: int = 50
    tools: str = ""
    policy: tuple[Policy, ...] = ()
    scope: str = "default"
    fallbacks: tuple[str, ...] = ()
    approval_required: bool = False
    approval_timeout_s: float = APPROVAL_TIMEOUT_S
    terms: Terms | None = None


class Waking(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """What waking an agent needs from outside the session: its new id, and whose agent it will be."""

    agent_id: str
    image_id: str
    container_id: str
    registered_at: int
    definition: Definition


class Overrides(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """What one job wants otherwise than its image says. None: as the image says.

    model: this one, and no other unless `fallbacks` are given too. fallbacks: in place of the image's. policy: narrows
    what it may do. terms: limits of this job alone, beside the image's, and the prices of its models. principal: who
    sent it, where a rule asks for that. within: the rules of the agent that sent it, as they were for that one; they
    hold for this job too. origin: for whom that agent's job counts, and so this one. Both stand in its `job_queued`
    alone, and nothing is stored of them where there are none.
    """

    model: str | None = None
    params: ModelParams | None = None
    policy: Policy | None = None
    fallbacks: tuple[str, ...] | None = None
    terms: Terms | None = None
    principal: str = ""
    within: tuple[Policy, ...] | UnsetType = UNSET
    origin: str | UnsetType = UNSET


# -- asked of a session --


class CreateSession(Command, frozen=True, kw_only=True):
    """So already: nothing happens. There with another image: refused."""

    type: ClassVar[str] = "create_session"
    session_id: str
    image_id: str
    container_id: str
    created_at: int
    alias: str | None = None


class Send(Command, frozen=True, kw_only=True):
    """Accept an input as a job; it runs when the lane is free.

    waking: wakes the agent where it sleeps, and brings a changed definition to one awake; None when it is awake and
    nothing changed. priority: higher first among the queued, then first come first served. timeout_ms: the job times
    out so long after it was accepted.
    """

    type: ClassVar[str] = "send"
    job_id: str
    content: tuple[InputPart, ...]
    waking: Waking | None = None
    overrides: Overrides | None = None
    priority: int = 0
    timeout_ms: int | None = None


class CancelJob(Command, frozen=True, kw_only=True):
    """Take a queued job out, or interrupt the running one. A finished job: nothing happens."""

    type: ClassVar[str] = "cancel_job"
    job_id: str
    reason: str = "user_cancel"


class ExpireJob(Command, frozen=True, kw_only=True):
    """The job's time is up."""

    type: ClassVar[str] = "expire_job"
    job_id: str


class CloseSession(Command, frozen=True, kw_only=True):
    """Its image is deleted: end what runs, accept nothing more."""

    type: ClassVar[str] = "close_session"
    reason: str = "image_deleted"


# -- true of a session. These names and fields are the storage format: add, never change --


class SessionCreated(Event, frozen=True, kw_only=True):
    """created_at: milliseconds UTC. alias: a name that it may be asked for by."""

    type: ClassVar[str] = "session_created"
    source: ClassVar[str] = "session"
    category: ClassVar[str] = "lifecycle"
    session_id: str
    image_id: str
    container_id: str
    created_at: int
    alias: str | None = None


class SessionClosed(Event, frozen=True, kw_only=True):
    """Nothing more is accepted. The job that runs is asked to end, those that wait are cancelled."""

    type: ClassVar[str] = "session_closed"
    source: ClassVar[str] = "session"
    category: ClassVar[str] = "lifecycle"
    reason: str


class JobQueued(Event, frozen=True, kw_only=True):
    """An input was accepted. It is stored before anyone is told so."""

    type: ClassVar[str] = "job_queued"
    source: ClassVar[str] = "session"
    job_id: str
    content: tuple[InputPart, ...]
    overrides: Overrides | None = None
    priority: int = 0
    timeout_ms: int | None = None

    def counts_for(self, sender: str) -> str:
        """The principal whose limits and leaves it is under, where this one sent it."""
        return sender if self.overrides is None else self.overrides.origin or sender


class JobStarted(Event, frozen=True, kw_only=True):
    """The input enters the conversation here."""

    type: ClassVar[str] = "job_started"
    source: ClassVar[str] = "session"
    job_id: str
    overrides: Overrides | None = None


class JobWaiting(Event, frozen=True, kw_only=True):
    """It can go on only when a person has answered. tool: the call in question, empty where it is about none.

    action: the question that was put, None where the call's own outcome is what is asked for.
    """

    type: ClassVar[str] = "job_waiting"
    source: ClassVar[str] = "session"
    job_id: str
    tool: str
    reason: str
    action: str | None = None


class JobResumed(Event, frozen=True, kw_only=True):
    """What it waited for has come: it goes on."""

    type: ClassVar[str] = "job_resumed"
    source: ClassVar[str] = "session"
    job_id: str


class JobSucceeded(Event, frozen=True, kw_only=True):
    """Its turn came to an end by itself."""

    type: ClassVar[str] = "job_succeeded"
    source: ClassVar[str] = "session"
    job_id: str


class JobFailed(Event, frozen=True, kw_only=True):
    """Its turn ended in a failure: of a model, by a rule, at a limit."""

    type: ClassVar[str] = "job_failed"
    source: ClassVar[str] = "session"
    job_id: str
    failure: Failure


class JobCancelled(Event, frozen=True, kw_only=True):
    """It ended because somebody wanted it to, running or still waiting for its turn."""

    type: ClassVar[str] = "job_cancelled"
    source: ClassVar[str] = "session"
    job_id: str
    reason: str


class JobTimedOut(Event, frozen=True, kw_only=True):
    """Its time was up, running or still waiting for its turn."""

    type: ClassVar[str] = "job_timed_out"
    source: ClassVar[str] = "session"
    job_id: str


class JobStopping(Event, frozen=True, kw_only=True):
    """The running job was asked to end: by a person, or because its time is up. It ends when its effects have."""

    type: ClassVar[str] = "job_stopping"
    source: ClassVar[str] = "session"
    job_id: str
    reason: str


JobEnded = JobSucceeded | JobFailed | JobCancelled | JobTimedOut

COMMANDS = (CreateSession, Send, CancelJob, ExpireJob, CloseSession)
EVENTS = (
    SessionCreated,
    SessionClosed,
    JobQueued,
    JobStarted,
    JobWaiting,
    JobResumed,
    JobSucceeded,
    JobFailed,
    JobCancelled,
    JobTimedOut,
    JobStopping,
)
