"""The words of an action: a question that only a person can answer. In its session's stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from msgspec import Struct
from msgspec.structs import force_setattr

from .frozen import frozen
from .message import Command, Effect, Event
from .tool import Place

ActionType = Literal["confirm", "choose", "input", "upload", "reauth", "apply_changes", "approval", "custom"]
"""What is asked for: a yes or no, one of several options, a text, files, a fresh login, leave to apply changes, leave
to run exactly one call, or whatever the program that asks has agreed with whoever answers."""

ActionStatus = Literal["pending", "resolved", "expired", "cancelled"]

AGENT = "agent:"
"""How the principal of an agent begins, before its id. A tool acts as its agent."""

AGENT_PRINCIPALS = (AGENT, "tool:")
"""How the principals begin that are no people. None of them resolves an action."""

HANDLER = "handler"
"""The principal of an approval handler: a program decides in the place of a person, who let it. With its name behind a
colon, where it has one."""

_RESERVED = frozenset(("agent", "tool", HANDLER, "cli", "policy", "system"))


def is_reserved(principal: str) -> bool:
    """Whether it reads like a name that is given here, to agents, handlers and whoever sits at a terminal."""
    return principal.partition(":")[0].strip().casefold() in _RESERVED


class Grant(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Leave that a person gave once for the calls to come; named after the action in which it was given.

    kind: `exact` for one call, its arguments among the rest; `class` for every call of a tool that only reads. digest:
    over tool, version, place and policy, and the arguments of an exact one. name, version: of the tool. principal: for
    whose jobs, None for everybody's. required: whether a person was to be asked before every call then; None: either.
    """

    action: str
    kind: str
    name: str
    version: str
    digest: str
    by: str
    principal: str | None = None
    required: bool | None = None


# -- asked --


class RequireAction(Command, frozen=True, kw_only=True):
    """Ask a person. The same key again within a job: it is the same question, and nothing happens.

    job_id: the running job it belongs to, None for one of the session. tool: the call that asks. timeout_ms: how long
    it may be answered. token: digest of the token that may resolve it, see `ActionTokenIssued`.
    """

    type: ClassVar[str] = "require_action"
    kind: ActionType
    timeout_ms: int
    payload: dict[str, Any] = {}
    job_id: str | None = None
    tool: str | None = None
    metadata: dict[str, Any] | None = None
    token: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        for name in ("payload", "metadata"):
            force_setattr(self, name, frozen(getattr(self, name)))


class ResolveAction(Command, frozen=True, kw_only=True):
    """What a person says. at: now, microseconds UTC; from when the question has expired on, that is what is recorded.

    by: the principal who says so. digest: of what they were shown, None where they were shown nothing. token: digest of
    the token they came with, None where their credential is enough. bound: a leave for calls to come is for jobs of
    whoever sent the one that asked, and for nobody else's. switched: it ends where `approval_required` is switched.
    """

    type: ClassVar[str] = "resolve_action"
    action: str
    resolution: dict[str, Any]
    at: int
    by: str
    digest: str | None = None
    token: str | None = None
    bound: bool = False
    switched: bool = False

    def __post_init__(self) -> None:
        force_setattr(self, "resolution", frozen(self.resolution))


class ExpireAction(Command, frozen=True, kw_only=True):
    """Nobody answered in time. One that is over: nothing happens."""

    type: ClassVar[str] = "expire_action"
    action: str


class CancelAction(Command, frozen=True, kw_only=True):
    """Take the question back. cancel_job: and end the job that waits for it."""

    type: ClassVar[str] = "cancel_action"
    action: str
    by: str
    reason: str = "cancelled"
    cancel_job: bool = False


class IssueToken(Command, frozen=True, kw_only=True):
    """Give out a token for a pending action. token: its digest. What was given out before is worth nothing then."""

    type: ClassVar[str] = "issue_token"
    action: str
    token: str


class RevokeGrant(Command, frozen=True, kw_only=True):
    """Take back a leave for calls to come. action: the one it was given in."""

    type: ClassVar[str] = "revoke_grant"
    action: str
    by: str


# -- true of an action. These names and fields are the storage format: add, never change --


