"""Questions to people, in the words of an action manager: specs, records, tokens. A face over the log.

    manager = ActionManager(runtime)
    action = await manager.require_action(ActionSpec(job_id=job_id, type="confirm", payload={"message": "Deploy?"}))
    action = await manager.wait_for_resolution(action.action_id)
    if action.resolution["approved"]: ...

Inside an async tool `context.actions` is such a manager, bound to the call: what it asks belongs to the call's job, the
job waits, and the same question asked again after a crash is the same action with the same answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..adapters.tools.context import Waiting
from ..events.action import IssueToken, RequireAction
from ..events.errors import BadInput, Closed, NotFound, ReenactError
from ..events.message import digest, show_digest
from ..events.shape import convert
from ..given import check_json, check_wait
from ..projections.actions import Action
from .asking import new_token, parts_of, token_digest

if TYPE_CHECKING:
    from ..runtime import Runtime

TIMEOUT_S = 300.0
"""How long a question waits for its answer unless its spec says otherwise."""

PAYLOAD_BYTES_MAX = 1024 * 1024
"""Most bytes of a question's payload, and of its metadata."""

ANSWER_BYTES_MAX = 12 * 1024 * 1024
"""Most bytes of an answer: the files of an upload as text, and a little."""

_ENDS = ("action_resolved", "action_expired", "action_cancelled")


class ActionStatus(StrEnum):
    PENDING = "pending"
    RESOLVED = "resolved"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class ActionType(StrEnum):
    CONFIRM = "confirm"
    CHOOSE = "choose"
    INPUT = "input"
    UPLOAD = "upload"
    REAUTH = "reauth"
    APPLY_CHANGES = "apply_changes"
    APPROVAL = "approval"
    CUSTOM = "custom"


class ActionRequiredError(ReenactError):
    """A person's answer is needed, and there is none."""

    code = "action_required"

    def __init__(self, message: str | None = None, action: ActionRecord | None = None) -> None:
        super().__init__(message)
        self.action = action


class ActionExpiredError(ActionRequiredError, TimeoutError):
    """Nobody answered in time."""

    code = "action_expired"


class ActionSpec(Struct, frozen=True, kw_only=True, rename="camel"):
    """A question to be put. job_id: the running job it belongs to. payload: what fits the type (`options` of choose,
    `min_length` and `max_length` of input, `max_files` of upload, `changes` of apply_changes; `message` for people).

    session_id: of the job, where it is known; else it is looked for. key: the same key within a job is the same action.
    """

    type: str
    job_id: str | None = None
    payload: dict[str, Any] = {}
    timeout_seconds: float = TIMEOUT_S
    metadata: dict[str, Any] | None = None
    session_id: str | None = None
    key: str | None = None


class ActionFilter(Struct, frozen=True, kw_only=True, rename="camel"):
    """What is looked for: all that is given must hold. limit: at most so many, the oldest first. Raises BadInput for a
    status or a type that there is not.
    """

    job_id: str | None = None
    session_id: str | None = None
    status: str | None = None
    type: str | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        for field, kind in (("status", ActionStatus), ("type", ActionType)):
            given = getattr(self, field)
            if given is not None and given not in list(kind):
                raise BadInput(f"{field} must be one of {', '.join(kind)}, not {ascii(given)[:60]}.")
        for field in ("job_id", "session_id"):
            if not isinstance(getattr(self, field), str | None):
                raise BadInput(f"{field} must be a text, not {ascii(getattr(self, field))[:60]}.")
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 0:
            raise BadInput(f"limit must be a whole number from 0, not {ascii(self.limit)[:60]}.")


