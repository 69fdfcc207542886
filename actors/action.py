"""Questions to people: asked, answered once, or over without an answer. Pure.

    action_required --> action_resolved | action_expired | action_cancelled

Only the first end counts. Time comes with the answer: one that comes at or after the question's end is recorded as
expired, one from before the question was asked is refused. Whatever cannot be told for sure counts as no.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..events.action import (
    AGENT_PRINCIPALS,
    ActionCancelled,
    ActionExpired,
    ActionRequired,
    ActionResolved,
    ActionStatus,
    ActionTokenIssued,
    ActionType,
    CancelAction,
    ExpireAction,
    ExpireActionAt,
    IssueToken,
    RequireAction,
    ResolveAction,
)
from ..events.errors import (
    ActionChanged,
    ActionOver,
    BadInput,
    BadResolution,
    ClockBehind,
    Closed,
    Full,
    NotAPerson,
    NotFound,
)
from ..events.message import Command, Effect, Event, Stamp
from ..events.session import (
    JobCancelled,
    JobEnded,
    JobFailed,
    JobStarted,
    JobStopping,
    JobSucceeded,
    JobTimedOut,
    SessionClosed,
    SessionCreated,
)
from .decider import Decider

PENDING_MAX = 100
"""Most questions of one session that may wait at once."""

JOB_ACTIONS_MAX = 1000
"""Most questions one job may put."""

TIMEOUT_MAX_MS = 366 * 24 * 3600 * 1000
"""The longest that a question may wait for its answer: a year."""

OPTIONS_MAX = 100
TEXT_MAX = 100_000
COMMENT_MAX = 10_000
FILES_MAX = 100
"""Bounds on questions and answers: options of a choice, characters of a text and of a comment, files of an upload."""

FILES_BYTES_MAX = 8 * 1024 * 1024
"""Most bytes that the files of one upload have together, where the answer holds them."""

CUSTOM_BYTES_MAX = 1024 * 1024
"""Most bytes of an answer whose form only its asker knows."""

SECRET_NAME_CHARS_MAX = 64
"""Longest name of a secret that is asked for."""


class Asked(Struct, frozen=True, kw_only=True, gc=False):
    """One question and how it stands. asked_at, expires_at, ended_at: microseconds UTC."""

    id: str
    kind: ActionType
    payload: dict[str, Any]
    asked_at: int
    expires_at: int
    status: ActionStatus = "pending"
    job_id: str | None = None
    tool: str | None = None
    reason: str = ""
    metadata: dict[str, Any] | None = None
    digest: str | None = None
    token: str | None = None
    key: str | None = None
    resolution: dict[str, Any] | None = None
    by: str = ""
    ended_at: int | None = None


class State(Struct, frozen=True, gc=False):
    """pending: in the order in which they were asked. over: those of the running job that have ended.

    count: how many were ever asked. job_id, stopping: of the running job.
    """

    session_id: str | None = None
    closed: bool = False
    job_id: str | None = None
    stopping: bool = False
    count: int = 0
    pending: tuple[Asked, ...] = ()
    over: tuple[Asked, ...] = ()


def decide(state: State, message: Command | Event) -> Sequence[Event]:
    choose = _DECIDE.get(type(message))
    return choose(state, message) if choose is not None else ()


def _require(state: State, message: RequireAction) -> Sequence[Event]:
    if state.session_id is None:
        raise NotFound("Session not found.")
    if message.key is not None and any(
        each.key == message.key and each.job_id == message.job_id for each in (*state.pending, *state.over)
    ):
        return ()
    if state.closed:
        raise Closed(f"Session {state.session_id} is closed.")
    if message.job_id is not None and (message.job_id != state.job_id or state.stopping):
        raise BadInput(f"Job {message.job_id} does not run, so nothing can be asked for it.")
    if not 0 < message.timeout_ms <= TIMEOUT_MAX_MS:
        raise BadInput(f"A question waits for 1 to {TIMEOUT_MAX_MS:,} milliseconds, not for {message.timeout_ms:,}.")
    if len(state.pending) >= PENDING_MAX:
        raise Full(f"{PENDING_MAX} questions of this session wait for an answer already; answer one first.")
    if message.job_id is not None and len(state.over) + len(state.pending) >= JOB_ACTIONS_MAX:
        raise Full(f"A job may put {JOB_ACTIONS_MAX:,} questions; this one has.")
    if message.kind not in get_args(ActionType):
        raise BadInput(f"There is no action {message.kind!r}. There are: {', '.join(get_args(ActionType))}.")
    check_question(message.kind, message.payload)
    return [
        ActionRequired(
            action=f"a{state.count + 1}",
            kind=message.kind,
            timeout_ms=message.timeout_ms,
            payload=message.payload,
            job_id=message.job_id,
            tool=message.tool,
            metadata=message.metadata,
            token=message.token,
            key=message.key,
        )
    ]


def _resolve(state: State, message: ResolveAction) -> Sequence[Event]:
    asked = _pending(state, message.action, message.token)
    if message.at >= asked.expires_at:
        return [ActionExpired(action=asked.id, at=message.at, by=message.by)]
    if message.by.startswith(AGENT_PRINCIPALS):
        raise NotAPerson
    if message.at < asked.asked_at:
        raise ClockBehind
    if message.digest is not None and (asked.digest is None or not _same(message.digest, asked.digest)):
        raise ActionChanged
    of_call = asked.digest is not None and asked.tool is not None
    check_resolution(asked.kind, asked.payload, message.resolution, of_call=of_call)
    return [
        ActionResolved(
            action=asked.id,
            resolution=message.resolution,
            at=message.at,
            by=message.by,
            digest=message.digest,
            token=message.token,
        )
    ]


def _pending(state: State, action: str, token: str | None = None) -> Asked:
    asked = next((each for each in state.pending if each.id == action), None)
    if token is not None:
        # Wrong, used, of another action: whoever tries tokens learns nothing from the answer.
        known = asked.token if asked is not None else None
        if known is None or not _same(token, known):
            raise NotFound("There is no pending action for this token.")
    if asked is not None:
        return asked
    was = next((each for each in state.over if each.id == action), None)
    if was is not None:
        raise ActionOver(f"Action {action} is over: it is {was.status}{f', by {was.by}' if was.by else ''}.")
    if _was(state, action):
        raise ActionOver(f"Action {action} is over.")
    raise NotFound(f"There is no action {action} in this session.")


def _same(one: str, other: str) -> bool:
    """In a time that tells nothing of where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _was(state: State, action: str) -> bool:
    number = action[1:]
    is_number = number.isascii() and number.isdigit() and len(number) < 20
    return is_number and action == f"a{int(number)}" and 0 < int(number) <= state.count


