"""The context of an execution: for whom it is done, within which trace, under which policy and budget, until when.

It comes from a caller's credential or from the program, never from what a caller sends.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any, Self

import msgspec
from msgspec import Struct, field
from msgspec.structs import force_setattr, replace

from ..events.budget import BudgetSpec, spec_of
from ..events.errors import BadInput, Cancelled
from ..events.frozen import frozen
from ..events.message import Context
from ..events.policy import PolicyRef
from ..events.shape import convert
from ..given import check_json, checked_text


class RunVersions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run was made with, for whoever compares it with another. None: not said."""

    runtime_version: str | None = None
    llm_client_version: str | None = None
    operator_version: str | None = None
    model_version: str | None = None
    schema_version: int = 1


class CancellationToken:
    """Says once, to all who hold it, that what is being done is not wanted any more. Any thread may use it."""

    def __init__(self) -> None:
        self._parent: CancellationToken | None = None
        self._lock = threading.RLock()  # one for all that are linked
        self._reason: str | None = None
        self._heard: dict[object, tuple[Callable[[], object], CancellationToken]] = {}
        """Whoever hears of this one or of one below it: what they do then, and which one they asked."""

    @property
    def cancelled(self) -> bool:
        return self.reason is not None

    @property
    def reason(self) -> str | None:
        """Why, as whoever cancelled it said; None where nobody did."""
        return next((token._reason for token in self._line() if token._reason is not None), None)

    def cancel(self, reason: str = "cancelled") -> None:
        """Cancel it and all that are linked to it. Again: nothing. A hearer that raises harms no other."""
        with self._lock:
            if self.cancelled:
                return
            self._reason = reason or "cancelled"
            heard = list(self._heard.items())
            for key, (_, asked) in heard:
                asked._drop(key)
        for _, (hear, _) in heard:
            _call(hear)

    def on_cancel(self, hear: Callable[[], object]) -> Callable[[], None]:
        """Call `hear` when it is cancelled, at once where it is, as whoever asks for that: a tool stays a tool. Gives
        what forgets it again.
        """
        return self._hears(partial(copy_context().run, hear))

    def _hears(self, hear: Callable[[], object]) -> Callable[[], None]:
        """The same for what reenact itself does: it is done as whoever cancels."""
        with self._lock:
            if not self.cancelled:
                key = object()
                for token in self._line():
                    token._heard[key] = hear, self
                return partial(self._forget, key)
        _call(hear)
        return lambda: None

    def linked(self) -> CancellationToken:
        """A token that is cancelled with this one, and may be by itself. It knows this one, which knows of it only what
        hears of it: it is gone when nobody has it.
        """
        token = CancellationToken()
        token._parent, token._lock = self, self._lock
        return token

    def check(self) -> None:
        """Raises Cancelled when it is."""
        if self.cancelled:
            raise Cancelled(f"It was cancelled: {self.reason}.")

    def _line(self) -> Iterator[CancellationToken]:
        """It and those it is linked to, the nearest first."""
        token: CancellationToken | None = self
        while token is not None:
            yield token
            token = token._parent

    def _forget(self, key: object) -> None:
        with self._lock:
            self._drop(key)

    def _drop(self, key: object) -> None:
        for token in self._line():
            token._heard.pop(key, None)

    def __repr__(self) -> str:
        return f"<CancellationToken{', cancelled' if self.cancelled else ''}>"


def _call(hear: Callable[[], object]) -> None:
    try:
        hear()
    except (Exception, CancelledError):  # the result of a task that was cancelled raises the latter
        import logging

        logging.getLogger("reenact").exception("a hearer of a cancellation raised")