class ActionRecord(Struct, frozen=True, kw_only=True, rename="camel", dict=True):
    """One question and how it stands. Never changes: what happens to it gives another record.

    action_id: `<session>:<action>`. expires_at, created_at, resolved_at: seconds since 1970-01-01 UTC. resume_token:
    only with whoever required it, and in no log: `resolve(resume_token=...)` answers the question with it, once. A
    record that is encoded, copied or pickled is without it.
    """

    action_id: str
    type: ActionType
    expires_at: float
    job_id: str | None = None
    payload: dict[str, Any] = {}
    status: ActionStatus = ActionStatus.PENDING
    resume_token: str | None = None
    metadata: dict[str, Any] | None = None
    resolution: dict[str, Any] | None = None
    created_at: float = 0.0
    resolved_at: float | None = None
    by: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        token = _TOKEN.__get__(self)
        if token is not None:
            _TOKEN.__set__(self, None)  # what is no field is not encoded
            self.__dict__["_token"] = token

    def __repr__(self) -> str:
        token = "" if self.resume_token is None else ", resume_token=…"
        return f"ActionRecord({self.action_id!r}, {self.type.value}, {self.status.value}{token})"

    @property
    def is_expired(self) -> bool:
        """Whether its time is up, by this machine's clock."""
        return self.status is ActionStatus.EXPIRED or (
            self.status is ActionStatus.PENDING and time.time() >= self.expires_at
        )

    def resolve(self, resolution: Mapping[str, Any]) -> ActionRecord:
        """The record of a resolved action. It records nothing: see `ActionManager.resolve`."""
        return replace(self, status=ActionStatus.RESOLVED, resolution=dict(resolution), resolved_at=time.time())

    def expire(self) -> ActionRecord:
        return replace(self, status=ActionStatus.EXPIRED, resolved_at=time.time())

    def cancel(self, reason: str = "cancelled") -> ActionRecord:
        return replace(self, status=ActionStatus.CANCELLED, reason=reason, resolved_at=time.time())


_TOKEN: Any = vars(ActionRecord)["resume_token"]
ActionRecord.resume_token = property(lambda record: vars(record).get("_token"))  # type: ignore[assignment]