def _expire(state: State, message: ExpireAction) -> Sequence[Event]:
    return [ActionExpired(action=each.id) for each in state.pending if each.id == message.action]


def _cancel(state: State, message: CancelAction) -> Sequence[Event]:
    if not any(each.id == message.action for each in state.pending) and _was(state, message.action):
        return ()
    asked = _pending(state, message.action)
    if message.cancel_job and asked.job_id is None:
        raise BadInput(f"Action {asked.id} belongs to no job, so there is none to cancel with it.")
    return [ActionCancelled(action=asked.id, reason=message.reason, by=message.by, cancel_job=message.cancel_job)]


def _issue(state: State, message: IssueToken) -> Sequence[Event]:
    return [ActionTokenIssued(action=_pending(state, message.action).id, token=message.token)]


def _of_job(state: State, message: JobEnded | JobStopping) -> Sequence[Event]:
    """Nobody waits for the answers any more."""
    reason = message.reason if isinstance(message, JobStopping | JobCancelled) else "the job is over"
    return [ActionCancelled(action=each.id, reason=reason) for each in state.pending if each.job_id == message.job_id]


def _close(state: State, message: SessionClosed) -> Sequence[Event]:
    return [ActionCancelled(action=each.id, reason=message.reason) for each in state.pending if each.job_id is None]