class ActionRequired(Event, frozen=True, kw_only=True):
    """A person was asked. action: `a1`, `a2`, ... in the session. It expires timeout_ms after its recorded time.

    tool: the call that waits for it, or that asks it. reason: why it is asked, of an approval. digest: over everything
    an approval is bound to, see `actors.approval`. place: where the call would run. policy: digest of the policy then.
    token: digest of the token that may resolve it. key: of whoever asked, unique within the job.
    """

    type: ClassVar[str] = "action_required"
    category: ClassVar[str] = "action"
    intent: ClassVar[str] = "request"
    action: str
    kind: ActionType
    timeout_ms: int
    payload: dict[str, Any] = {}
    job_id: str | None = None
    tool: str | None = None
    reason: str = ""
    metadata: dict[str, Any] | None = None
    digest: str | None = None
    place: Place | None = None
    policy: str = ""
    token: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        for name in ("payload", "metadata"):
            force_setattr(self, name, frozen(getattr(self, name)))


class ActionResolved(Event, frozen=True, kw_only=True):
    """A person decided, and what they said counts once. at: when, microseconds UTC. by: who. token: digest of theirs.

    bound: of a leave for calls to come, that it is for jobs of whoever sent the one that asked. Without it, as it was
    given once, it is for everybody's in the session. switched: that it ends where `approval_required` is switched.

    resolution: by the action's kind. Of an approval: approved, and where given comment, arguments (those to run
    instead) and always (`exact` or `class`: leave for calls to come).
    """

    type: ClassVar[str] = "action_resolved"
    category: ClassVar[str] = "action"
    intent: ClassVar[str] = "result"
    action: str
    resolution: dict[str, Any]
    at: int
    by: str
    digest: str | None = None
    token: str | None = None
    bound: bool = False
    switched: bool = False

    def __post_init__(self) -> None:
        force_setattr(self, "resolution", frozen(self.resolution))


class ActionExpired(Event, frozen=True, kw_only=True):
    """Its time was up. at, by: of an answer that came too late; 0 and empty where none came."""

    type: ClassVar[str] = "action_expired"
    category: ClassVar[str] = "action"
    action: str
    at: int = 0
    by: str = ""


class ActionCancelled(Event, frozen=True, kw_only=True):
    """The question was taken back: by whom, or by the end of its job. cancel_job: the job ends with it."""

    type: ClassVar[str] = "action_cancelled"
    category: ClassVar[str] = "action"
    action: str
    reason: str
    by: str = ""
    cancel_job: bool = False


class ActionTokenIssued(Event, frozen=True, kw_only=True):
    """token: digest of a token with which the action may be resolved, once. The token itself is in no event."""

    type: ClassVar[str] = "action_token_issued"
    category: ClassVar[str] = "action"
    action: str
    token: str


class GrantUsed(Event, frozen=True, kw_only=True):
    """A call ran on a leave that was given before. grant: the action it was given in. place: where the call runs."""

    type: ClassVar[str] = "grant_used"
    category: ClassVar[str] = "action"
    grant: str
    tool: str
    place: Place


class GrantRevoked(Event, frozen=True, kw_only=True):
    """A leave for calls to come was taken back. grant: the action it was given in. by: who took it back."""

    type: ClassVar[str] = "grant_revoked"
    category: ClassVar[str] = "action"
    grant: str
    by: str


def decided_as(kind: str, resolution: Mapping[str, Any] | None) -> str:
    """What an answer to a question of this kind comes to, in one word: `approved`, `edited`, `denied`, `answered`; of a
    login `logged in`, `not logged in`."""
    said = resolution or {}
    yes = said.get("approved", said.get("authenticated"))
    if not isinstance(yes, bool) or kind == "custom":
        return "answered"
    if kind == "reauth":
        return "logged in" if yes else "not logged in"
    return ("edited" if said.get("arguments") is not None else "approved") if yes else "denied"


ActionEnded = ActionResolved | ActionExpired | ActionCancelled


# -- owed to the world --


class ExpireActionAt(Effect, frozen=True, kw_only=True):
    """Send this action's `ExpireAction` at `at`, microseconds UTC. asked_at: when it was asked; it waits no longer
    than from there to `at`, whatever the clock says."""

    type: ClassVar[str] = "expire_action_at"
    action: str
    at: int
    asked_at: int


COMMANDS = (RequireAction, ResolveAction, ExpireAction, CancelAction, IssueToken, RevokeGrant)
EVENTS = (
    ActionRequired,
    ActionResolved,
    ActionExpired,
    ActionCancelled,
    ActionTokenIssued,
    GrantUsed,
    GrantRevoked,
)