class ActionManager:
    """The questions of a runtime. Bound to a call where a tool is handed one: then those of its job, and no others."""

    def __init__(
        self, runtime: Runtime, *, call: tuple[str, str | None, str, str] | None = None, waiting: Waiting | None = None
    ) -> None:
        """call: session, job, call and idempotency key of the call it is bound to. waiting: told while it waits."""
        self._runtime = runtime
        self._call = call
        self._waiting = waiting
        self._asked: dict[str, int] = {}

    async def require_action(self, spec: ActionSpec | Mapping[str, Any]) -> ActionRecord:
        """Put a question to a person; its job waits for the answer. Returns it with a token that resolves it, once.

        Raises BadInput for a question that cannot be answered, or a job that does not run, and Full.
        """
        wanted = _spec(spec)
        if wanted.type == "reauth" and isinstance(name := wanted.payload.get("secret"), str):
            self._runtime._asking.check_own(name)
        session_id, job_id, tool, key = await self._belongs(wanted)
        token = new_token()
        hashed = token_digest(token)
        command = RequireAction(
            kind=str(wanted.type),  # type: ignore[arg-type]
            timeout_ms=_milliseconds(wanted.timeout_seconds),
            payload=_plain(wanted.payload, "payload"),
            job_id=job_id,
            tool=tool,
            metadata=None if wanted.metadata is None else _plain(wanted.metadata, "metadata"),
            token=hashed,
            key=key,
        )
        reply = await self._runtime._access.ask(f"session-{session_id}", command)
        asking = reply.states[2]
        known = (*asking.pending, *asking.over)
        asked = next((each for each in known if each.token == hashed), None)
        if asked is None:  # it was asked before: by this call, before its process died
            asked = next(each for each in known if each.key == key and each.job_id == job_id)
            if asked.status == "pending":
                issue = IssueToken(action=asked.id, token=hashed)
                await self._runtime._access.ask(f"session-{session_id}", issue)
        record = _record(await self._runtime.action(f"{session_id}:{asked.id}"))
        if tool is not None and self._login_is_gone(record):
            return await self.require_action(wanted)  # counted on: another question than that one
        if record.status is not ActionStatus.PENDING:
            return record
        self._runtime._vault.lend(record.action_id, token)
        return replace(record, resume_token=token)

    def _login_is_gone(self, record: ActionRecord) -> bool:
        """Whether a person logged in for a process that is no more: what they gave was in its memory alone."""
        name = (record.resolution or {}).get("secret")
        return name is not None and self._runtime._vault.get(name, scope=self._runtime.scope) is None

    async def _belongs(self, spec: ActionSpec) -> tuple[str, str | None, str | None, str | None]:
        """The session, the job, the call and the key of a question."""
        if self._call is not None:
            session_id, job_id, tool, base = self._call
            if spec.job_id not in (None, job_id):
                raise BadInput(f"A tool asks for its own job, {job_id}, and for no other.")
            said = spec.key, str(spec.type), spec.payload
            said = self._runtime._vault.hidden(said, self._runtime.scope)  # not even a digest of a secret is stored
            what = show_digest(digest(base.encode(), msgspec.json.encode(said)))
            times = self._asked[what] = self._asked.get(what, 0) + 1
            return session_id, job_id, tool, f"{what} {times}"
        if spec.session_id is not None:
            return spec.session_id, spec.job_id, None, spec.key
        if spec.job_id is None:
            raise BadInput("A question belongs to a job, or to a session: give job_id or session_id.")
        return await self._runtime.session_of(spec.job_id), spec.job_id, None, spec.key

    async def resolve(
        self, *, resolution: Mapping[str, Any], resume_token: str | None = None, action_id: str | None = None
    ) -> ActionRecord:
        """Answer a question, once, by its token or by its id. Raises as `Runtime.resolve_action`."""
        if (resume_token is None) == (action_id is None):
            raise BadInput("Give the resume_token of the action, or its action_id.")
        if action_id is None:
            assert resume_token is not None
            action_id = (await self._runtime.action_of_token(resume_token)).id
        plain = _plain(resolution, "resolution", ANSWER_BYTES_MAX)
        return _record(await self._runtime.resolve_action(action_id, plain, token=resume_token))

    async def cancel(self, action_id: str, reason: str = "cancelled", *, cancel_job: bool = False) -> ActionRecord:
        """Take a question back. Its job goes on, or ends with it where `cancel_job`."""
        await self._get(action_id)
        await self._runtime.cancel_action(action_id, reason=reason, cancel_job=cancel_job)
        return await self._get(action_id)

    async def wait_for_resolution(
        self,
        action_id: str,
        timeout: float | None = None,  # noqa: ASYNC109
        poll_interval: float | None = None,
    ) -> ActionRecord:
        """Wait until a question is answered, and return the resolved record.

        timeout: seconds from 0, default until it expires; when it is over the question is expired. poll_interval: not
        needed, nothing is polled. Raises ActionExpiredError (a TimeoutError) when nobody answered in time,
        ActionRequiredError when it was taken back, Closed when the runtime is closed first, and BadInput for a time
        that is none.
        """
        if timeout is not None:
            check_wait(timeout, "timeout")
        session_id, _ = wanted = parts_of(action_id)
        ends = self._runtime.stream(*_ENDS, filter=lambda event: (event.session_id, event.data.action) == wanted)
        with ends:
            record = await self._get(action_id)
            if record.status is ActionStatus.PENDING:
                with self._waiting or Waiting(), self._awaiting(session_id, action_id):
                    if self._call is not None:
                        await self._runtime._kernel.telling.look(session_id)
                    try:
                        if await asyncio.wait_for(anext(ends, None), timeout) is None:
                            raise Closed(f"The runtime was closed before {action_id} was answered; it still may be.")
                    except TimeoutError:
                        await self._runtime._asking.expire(action_id)
                record = await self._get(action_id)
        if record.status is ActionStatus.EXPIRED:
            raise ActionExpiredError(f"Nobody answered {action_id} in time.", record)
        if record.status is not ActionStatus.RESOLVED:
            raise ActionRequiredError(f"The question {action_id} was taken back.", record)
        return record

    @contextmanager
    def _awaiting(self, session_id: str, action_id: str) -> Iterator[None]:
        """While a tool's call waits for its own question, its run may say that it waits."""
        awaited = self._runtime._kernel.telling.awaited
        if self._call is None or self._call[0] != session_id:
            yield
            return
        awaited[action_id] += 1
        try:
            yield
        finally:
            awaited[action_id] -= 1
            if not awaited[action_id]:
                del awaited[action_id]

    async def get(self, action_id: str) -> ActionRecord | None:
        """One of them, None where there is none."""
        try:
            return await self._get(action_id)
        except NotFound:
            return None

    async def _get(self, action_id: str) -> ActionRecord:
        record = _record(await self._runtime.action(action_id))
        if not self._sees(parts_of(action_id)[0], record.job_id):
            raise NotFound(f"Job {record.job_id} is not the tool's own; it sees the questions of its own job.")
        return record

    def _sees(self, session_id: str, job_id: str | None) -> bool:
        """Whether a question is of the job that it is bound to, where it is bound to one."""
        return self._call is None or (session_id, job_id) == self._call[:2]

    async def list_pending(self, job_id: str | None = None) -> list[ActionRecord]:
        """Those that wait, oldest first: of one job, or of all that it sees."""
        return await self.list(ActionFilter(job_id=job_id, status="pending", limit=1_000_000))

    async def list(self, wanted: ActionFilter | None = None) -> list[ActionRecord]:
        """Those that pass the filter, oldest first."""
        wanted = ActionFilter() if wanted is None else wanted
        if not isinstance(wanted, ActionFilter):
            raise BadInput(f"What is looked for, an ActionFilter says, not {ascii(wanted)[:60]}.")
        session_id = wanted.session_id if self._call is None else self._call[0]
        if wanted.status == "pending":
            found = await self._runtime.actions(session_id)
        else:
            found = await self._runtime.all_actions(session_id)
        passed = [
            action
            for action in found
            if self._sees(action.session_id, action.job_id)
            and wanted.session_id in (None, action.session_id)
            and wanted.job_id in (None, action.job_id)
            and wanted.status in (None, action.status)
            and wanted.type in (None, action.type)
        ]
        return [_record(action) for action in passed[: wanted.limit]]


