"""A person's consent to a call of a tool, or of a model: asked for, given, refused, too late, taken back. Pure.

What it covers is in approval.py. A leave for calls to come, once given, answers the question before it is put.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from ..events.action import (
    HANDLER,
    ActionCancelled,
    ActionExpired,
    ActionRequired,
    ActionResolved,
    Grant,
    GrantRevoked,
    GrantUsed,
    ResolveAction,
    RevokeGrant,
)
from ..events.agent import ToolAuthorised, ToolChecked, ToolSettled, ToolStarted
from ..events.content import ToolCall
from ..events.errors import BadResolution, Full
from ..events.message import Event, Stamp, digest
from ..events.tool import CallCheck, Place, arguments_digest
from . import purse as money
from .approval import GRANTS_MAX, Approval, Terms, grant_digest, granted, policy_digest, terms_digest, what_changed
from .length import tokens_of
from .mind import State, Tool, approval_ms, definition_of, tool_of, with_tool
from .raising import consented
from .step import raised, think, unpaid, unthinkable

DENIED = "A person did not allow this call. It was not run."
DENIED_BY_HANDLER = "The approval handler of the program did not allow this call. It was not run."
EXPIRED = "Nobody allowed this call in time. It was not run."
TAKEN_BACK = "The question whether this call may run was taken back. It was not run."
DENIED_MODEL = "a person did not allow it"
UNANSWERED_MODEL = "nobody allowed it in time"
CROWDED = "Not run: too many calls wait for a person's approval already."
FULL = "Full"
"""The error type of a call that was one question too many."""

APPROVALS_MAX = 100
"""Most calls of one answer that may wait for an approval."""


def ask(state: State, tool: str, part: ToolCall, check: CallCheck, reason: str, put: int) -> list[Event]:
    """What becomes of a call that a person must approve: it starts on a leave given before, or it is asked for."""
    policy = policy_digest(state.rights)
    place = check.place or Place()
    required = definition_of(state).approval_required
    grant = granted(state.consent.grants, check, part.name, part.input, policy, state.principal, required)
    if grant is not None:
        return [
            GrantUsed(grant=grant.action, tool=tool, place=place),
            ToolAuthorised(tool=tool, rule=f"grant {grant.action}"),
            ToolStarted(tool=tool, attempt=1, arguments=check.arguments or arguments_digest(part.input)),
        ]
    if put >= APPROVALS_MAX:
        return [ToolSettled(tool=tool, outcome="denied", output=CROWDED, error_type=FULL)]
    action = f"a{state.consent.actions + put + 1}"
    terms = Terms(
        session=state.session_id,
        action=action,
        tool=tool,
        name=part.name,
        version=check.version,
        arguments=part.input,
        effect=check.effect,
        timeout_s=check.timeout_s,
        place=place,
        policy=policy,
        timeout_ms=approval_ms(state),
    )
    asked = ActionRequired(
        action=action,
        kind="approval",
        timeout_ms=terms.timeout_ms,
        job_id=state.job_id,
        tool=tool,
        reason=reason,
        digest=terms_digest(terms),
        place=place,
        policy=policy,
    )
    return [asked]


def may_resolve(state: State, message: ResolveAction) -> Sequence[Event]:
    """Whether the leave for calls to come that a person gives is one that they may give."""
    always = message.resolution.get("always")
    tool = _waiting(state, message.action)
    if always is None or tool is None:
        return ()
    if always == "class" and tool.effect != "read":
        raise BadResolution(
            f"Only a tool declared effect='read' may always run; {tool.name} is {tool.effect}. Allow exactly this call"
            " for good with always=exact."
        )
    if len(state.consent.grants) >= GRANTS_MAX:
        raise Full(f"This session keeps {GRANTS_MAX:,} leaves for calls to come, its most; revoke one first.")
    return ()


def resolved(state: State, message: ActionResolved) -> Sequence[Event]:
    """A person decided: a call of a tool runs or is denied, a model is called or the turn ends, and so with a limit."""
    tool = _waiting(state, message.action)
    if tool is None:
        if not _holds(state, message.action):
            return ()
        yes = message.resolution.get("approved") is True
        raising = None if state.purse is None else consented(state.purse.raising, message.action, message.by)
        if raising is not None:
            return raised(state, raising) if yes else _not_raised(state)
        return think(state) if yes else unthinkable(state, DENIED_MODEL)
    if message.resolution.get("approved") is True:
        return [ToolAuthorised(tool=tool.id, rule=f"approval {message.action}")]
    comment = message.resolution.get("comment")
    if message.by.partition(":")[0] == HANDLER:
        said = f"{DENIED_BY_HANDLER} {comment}" if comment else DENIED_BY_HANDLER
    else:
        said = f"{DENIED} They say: {comment}" if comment else DENIED
    return [ToolSettled(tool=tool.id, outcome="denied", output=said, error_type="Denied")]


def _holds(state: State, action: str) -> bool:
    """Whether the agent waits for this action before it thinks on."""
    held = state.consent.held
    return held is not None and held[0] == action and state.job_id is not None and state.stopping is None


def _not_raised(state: State) -> Sequence[Event]:
    """The limit stays as it is, and ends the turn. Empty where no limit was asked about."""
    raising = None if state.purse is None else state.purse.raising
    return () if raising is None else [unpaid(state, raising.breach)]


def unresolved(state: State, message: ActionExpired | ActionCancelled) -> Sequence[Event]:
    """Nobody decided, in time or at all: that is a no, unless the job ends with the question."""
    tool = _waiting(state, message.action)
    if isinstance(message, ActionCancelled) and message.cancel_job:
        return ()  # the end of the job settles it
    if tool is None and not _holds(state, message.action):
        return ()
    if tool is None:
        return _not_raised(state) or unthinkable(state, UNANSWERED_MODEL)
    if isinstance(message, ActionExpired):
        return [ToolSettled(tool=tool.id, outcome="denied", output=EXPIRED, error_type="ApprovalExpired")]
    return [ToolSettled(tool=tool.id, outcome="denied", output=TAKEN_BACK, error_type="ApprovalCancelled")]


def not_covered(state: State, tool: Tool, approval: Approval, now: ToolChecked) -> str | None:
    """Why an approval does not cover what would run now, None where it does."""
    terms = _terms(state, tool, approval)
    if terms_digest(terms) != approval.digest:
        return "the call is not the one that was approved"
    if now.at >= approval.expires_at:
        return "the approval has expired"
    if now.at < approval.asked_at:
        return "the clock was set back, so that nobody can tell whether the approval still holds"
    if approval.granted:
        grant = next((grant for grant in state.consent.grants if grant.action == approval.action), None)
        if grant is None:
            return "the leave for it was taken back"
        if grant.required not in (None, definition_of(state).approval_required):
            return "whether a person is asked before every call was switched"
    return what_changed(terms, now, policy_digest(state.rights))


def revoke(state: State, message: RevokeGrant) -> Sequence[Event]:
    if any(grant.action == message.action for grant in state.consent.grants):
        return [GrantRevoked(grant=message.action, by=message.by)]
    return ()


def _waiting(state: State, action: str) -> Tool | None:
    """The call that waits for this action."""
    for each in state.open:
        if each.approval is not None and each.approval.action == action and each.status == "waiting":
            return each
    return None


def _terms(state: State, tool: Tool, approval: Approval) -> Terms:
    """What a waiting call's approval covers, from what is known of the call."""
    return Terms(
        session=state.session_id,
        action=approval.action,
        tool=tool.id,
        name=tool.name,
        version=tool.version,
        arguments=tool.input,
        effect=tool.effect,
        timeout_s=tool.timeout_s,
        place=approval.place,
        policy=approval.policy,
        timeout_ms=approval.timeout_ms,
    )