_DECIDE: dict[type, Any] = {
    RequireAction: _require,
    ResolveAction: _resolve,
    ExpireAction: _expire,
    CancelAction: _cancel,
    IssueToken: _issue,
    JobStopping: _of_job,
    JobSucceeded: _of_job,
    JobFailed: _of_job,
    JobCancelled: _of_job,
    JobTimedOut: _of_job,
    SessionClosed: _close,
}


# -- what may be asked, and what may be said --


def check_question(kind: ActionType, payload: Mapping[str, Any]) -> None:
    """Raises BadInput for a question that cannot be answered."""
    if kind == "choose":
        options = payload.get("options")
        if not isinstance(options, list) or not 1 <= len(options) <= OPTIONS_MAX:
            raise BadInput(f"A choice has payload['options'], a list of 1 to {OPTIONS_MAX} texts.")
        if not all(isinstance(option, str) for option in options) or len(set(options)) < len(options):
            raise BadInput("The options of a choice are texts, no two of them the same.")
    if kind == "input":
        low, high = payload.get("min_length", 0), payload.get("max_length", TEXT_MAX)
        if not (_is_count(low) and _is_count(high) and low <= high <= TEXT_MAX):
            raise BadInput(f"min_length and max_length of an input are whole numbers from 0 to {TEXT_MAX:,}, in order.")
    if kind == "upload":
        most = payload.get("max_files", FILES_MAX)
        if not (_is_count(most) and 1 <= most <= FILES_MAX):
            raise BadInput(f"max_files of an upload is a whole number from 1 to {FILES_MAX}.")
    if kind == "reauth":
        name = payload.get("secret", "-")
        if not isinstance(name, str) or not 0 < len(name.strip()) <= len(name) <= SECRET_NAME_CHARS_MAX or "]" in name:
            raise BadInput(
                f"secret of a reauth is the name of one: 1 to {SECRET_NAME_CHARS_MAX} characters without `]`."
            )
        if not name.isprintable():
            raise BadInput("secret of a reauth is the name of one, in printable characters.")
    if kind == "apply_changes":
        changes = payload.get("changes", [])
        if not isinstance(changes, list):
            raise BadInput("The changes to apply are a list.")


def check_resolution(
    kind: ActionType, payload: Mapping[str, Any], given: Mapping[str, Any], *, of_call: bool = False
) -> None:
    """Raises BadResolution for what is no answer to the question. of_call: it is the approval of a tool's call."""
    if kind == "custom":
        if len(msgspec.json.encode(given)) > CUSTOM_BYTES_MAX:
            raise BadResolution(f"An answer of this kind has at most {CUSTOM_BYTES_MAX:,} bytes.")
        return
    known = {"comment", *_FIELDS[kind], *(_OF_CALL if of_call else ())}
    unknown = sorted(str(name) for name in given if name not in known)
    if unknown:
        raise BadResolution(f"{unknown[0]!r} is no part of an answer to {kind}: it has {', '.join(sorted(known))}.")
    comment = given.get("comment", "")
    if not isinstance(comment, str) or len(comment) > COMMENT_MAX:
        raise BadResolution(f"A comment is a text of at most {COMMENT_MAX:,} characters.")
    _CHECKS[kind](payload, given)


