"""The words of an agent: its waking and sleeping, its turns, its calls of models and tools. In its session's stream."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct

from .content import Cost, Failure, File, Image, OutputPart, Text, Tried, Usage
from .message import Command, Effect, Event
from .model import ModelAnswer, ModelParams
from .policy import Policy
from .session import Definition, Waking
from .tool import Approval, CallCheck, EffectClass, Place

ToolOutput = str | tuple[Text | Image | File, ...]

# -- asked of an agent --


class WakeAgent(Command, frozen=True, kw_only=True):
    """Run the image: wake an agent. One awake already: only a changed definition is taken over."""

    type: ClassVar[str] = "wake_agent"
    waking: Waking


class StopAgent(Command, frozen=True, kw_only=True):
    """Put the agent to sleep for good; the conversation stays. A running turn is interrupted first."""

    type: ClassVar[str] = "stop_agent"
    reason: str = "stopped"


class Interrupt(Command, frozen=True, kw_only=True):
    """Stop the running turn; what was said so far is kept. Nothing runs: nothing happens."""

    type: ClassVar[str] = "interrupt"
    reason: str = "user_interrupt"


class AnswerModel(Command, frozen=True, kw_only=True):
    """The model answered. checks: one for each tool call of the answer, in order."""

    type: ClassVar[str] = "answer_model"
    call: str
    answer: ModelAnswer
    checks: tuple[CallCheck, ...] = ()
    duration_ms: int = 0
    cost: Cost | None = None


class Selection(Struct, frozen=True, kw_only=True, gc=False):
    """Which model is asked from now on. reason: `fallback`, `probe` (to see whether it answers again), `primary`.

    key: the label of the key it is asked with, None where its provider has only one. because: what led to it.
    degraded: it is in the place of one that a budget chose, and holds for the job too.
    """

    model: str
    reason: str
    key: str | None = None
    because: str | None = None
    degraded: bool = False


class FailModel(Command, frozen=True, kw_only=True):
    """The model gave no complete answer. retry_in_ms: when to try again, None to give up.

    attempt: which one failed, so that a failure heard twice fails only one; 0 for the one that is owed. key: the label
    of the key that it was asked with. select: who is asked in its place, at once. exhausted: nobody is left to ask.
    unasked: it failed before the model was asked.
    """

    type: ClassVar[str] = "fail_model"
    call: str
    attempt: int = 0
    failure: Failure
    partial: tuple[OutputPart, ...] = ()
    usage: Usage | None = None
    retry_in_ms: int | None = None
    duration_ms: int = 0
    cost: Cost | None = None
    key: str | None = None
    select: Selection | None = None
    exhausted: bool = False
    unasked: bool = False


class SelectModel(Command, frozen=True, kw_only=True):
    """Before the model of a call that is owed was asked: another is to be, or the same with another key.

    Asked of an attempt that is not owed any more, nothing happens. noted: it is the one that is asked anyhow, and this
    attempt goes on; only that it was selected is to be in the log before it is.
    """

    type: ClassVar[str] = "select_model"
    call: str
    attempt: int
    select: Selection
    noted: bool = False


class SettleTool(Command, frozen=True, kw_only=True):
    """A tool ended. outcome: `ok`, `error`, or `unknown` where nobody can say whether it took effect."""

    type: ClassVar[str] = "settle_tool"
    tool: str
    outcome: str
    output: ToolOutput
    error_type: str | None = None
    duration_ms: int = 0
    dropped_bytes: int = 0


class RecoverEffect(Command, frozen=True, kw_only=True):
    """An effect was begun by an owner that is gone. What to do follows from its class."""

    type: ClassVar[str] = "recover_effect"
    effect: str
    attempt: int


class ProveTool(Command, frozen=True, kw_only=True):
    """What the world says of a call in doubt. happened: None when it cannot say."""

    type: ClassVar[str] = "prove_tool"
    tool: str
    happened: bool | None
    output: ToolOutput = ""


class StartTool(Command, frozen=True, kw_only=True):
    """A call that was approved, began before or waited for the ledger is about to begin: what it is found to be now, at
    the edge. It starts only if that is what was approved, in time; one that nobody was asked about only if nobody has
    to be by now; and where it is paid for.

    attempt: how often it began before. at: now, microseconds UTC. problem: why it cannot run here at all.
    """

    type: ClassVar[str] = "start_tool"
    tool: str
    attempt: int
    at: int
    version: str = ""
    effect: EffectClass = "unsafe"
    timeout_s: float = 0.0
    place: Place = Place()
    problem: str | None = None
    approval: Approval = "never"


class ResolveTool(Command, frozen=True, kw_only=True):
    """What a person says of a call in doubt: `ok` or `error` with the output to tell the model, or `retry`."""

    type: ClassVar[str] = "resolve_tool"
    tool: str
    outcome: str
    output: str = ""


# -- true of an agent. These names and fields are the storage format: add, never change --


class AgentRegistered(Event, frozen=True, kw_only=True):
    """An agent is awake in this session from here on. registered_at: milliseconds UTC."""

    type: ClassVar[str] = "agent_registered"
    source: ClassVar[str] = "container"
    category: ClassVar[str] = "lifecycle"
    container_id: str
    agent_id: str
    image_id: str
    registered_at: int


class AgentConfigured(Event, frozen=True, kw_only=True):
    """What it thinks with from here on: told when it wakes, and when its image, its rules or its money changed."""

    type: ClassVar[str] = "agent_configured"
    category: ClassVar[str] = "lifecycle"
    definition: Definition


class AgentUnregistered(Event, frozen=True, kw_only=True):
    """It sleeps for good: the next one in this session has another id. reason: why it was stopped."""

    type: ClassVar[str] = "agent_unregistered"
    source: ClassVar[str] = "container"
    category: ClassVar[str] = "lifecycle"
    container_id: str
    agent_id: str
    reason: str


class TurnStarted(Event, frozen=True, kw_only=True):
    """turn: counts from 1 in the session."""

    type: ClassVar[str] = "turn_started"
    category: ClassVar[str] = "turn"
    turn: int
    job_id: str


class TurnCompleted(Event, frozen=True, kw_only=True):
    """reason: completed, interrupted or error. stop_reason: of the last answer. steps: model calls made."""

    type: ClassVar[str] = "turn_completed"
    category: ClassVar[str] = "turn"
    turn: int
    reason: str
    stop_reason: str | None = None
    failure: Failure | None = None
    steps: int = 0


class ModelSelected(Event, frozen=True, kw_only=True):
    """Where there are several models or keys to select from, the one that is asked from here on. Told when a session
    first selects and when that changes, and not at each call: where there is nothing to select it is never told.

    reason: `primary` (the first of the chain), `fallback`, `probe` (to see whether it answers again), `pinned` (the job
    named it), `budget`. key: the label of the key that is used, None where the provider has only one: its name, or a
    short digest that tells keys apart. because: the failure's code, that of the limit or rule in the way
    (`budget_exceeded`, `policy_denied`), `cooldown`, `key_gone` (the session's own is not among the keys any more), or
    None. call, attempt: of the model call that goes on with it, None and 0 where none was under way. noted: of a call
    that was about to ask just this, and does. degraded: it is in the place of one that a budget chose, and holds for
    the job too.
    """

    type: ClassVar[str] = "model_selected"
    category: ClassVar[str] = "turn"
    model: str
    provider: str
    reason: str
    key: str | None = None
    because: str | None = None
    call: str | None = None
    attempt: int = 0
    noted: bool = False
    degraded: bool = False


class ModelCalled(Event, frozen=True, kw_only=True):
    """A model call is owed from here on. What the model sees is the session up to version `upto`, and no more.

    call: `m1`, `m2`, ... in the session. attempt: counts from 1. context: digest over the definition and the digests of
    all items up to `upto`, in their order. params: the settings where the job overrides the definition's, else None.
    wait_ms: how long to wait before, counted from the recorded time.
    """

    type: ClassVar[str] = "model_called"
    category: ClassVar[str] = "turn"
    call: str
    attempt: int
    upto: int
    image_version: int
    model: str
    context: str
    params: ModelParams | None = None
    wait_ms: int = 0


class ModelAnswered(Event, frozen=True, kw_only=True):
    """cost: None where the provider counted no tokens."""

    type: ClassVar[str] = "model_answered"
    category: ClassVar[str] = "message"
    call: str
    parts: tuple[OutputPart, ...]
    stop_reason: str
    usage: Usage | None
    model: str
    response_id: str | None = None
    stop_sequence: str | None = None
    duration_ms: int = 0
    cost: Cost | None = None


class ModelFailed(Event, frozen=True, kw_only=True):
    """An attempt gave no complete answer. partial: what had come; it counts only when no retry follows.

    retry_in_ms: when the call is tried again, None when it is given up. key: the label of the key that was used, where
    there are several. advance: it is tried with what `model_selected`, which follows, says. exhausted: nobody was left
    to ask; the turn's failure tells of every attempt. unasked: the model was not asked, so nothing was used.
    """

    type: ClassVar[str] = "model_failed"
    category: ClassVar[str] = "error"
    call: str
    attempt: int
    failure: Failure
    partial: tuple[OutputPart, ...] = ()
    usage: Usage | None = None
    retry_in_ms: int | None = None
    duration_ms: int = 0
    cost: Cost | None = None
    key: str | None = None
    advance: bool = False
    exhausted: bool = False
    unasked: bool = False

    @property
    def asked(self) -> bool:
        """Whether the model was asked; else nothing was used."""
        return not self.unasked and self.failure != NOT_ASKED


NOT_ASKED = Failure(code="cancelled", message="Stopped before the model was asked.")
"""Of an attempt that was stopped before."""


class ToolRequested(Event, frozen=True, kw_only=True):
    """The model asked for a call. tool: `t1`, `t2`, ... in the session. part: its index in the answer `call`."""

    type: ClassVar[str] = "tool_requested"
    tool: str
    call: str
    part: int
    name: str
    effect: EffectClass
    timeout_s: float
    version: str
    problem: str | None = None


class ToolAuthorised(Event, frozen=True, kw_only=True):
    """It may run. decision: `allow`, or `warn` where somebody should know. rule: which one said so, None where none had
    a say."""

    type: ClassVar[str] = "tool_authorised"
    tool: str
    decision: str = "allow"
    rule: str | None = None


class ToolChecked(Event, frozen=True, kw_only=True):
    """What a call was found to be just before it would start, approved, paid for or once more: what its approval is
    compared with, or, where nobody was asked, what says whether somebody must be. Alone: it waits for the ledger, which
    is being asked already.
    """

    type: ClassVar[str] = "tool_checked"
    tool: str
    attempt: int
    at: int
    version: str
    effect: EffectClass
    timeout_s: float
    place: Place
    problem: str | None = None
    approval: Approval = "never"


class ToolRelaunched(Event, frozen=True, kw_only=True):
    """A call is to begin again: it is checked first, as it was before its first run."""

    type: ClassVar[str] = "tool_relaunched"
    tool: str
    attempt: int


class ToolStarted(Event, frozen=True, kw_only=True):
    """A run is owed from here on, durable before it begins. arguments: digest of the arguments it runs with."""

    type: ClassVar[str] = "tool_started"
    tool: str
    attempt: int
    arguments: str


class ToolDoubted(Event, frozen=True, kw_only=True):
    """Its runner died: whether it took effect is not known. Next it is proved (`probeable`) or asked of a person."""

    type: ClassVar[str] = "tool_doubted"
    category: ClassVar[str] = "error"
    tool: str
    attempt: int


class ToolUnproved(Event, frozen=True, kw_only=True):
    """The world could not say either: a person must."""

    type: ClassVar[str] = "tool_unproved"
    category: ClassVar[str] = "error"
    tool: str


class ToolSettled(Event, frozen=True, kw_only=True):
    """The call is over. outcome: ok, error, denied, unknown, or skipped (never started).

    proof: who vouches for it: None for its own run, `probe` or `person`.
    """

    type: ClassVar[str] = "tool_settled"
    tool: str
    outcome: str
    output: ToolOutput
    error_type: str | None = None
    duration_ms: int = 0
    dropped_bytes: int = 0
    proof: str | None = None


# -- owed to the world --


class CallModel(Effect, frozen=True, kw_only=True):
    """Have a model answer the session up to `upto`. not_before: microseconds UTC, 0 for at once.

    policy, scope, principal: it is offered no tool that these layers deny there to whoever sent the job.
    chain: the models that may be asked, in order, empty where this is the only one. selected: that it is this one is in
    the log. reason: why it is. keys: the labels of the keys that the session was last asked with, by provider. tried:
    what did not answer this call so far. deaths: owners that were gone before this model had answered or failed, one
    after the other. step: of the turn, from 1. paid: something is set aside for it, and a ledger hears of it. degraded:
    a budget chose this one, or the one in whose place it is. barred: of the chain, those that rules or limits are in
    the way of.
    """

    type: ClassVar[str] = "call_model"
    model: str
    upto: int
    image_version: int
    attempt: int
    epoch: int
    params: ModelParams
    not_before: int = 0
    policy: tuple[Policy, ...] = ()
    scope: str = "default"
    chain: tuple[str, ...] = ()
    selected: bool = False
    reason: str = "primary"
    keys: tuple[tuple[str, str], ...] = ()
    tried: tuple[Tried, ...] = ()
    deaths: int = 0
    step: int = 1
    principal: str = ""
    paid: bool = False
    degraded: bool = False
    barred: tuple[str, ...] = ()

    @property
    def open(self) -> tuple[str, ...]:
        """The models that may be asked: this one, and what nothing is in the way of."""
        chain = self.chain or (self.model,)
        return tuple(each for each in chain if each == self.model or each not in self.barred) if self.barred else chain

    @property
    def key(self) -> str | None:
        """The label of the session's own key of this model's provider."""
        provider = self.model.partition(":")[0]
        return next((key for name, key in self.keys if name == provider), None)


class RunTool(Effect, frozen=True, kw_only=True):
    """Run a tool. key: the idempotency key, the same at every attempt. cwd: the folder that a person was shown, empty
    where none was asked. within: the rules that its job is under, as they hold for what it sends. origin: the principal
    for whom its job counts, and what it sends.
    """

    type: ClassVar[str] = "run_tool"
    name: str
    call_id: str
    input: dict[str, Any]
    key: str
    attempt: int
    effect: EffectClass
    timeout_s: float
    epoch: int
    job_id: str | None = None
    cwd: str = ""
    within: tuple[Policy, ...] = ()
    origin: str = ""


class ProbeTool(Effect, frozen=True, kw_only=True):
    """Ask the world whether a call in doubt took effect. May be repeated. cwd, within, origin: as in
    `RunTool`."""

    type: ClassVar[str] = "probe_tool"
    name: str
    call_id: str
    input: dict[str, Any]
    key: str
    attempt: int
    cwd: str = ""
    within: tuple[Policy, ...] = ()
    origin: str = ""


class LaunchTool(Effect, frozen=True, kw_only=True):
    """Look at a call once more where it would run, and say what is found: one that was approved, began before or waited
    for the ledger. May be repeated: nothing runs."""

    type: ClassVar[str] = "launch_tool"
    tool: str
    name: str
    input: dict[str, Any]
    attempt: int


class CancelEffect(Effect, frozen=True, kw_only=True):
    """Have the effect `target` stopped, and its end reported as any other end is."""

    type: ClassVar[str] = "cancel_effect"
    target: str
    attempt: int
    tool: bool
    effect: EffectClass = "unsafe"


class WakeAt(Effect, frozen=True, kw_only=True):
    """Send this job's `ExpireJob` at `at`, microseconds UTC. since: when its time began to run."""

    type: ClassVar[str] = "wake_at"
    job_id: str
    at: int
    since: int = 0


COMMANDS = (
    WakeAgent,
    StopAgent,
    Interrupt,
    AnswerModel,
    FailModel,
    SelectModel,
    SettleTool,
    RecoverEffect,
    ProveTool,
    StartTool,
    ResolveTool,
)
EVENTS = (
    AgentRegistered,
    AgentConfigured,
    AgentUnregistered,
    TurnStarted,
    TurnCompleted,
    ModelSelected,
    ModelCalled,
    ModelAnswered,
    ModelFailed,
    ToolRequested,
    ToolAuthorised,
    ToolChecked,
    ToolRelaunched,
    ToolStarted,
    ToolDoubted,
    ToolUnproved,
    ToolSettled,
)