# -- evolve --


def on_required(state: State, event: ActionRequired, stamp: Stamp) -> State:
    consent = replace(state.consent, actions=state.consent.actions + 1)
    state = replace(state, consent=consent)
    if event.digest is None:
        return replace(state, version=stamp.version)
    if event.tool is None:
        held = (event.action, event.payload.get("model", ""), event.policy)
        purse = money.asked_to_raise(state.purse, event.action)
        return replace(state, version=stamp.version, consent=replace(consent, held=held), purse=purse)
    approval = Approval(
        action=event.action,
        digest=event.digest,
        asked_at=stamp.at,
        expires_at=stamp.at + event.timeout_ms * 1000,
        timeout_ms=event.timeout_ms,
        place=event.place or Place(),
        policy=event.policy,
    )
    return with_tool(state, event.tool, stamp, status="waiting", approval=approval)


def on_resolved(state: State, event: ActionResolved, stamp: Stamp) -> State:
    tool = _waiting(state, event.action)
    if event.resolution.get("approved") is not True:
        return replace(state, version=stamp.version)
    if tool is None:
        state, held = replace(state, purse=money.ticked(state.purse, stamp.at)), state.consent.held
        if held is None or not held[1] or held[0] != event.action:
            return replace(state, version=stamp.version)
        consent = replace(state.consent, allowed=(*state.consent.allowed, held[1:]))
        return replace(state, version=stamp.version, consent=consent)
    approval = tool.approval
    assert approval is not None
    arguments, always = event.resolution.get("arguments"), event.resolution.get("always")
    if arguments is not None:
        tool = replace(tool, input=arguments)
        edited = replace(approval, digest=terms_digest(_terms(state, tool, approval)))
        # What the model is told of the call names the change, so this is a part of what it sees.
        state = with_tool(state, tool.id, stamp, input=arguments, approval=edited)
        read = 32 + tokens_of(msgspec.json.encode(arguments).decode())
        state = replace(state, items=digest(state.items, stamp.digest), length=state.length.and_more(read))
    if always is not None:
        covered = tool.input if always == "exact" else None
        grant = Grant(
            action=event.action,
            kind=always,
            name=tool.name,
            version=tool.version,
            digest=grant_digest(tool.name, tool.version, covered, approval.place, approval.policy),
            by=event.by,
            principal=state.principal if event.bound else None,
            required=definition_of(state).approval_required if event.switched else None,
        )
        state = replace(state, consent=replace(state.consent, grants=(*state.consent.grants, grant)))
    return replace(state, version=stamp.version)


def on_granted(state: State, event: GrantUsed, stamp: Stamp) -> State:
    tool = tool_of(state, event.tool)
    if tool is None:
        return replace(state, version=stamp.version)
    wait_s = definition_of(state).approval_timeout_s
    approval = Approval(
        action=event.grant,
        digest="",
        asked_at=stamp.at,
        expires_at=stamp.at + round(wait_s * 1_000_000),
        timeout_ms=approval_ms(state),
        place=event.place,
        policy=policy_digest(state.rights),
        granted=True,
    )
    approval = replace(approval, digest=terms_digest(_terms(state, tool, approval)))
    return with_tool(state, event.tool, stamp, approval=approval)


def on_revoked(state: State, event: GrantRevoked, stamp: Stamp) -> State:
    grants = tuple(grant for grant in state.consent.grants if grant.action != event.grant)
    return replace(state, version=stamp.version, consent=replace(state.consent, grants=grants))