def _check_yes(payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if not isinstance(given.get("approved"), bool):
        raise BadResolution("The answer is approved: true or false.")
    arguments, always = given.get("arguments"), given.get("always")
    if arguments is not None and not isinstance(arguments, dict):
        raise BadResolution("The arguments to run instead are an object.")
    if always not in (None, "exact", "class"):
        raise BadResolution(f"always is exact or class, not {always!r}.")
    if not given["approved"] and (arguments is not None or always is not None):
        raise BadResolution("What is denied has no other arguments, and no leave for calls to come.")


def _check_choice(payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    options: list[str] = payload["options"]
    several = payload.get("multiple") is True
    name = "choices" if several else "choice"
    chosen = given.get(name)
    if several and isinstance(chosen, list):
        picked: list[Any] = chosen
    elif not several and isinstance(chosen, str):
        picked = [chosen]
    else:
        raise BadResolution(f"The answer is {name}: {'a list of options' if several else 'one of the options'}.")
    if len(given.keys() & {"choice", "choices"}) > 1:
        raise BadResolution(f"The answer is {name}, and nothing else.")
    for option in picked:
        if option not in options:
            raise BadResolution(f"{option!r} is not among the options: {', '.join(options)}.")
    if len(set(picked)) < len(picked):
        raise BadResolution("An option is chosen once.")


def _check_text(payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    text = given.get("text")
    low, high = payload.get("min_length", 0), payload.get("max_length", TEXT_MAX)
    if not isinstance(text, str) or not low <= len(text) <= high:
        raise BadResolution(f"The answer is text: {low:,} to {high:,} characters.")


def _check_files(payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    files, most = given.get("files"), payload.get("max_files", FILES_MAX)
    if not isinstance(files, list) or not 1 <= len(files) <= most:
        raise BadResolution(f"The answer is files: a list of 1 to {most}.")
    for each in files:
        fits = isinstance(each, dict) and isinstance(each.get("name"), str) and each["name"]
        if not fits or not any(isinstance(each.get(where), str) for where in ("data", "url", "path", "file_id")):
            raise BadResolution("A file has a name, and one of data, url, path and file_id.")
    held = sum(_bytes_of(each["name"], each["data"]) for each in files if "data" in each)
    if held > FILES_BYTES_MAX:
        raise BadResolution(f"The files have {held:,} bytes together; at most {FILES_BYTES_MAX:,} are kept.")


def _bytes_of(name: str, data: object) -> int:
    """How many bytes stand in a file's data."""
    try:
        if not isinstance(data, str):
            raise ValueError
        return len(base64.b64decode(data, validate=True))
    except ValueError:
        said = "A known secret that stood in it was taken out." if "[secret:" in str(data) else "It is no base64."
        raise BadResolution(f"The data of the file {name[:60]!a} cannot be read. {said}") from None


def _check_login(payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if not isinstance(given.get("authenticated"), bool):
        raise BadResolution("The answer is authenticated: true or false. A password is never an answer.")
    if "secret" in given and (given["secret"] != payload.get("secret") or not given["authenticated"]):
        raise BadResolution(
            "secret names what was handed over, as the question names it; the value is never an answer."
        )


def _check_changes(payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if not isinstance(given.get("approved"), bool):
        raise BadResolution("The answer is approved: true or false.")
    changes, many = given.get("changes"), len(payload.get("changes", []))
    if changes is None:
        return
    if not given["approved"] or not isinstance(changes, list):
        raise BadResolution("changes is a list of the numbers of those that are approved.")
    if not all(_is_count(each) and each < many for each in changes) or len(set(changes)) < len(changes):
        raise BadResolution(f"changes are different whole numbers from 0 to {many - 1}.")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_Check = Callable[[Mapping[str, Any], Mapping[str, Any]], None]

_CHECKS: dict[ActionType, _Check] = {
    "confirm": _check_yes,
    "approval": _check_yes,
    "choose": _check_choice,
    "input": _check_text,
    "upload": _check_files,
    "reauth": _check_login,
    "apply_changes": _check_changes,
}
_FIELDS: dict[ActionType, tuple[str, ...]] = {
    "confirm": ("approved",),
    "approval": ("approved",),
    "choose": ("choice", "choices"),
    "input": ("text",),
    "upload": ("files",),
    "reauth": ("authenticated", "secret"),
    "apply_changes": ("approved", "changes"),
}
_OF_CALL = ("arguments", "always")


# -- evolve --


def evolve(state: State, event: Event, stamp: Stamp) -> State:
    become = _EVOLVE.get(type(event))
    if become is None:
        return state
    changed: State = become(state, event, stamp)
    return changed


def _on_required(state: State, event: ActionRequired, stamp: Stamp) -> State:
    asked = Asked(
        id=event.action,
        kind=event.kind,
        payload=event.payload,
        asked_at=stamp.at,
        expires_at=stamp.at + event.timeout_ms * 1000,
        job_id=event.job_id,
        tool=event.tool,
        reason=event.reason,
        metadata=event.metadata,
        digest=event.digest,
        token=event.token,
        key=event.key,
    )
    return replace(state, count=state.count + 1, pending=(*state.pending, asked))


def _on_resolved(state: State, event: ActionResolved, stamp: Stamp) -> State:
    return _end(state, event.action, stamp, status="resolved", resolution=event.resolution, by=event.by)


def _on_expired(state: State, event: ActionExpired, stamp: Stamp) -> State:
    return _end(state, event.action, stamp, status="expired")


def _on_cancelled(state: State, event: ActionCancelled, stamp: Stamp) -> State:
    return _end(state, event.action, stamp, status="cancelled", by=event.by)


def _end(state: State, action: str, stamp: Stamp, **how: Any) -> State:
    asked = next((each for each in state.pending if each.id == action), None)
    if asked is None:
        return state
    pending = tuple(each for each in state.pending if each.id != action)
    if asked.job_id is None or asked.job_id != state.job_id:
        return replace(state, pending=pending)
    return replace(state, pending=pending, over=(*state.over, replace(asked, ended_at=stamp.at, **how)))


def _on_token(state: State, event: ActionTokenIssued, stamp: Stamp) -> State:
    pending = tuple(replace(each, token=event.token) if each.id == event.action else each for each in state.pending)
    return replace(state, pending=pending)


def _on_started(state: State, event: JobStarted, stamp: Stamp) -> State:
    return replace(state, job_id=event.job_id, stopping=False, over=())


def _on_stopping(state: State, event: JobStopping, stamp: Stamp) -> State:
    return replace(state, stopping=True)


def _on_over(state: State, event: JobEnded, stamp: Stamp) -> State:
    return replace(state, job_id=None, stopping=False, over=()) if event.job_id == state.job_id else state


def _on_created(state: State, event: SessionCreated, stamp: Stamp) -> State:
    return replace(state, session_id=event.session_id)


def _on_closed(state: State, event: SessionClosed, stamp: Stamp) -> State:
    return replace(state, closed=True)


_EVOLVE: dict[type, Any] = {
    ActionRequired: _on_required,
    ActionResolved: _on_resolved,
    ActionExpired: _on_expired,
    ActionCancelled: _on_cancelled,
    ActionTokenIssued: _on_token,
    JobStarted: _on_started,
    JobStopping: _on_stopping,
    JobSucceeded: _on_over,
    JobFailed: _on_over,
    JobCancelled: _on_over,
    JobTimedOut: _on_over,
    SessionCreated: _on_created,
    SessionClosed: _on_closed,
}


def owed(state: State) -> Sequence[Effect]:
    if not state.pending:
        return ()
    # One at a time, as with the deadlines of jobs: when it has come, the next is owed.
    first = min(state.pending, key=lambda each: each.expires_at)
    return [
        ExpireActionAt(id=f"expire-{first.id}", action=first.id, at=first.expires_at, asked_at=first.asked_at),
    ]


def recall(asked: str, events: Sequence[Event]) -> Command | None:
    first = events[0]
    match asked, first:
        case "require_action", ActionRequired():
            return RequireAction(
                kind=first.kind,
                timeout_ms=first.timeout_ms,
                payload=first.payload,
                job_id=first.job_id,
                tool=first.tool,
                metadata=first.metadata,
                token=first.token,
                key=first.key,
            )
        case "resolve_action", ActionResolved():
            return ResolveAction(
                action=first.action,
                resolution=first.resolution,
                at=first.at,
                by=first.by,
                digest=first.digest,
                token=first.token,
            )
        case "resolve_action", ActionExpired():
            return ResolveAction(action=first.action, resolution={}, at=first.at, by=first.by)
        case "expire_action", ActionExpired():
            return ExpireAction(action=first.action)
        case "cancel_action", ActionCancelled():
            return CancelAction(action=first.action, reason=first.reason, by=first.by, cancel_job=first.cancel_job)
        case "issue_token", ActionTokenIssued():
            return IssueToken(action=first.action, token=first.token)
    return None


ACTION = Decider("action", State(), decide, evolve, owed, recall)
