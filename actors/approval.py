"""What an approval covers, as a digest, and whether a call is still what was approved. Pure.

Covered is everything that decides what happens: which call of which session, the tool and its version, all its
arguments, its effect class and time limit, where and with what environment and walls it runs, the policy, and how long
the leave holds. Change one of them, and it is another digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from ..events.action import Grant
from ..events.agent import ToolChecked
from ..events.message import digest
from ..events.session import Definition
from ..events.tool import CallCheck, EffectClass, Place
from .policy import Rights

GRANTS_MAX = 1000
"""Most leaves for calls to come that a session keeps. Beyond it a person is asked each time."""


class Terms(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Everything that one approval is bound to. timeout_ms: how long the leave holds, from when it was asked for."""

    session: str
    action: str
    tool: str
    name: str
    version: str
    arguments: dict[str, Any]
    effect: EffectClass
    timeout_s: float
    place: Place
    policy: str
    timeout_ms: int


class Approval(Struct, frozen=True, gc=False):
    """What a person was asked of a call. asked_at, expires_at: microseconds UTC. digest: over what it is bound to.

    granted: it runs on a leave given before, in `action`.
    """

    action: str
    digest: str
    asked_at: int
    expires_at: int
    timeout_ms: int
    place: Place
    policy: str
    granted: bool = False


def terms_digest(terms: Terms) -> str:
    """Digest over all of it, whatever the order of keys."""
    return _show(msgspec.json.encode(terms, order="deterministic"))


def grant_digest(name: str, version: str, arguments: dict[str, Any] | None, place: Place, policy: str) -> str:
    """Digest over what must be the same for a call to run on a leave given before. arguments: None for any."""
    return _show(msgspec.json.encode((name, version, arguments, place, policy), order="deterministic"))


def _show(value: bytes) -> str:
    """In full: whoever writes the arguments could look for two with equal beginnings."""
    return "sha256:" + digest(b"reenact approval 1\0", value).hex()


def why_asked(definition: Definition | None, check: CallCheck | ToolChecked) -> str | None:
    """Why a person must be asked before this call runs, None where nobody must."""
    if definition is not None and definition.approval_required:
        return "agent"
    return "tool" if check.approval == "ask" else None


def granted(
    grants: tuple[Grant, ...],
    check: CallCheck,
    name: str,
    arguments: dict[str, Any],
    policy: str,
    principal: str,
    required: bool,
) -> Grant | None:
    """The leave given before that covers this call of a job of a principal's, None where there is none.

    required: whether a person must be asked before every call.
    """
    if not grants:
        return None
    place = check.place or Place()
    covered = {"exact": grant_digest(name, check.version, arguments, place, policy)}
    if check.effect == "read":
        covered["class"] = grant_digest(name, check.version, None, place, policy)
    theirs = (grant for grant in grants if grant.principal in (None, principal) and grant.required in (None, required))
    return next((grant for grant in theirs if grant.digest == covered.get(grant.kind)), None)


def what_changed(approved: Terms, now: ToolChecked, policy: str) -> str | None:
    """What of an approved call is otherwise by now, in words; None where all of it is as it was approved."""
    if now.problem is not None:
        return now.problem
    if now.version != approved.version:
        return "its tool is another version now"
    if now.effect != approved.effect or now.timeout_s != approved.timeout_s:
        return "its tool is declared otherwise now"
    if now.place != approved.place:
        return f"it would run in another place now{_variables(approved.place.env, now.place.env)}"
    return "the policy has changed" if policy != approved.policy else None


def _variables(before: dict[str, str], now: dict[str, str]) -> str:
    """Which variables say something else, by their names."""
    other = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return f": {', '.join(other)} is not what it was" if other else ""


def model_digest(session: str, action: str, job: str | None, model: str, policy: str) -> str:
    """Digest over what a person is asked of a model: whether this one may answer this job under these rules."""
    return _show(msgspec.json.encode(("model", session, action, job, model, policy), order="deterministic"))


def raise_digest(session: str, action: str, job: str | None, payload: Mapping[str, Any]) -> str:
    """Digest over what a person is asked of a limit: whether it may be raised by so much, for this job."""
    return _show(msgspec.json.encode(("raise", session, action, job, payload), order="deterministic"))


def policy_digest(rights: Rights | None) -> str:
    """Digest of the rules that hold now; empty where there are none."""
    if rights is None:
        return ""
    who = (rights.principal,) if rights.principal else ()
    return _show(msgspec.json.encode((rights.layers, rights.scope, *who), order="deterministic"))