class ExecutionContext(Struct, frozen=True, kw_only=True):
    """On whose behalf something is done, and as a part of what.

    scope_id: the tenant. principal_id: who acts. session_id, run_id, job_id: what it belongs to, None where it is
    nothing yet. trace_id, span_id, parent_span_id: 32 and 16 hex digits, or any text, which is hashed into such where
    they are needed. budgets: what each message may use that is sent on its behalf and names no budget of its own.
    policy_ref: the policy that each such message is held to beside, of the `PolicyEngine` that the runtime was given.
    metadata: JSON values. cancellation: no part of its value, neither compared nor encoded.

    A child has the same trace, its parent's span as parent, and a token linked to its parent's.
    """

    scope_id: str = "default"
    principal_id: str = "user"
    session_id: str | None = None
    run_id: str | None = None
    job_id: str | None = None
    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))
    parent_span_id: str | None = None
    budgets: BudgetSpec | None = None
    policy_ref: PolicyRef | None = None
    versions: RunVersions | None = None
    metadata: Mapping[str, Any] = {}
    cancellation: CancellationToken = field(default_factory=CancellationToken)

    def __post_init__(self) -> None:
        for name in _IDS:
            value = getattr(self, name)
            if value is not None or name in _NEEDED:
                checked_text(value, name)
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind) and (value is not None or name == "cancellation"):
                raise BadInput(f"{name} must be a {kind.__name__}, not {ascii(value)[:60]}.")
        check_json(self.metadata, "metadata")
        try:
            force_setattr(self, "metadata", frozen(msgspec.json.decode(msgspec.json.encode(self.metadata))))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise BadInput(f"metadata has no JSON form: {error}.") from None
        if not isinstance(self.metadata, dict):
            raise BadInput("metadata must be an object.")

    def child(self, *, new_span: bool = True, **changes: Any) -> Self:
        """One for what is done within this: the same trace; with a new span, this one's span is its parent."""
        if new_span:
            changes = {"span_id": secrets.token_hex(8), "parent_span_id": self.span_id, **changes}
        return replace(self, cancellation=self.cancellation.linked(), **changes)

    def with_job(self, job_id: str) -> Self:
        """The same, for a job."""
        return replace(self, job_id=job_id)

    def to_request_context(self) -> Context:
        """The envelope of a request over the bus on its behalf."""
        return Context(self.scope_id, self.principal_id, session_id=self.session_id)

    @property
    def traceparent(self) -> str:
        """The W3C header that carries the trace on; it stands in the envelope of every event that follows."""
        return f"00-{_hex(self.trace_id, 32)}-{_hex(self.span_id, 16)}-01"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the cancellation is left out."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__ if name != "cancellation"}
        return dict(msgspec.to_builtins(plain))

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """What `to_dict` gave, with a token of its own; `budgets` as `send` takes one. Raises BadInput, also for a word
        that nobody knows.

        It believes what it reads: never hand it what a caller sent.
        """
        if not isinstance(given, Mapping):
            raise BadInput(f"A context is an object, not a value of type {type(given).__name__}.")
        unknown = sorted(map(str, set(given) - set(cls.__struct_fields__)))
        if unknown or "cancellation" in given:
            raise BadInput(f"A context has no field {(unknown or ['cancellation'])[0][:60]!r} in this form.")
        values = dict(given)
        try:
            for name, kind in (("policy_ref", PolicyRef), ("versions", RunVersions)):
                if values.get(name) is not None:
                    values[name] = convert(values[name], kind, strict=False)
            values["budgets"] = spec_of(values.get("budgets"))
        except (ValueError, TypeError) as error:
            raise BadInput(f"The context cannot be read: {error}.") from None
        return cls(**values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExecutionContext):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _COMPARED)


_IDS = ("scope_id", "principal_id", "session_id", "run_id", "job_id", "trace_id", "span_id", "parent_span_id")
_KINDS = {"budgets": BudgetSpec, "policy_ref": PolicyRef, "versions": RunVersions, "cancellation": CancellationToken}
_NEEDED = ("scope_id", "principal_id", "trace_id", "span_id")
_COMPARED = tuple(name for name in ExecutionContext.__struct_fields__ if name != "cancellation")


def checked_context(given: object) -> ExecutionContext:
    """Raises BadInput for what is no context."""
    if not isinstance(given, ExecutionContext):
        raise BadInput(f"On whose behalf it is, an ExecutionContext says, not {ascii(given)[:60]}.")
    return given


def _hex(value: str, digits: int) -> str:
    if len(value) == digits and not set(value) - set("0123456789abcdef") and set(value) != {"0"}:
        return value
    return hashlib.sha256(value.encode()).hexdigest()[:digits]


__all__ = ["CancellationToken", "ExecutionContext", "RunVersions"]