def _spec(given: ActionSpec | Mapping[str, Any]) -> ActionSpec:
    """Raises BadInput for a field there is not, or one of a wrong type."""
    names = dict(zip(ActionSpec.__struct_fields__, _WIRE, strict=True))
    if isinstance(given, ActionSpec):
        given = {name: getattr(given, name) for name in names}
    if not isinstance(given, Mapping):
        raise BadInput(f"A question is an ActionSpec or an object, not a value of type {type(given).__name__}.")
    for name in given:
        if name not in names and name not in _WIRE:
            near = get_close_matches(str(name), names, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(names)}."
            raise BadInput(f"A question has no field {str(name)[:60]!a}. {hint}")
    try:
        return convert({names.get(name, name): value for name, value in given.items()}, ActionSpec)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise BadInput(f"This is no question: {error}.") from None


_WIRE = ActionSpec.__struct_encode_fields__


def _plain(value: Mapping[str, Any], name: str, most: int = PAYLOAD_BYTES_MAX) -> dict[str, Any]:
    """As it can be stored. Raises BadInput."""
    check_json(value, name)
    try:
        stored = msgspec.json.encode(value)
        plain = msgspec.json.decode(stored, type=dict[str, Any])
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise BadInput(f"{name} cannot be stored: {error}.") from None
    if len(stored) > most:
        raise BadInput(f"{name} has {len(stored):,} bytes; at most {most:,} are kept.")
    return plain


def _milliseconds(seconds: object) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 10**9:
        raise BadInput(f"timeout_seconds must be above 0, not {ascii(seconds)[:60]}.")
    return max(1, round(seconds * 1000))


def _record(action: Action) -> ActionRecord:
    return ActionRecord(
        action_id=action.id,
        type=ActionType(action.type),
        status=ActionStatus(action.status),
        expires_at=action.expires_at / 1000,
        job_id=action.job_id,
        payload=action.payload,
        metadata=action.metadata,
        resolution=action.resolution,
        created_at=action.asked_at / 1000,
        resolved_at=None if action.ended_at is None else action.ended_at / 1000,
        by=action.by,
        reason=action.reason,
    )


__all__ = [
    "ActionExpiredError",
    "ActionFilter",
    "ActionManager",
    "ActionRecord",
    "ActionRequiredError",
    "ActionSpec",
    "ActionStatus",
    "ActionType",
]
