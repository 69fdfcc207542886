"""The words of policy: the rules that say which tools, models and amounts are allowed, and what they said of a call.

Rules are plain data that travels in commands and is recorded in events, never text that a model reads. Every rule can
only take away: of all that apply the strictest decision counts, and what no rule is about is allowed. A policy is one
layer of rules; several are laid over each other, and none can give back what another took.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, ClassVar

from msgspec import Struct
from msgspec.structs import force_setattr

from .budget import Terms
from .errors import BadInput
from .frozen import frozen
from .message import Command, Event
from .visible import shown

PATTERNS_MAX = 1000
"""Most patterns of one list, and most rules of one policy."""

NAME_CHARS_MAX = 256


class PolicyDecision(StrEnum):
    """What a rule decides, mildest first: it may, it may and somebody should know, a person must say, it may not."""

    ALLOW = "allow"
    WARN = "warn"
    REQUIRE_APPROVAL = "require_approval"
    DENY = "deny"

    @property
    def rank(self) -> int:
        """How strict it is: 0 to 3."""
        return _RANKS[self]


_RANKS = {decision: rank for rank, decision in enumerate(PolicyDecision)}


def worst(decisions: Iterable[PolicyDecision]) -> PolicyDecision:
    """The strictest of them; of none, that it may."""
    return max(decisions, key=_RANKS.__getitem__, default=PolicyDecision.ALLOW)


# A rule is made by programs, read from files and decoded from logs; __post_init__ checks it on every way. What it once
# let through stands in logs: it may be taught to accept more, never to refuse more.


class ToolPolicy(Struct, frozen=True, kw_only=True, rename="camel", gc=False, tag_field="kind", tag="tool"):
    """A rule about tools.

    tool_patterns: globs over names (`file_*`), whatever their case. decision: for the tools they match.
    allowed_scopes: the only scopes that may use them at all; there the decision counts, any other scope is denied.
    A rule that denies spares the scopes it names. None: it is the same in every scope. allowed_principals: the only
    principals whose jobs may use them at all, likewise (a tool for the owner alone); an agent that sends a job is none
    of them unless it is named. reason: told to people and to the model. name: what it is called where its decisions are
    recorded.
    """

    tool_patterns: tuple[str, ...]
    decision: PolicyDecision = PolicyDecision.ALLOW
    reason: str | None = None
    allowed_scopes: tuple[str, ...] | None = None
    name: str | None = None
    allowed_principals: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _set(self, "tool_patterns", _patterns(self.tool_patterns, "tool_patterns"))
        if self.allowed_principals is not None:
            hint = 'To forbid it to everybody, write decision = "deny".'
            _set(self, "allowed_principals", _patterns(self.allowed_principals, "allowed_principals", hint=hint))
        _set_rule(self)


class ModelPolicy(Struct, frozen=True, kw_only=True, rename="camel", gc=False, tag_field="kind", tag="model"):
    """A rule about models.

    model_patterns: globs over `provider:name` and over the name alone. decision, allowed_scopes: as with tools.
    require_approval: the same as the decision of that name, unless the decision is stricter. max_tokens_per_request:
    most tokens that one call of such a model may be asked to write.
    """

    model_patterns: tuple[str, ...]
    decision: PolicyDecision = PolicyDecision.ALLOW
    require_approval: bool = False
    max_tokens_per_request: int | None = None
    allowed_scopes: tuple[str, ...] | None = None
    reason: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _set(self, "model_patterns", _patterns(self.model_patterns, "model_patterns"))
        _limit(self, "max_tokens_per_request", least=1)
        _check_bool(self.require_approval, "require_approval")
        _set_rule(self)


class ConstraintPolicy(Struct, frozen=True, kw_only=True, rename="camel", gc=False, tag_field="kind", tag="constraint"):
    """Limits, whatever the tool or the model. None: none.

    A request is one call of a model. max_cost_per_request: US dollars, exact. max_tokens_per_request: most tokens that
    a call may be asked to write. max_tool_calls_per_turn: counted as the model asks for them. max_turns: of a session.
    """

    max_cost_per_request: Decimal | None = None
    max_tokens_per_request: int | None = None
    max_tool_calls_per_turn: int | None = None
    max_turns: int | None = None
    reason: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _set(self, "max_cost_per_request", _money(self.max_cost_per_request, "max_cost_per_request"))
        _limit(self, "max_tokens_per_request", least=1)
        _limit(self, "max_tool_calls_per_turn")
        _limit(self, "max_turns")
        _check_text(self.name, "name")
        _check_reason(self.reason)


PolicyRule = ToolPolicy | ModelPolicy | ConstraintPolicy


class Profile(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A set of tools under a name, for a policy to begin from. tools: names, globs and groups (`group:fs`)."""

    name: str
    tools: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_text(self.name, "name", needed=True)
        _set(self, "tools", _patterns(self.tools, f"profile {self.name}"))


class Policy(Struct, frozen=True, kw_only=True, rename="camel", gc=False, cache_hash=True):
    """One layer of rules. All of it must let a call pass: the profile, the lists, every rule, every limit.

    name, version: how denials refer to it. profile: only the tools of this profile, and those of `also_allow`.
    allow: only these. deny: none of these. All three hold names, globs and groups. profiles: the policy's own, usable
    in it and in every layer under it. max_tool_calls_per_turn: as in `ConstraintPolicy`. strict: a name that no tool
    has is an error, not a warning.

    profile_tools: what the profile allows, written out when the policy is put to use; what decides is recorded whole.
    """

    name: str = "policy"
    version: str = "1"
    rules: tuple[PolicyRule, ...] = ()
    profile: str | None = None
    allow: tuple[str, ...] | None = None
    also_allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    max_tool_calls_per_turn: int | None = None
    strict: bool = False
    profiles: tuple[Profile, ...] = ()
    profile_tools: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.version, int) and not isinstance(self.version, bool):
            _set(self, "version", str(self.version))
        for field in ("name", "version", "profile"):
            _check_text(getattr(self, field), field, needed=field != "profile")
        _set(self, "rules", _several(self.rules, "rules", (ToolPolicy, ModelPolicy, ConstraintPolicy)))
        _set(self, "profiles", _several(self.profiles, "profiles", (Profile,)))
        if self.allow is not None:
            _set(self, "allow", _patterns(self.allow, "allow", hint='To forbid all tools, write deny = ["*"].'))
        for field in ("also_allow", "deny"):
            _set(self, field, _patterns(getattr(self, field), field, empty=True))
        if self.profile_tools is not None:
            _set(self, "profile_tools", _patterns(self.profile_tools, "profile_tools", empty=True))
        _limit(self, "max_tool_calls_per_turn")
        _check_bool(self.strict, "strict")


class PolicyRef(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A policy by its name, in its newest version unless one is named.

    overrides: narrow it for one use: fields of a policy (`deny`, `max_tool_calls_per_turn`, ...), or `allow_<group>`,
    which takes a group of tools away when it is False and gives nothing when it is True.
    """

    name: str
    version: str | None = None
    overrides: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        _check_text(self.name, "name", needed=True)
        _check_text(self.version, "version")
        if not isinstance(self.overrides, Mapping) or not all(isinstance(key, str) for key in self.overrides):
            raise BadInput(f"overrides: must be an object, fields by name, not {shown(self.overrides)}.")
        _set(self, "overrides", frozen(dict(self.overrides)))


class PolicyContext(Struct, frozen=True, kw_only=True, rename="camel"):
    """What is to be done, and by whom. None: nothing is known of it, and no rule about it is asked.

    turn: counts from 1 in the session. tool_calls: those of the turn before this one. requested_cost: US dollars.
    """

    scope_id: str = "default"
    principal_id: str | None = None
    tool_name: str | None = None
    model: str | None = None
    requested_tokens: int | None = None
    requested_cost: Decimal | None = None
    turn: int | None = None
    tool_calls: int | None = None
    policy_ref: PolicyRef | None = None
    metadata: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        _check_text(self.scope_id, "scope_id", needed=True)
        for field in ("principal_id", "tool_name", "model"):
            _check_text(getattr(self, field), field)
        for field in ("requested_tokens", "turn", "tool_calls"):
            _limit(self, field)
        _set(self, "requested_cost", _money(self.requested_cost, "requested_cost"))
        if self.policy_ref is not None and not isinstance(self.policy_ref, PolicyRef):
            raise BadInput(f"policy_ref: must be a PolicyRef, not {shown(self.policy_ref)}.")


class PolicyResult(Struct, frozen=True, kw_only=True, rename="camel"):
    """What the rules say. violations: every rule that is broken, in words. applied_rules: all that were about it."""

    decision: PolicyDecision = PolicyDecision.ALLOW
    reason: str = "All policies passed"
    violations: tuple[str, ...] = ()
    applied_rules: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = {}


# -- asked of an agent --


class ApplyPolicy(Command, frozen=True, kw_only=True):
    """From now on these rules hold for the agent, in the middle of a turn too. Asleep, or so already: nothing happens.

    policy: outermost first, with every name written out. terms: what it must know of money from now on, with the prices
    of all that it may call meanwhile. approval_required, approval_timeout_s: as its image says, None for as it is.
    """

    type: ClassVar[str] = "apply_policy"
    policy: tuple[Policy, ...]
    scope: str = "default"
    terms: Terms | None = None
    approval_required: bool | None = None
    approval_timeout_s: float | None = None


# -- true of a call that was denied, in its session's stream. Storage format: add, never change --


class ToolDenied(Event, frozen=True, kw_only=True):
    """A rule forbids the call; it was not run. attempt: which run of it, 1 unless it had begun before.

    policy, version: the layer that the rule stands in.
    """

    type: ClassVar[str] = "tool_denied"
    tool: str
    rule: str
    reason: str
    policy: str
    version: str
    attempt: int = 1


class ModelWarned(Event, frozen=True, kw_only=True):
    """A rule wants somebody to know that this model is called. Told once a turn, before `call`."""

    type: ClassVar[str] = "model_warned"
    call: str
    model: str
    rule: str
    reason: str
    policy: str
    version: str


class ModelDenied(Event, frozen=True, kw_only=True):
    """A rule forbids calling this model; it was not called. call, attempt: as in `ModelCalled`."""

    type: ClassVar[str] = "model_denied"
    category: ClassVar[str] = "error"
    call: str
    attempt: int
    model: str
    rule: str
    reason: str
    policy: str
    version: str


COMMANDS = (ApplyPolicy,)
EVENTS = (ToolDenied, ModelWarned, ModelDenied)


# -- checking --


_set = force_setattr

_NO_LISTS = (str, bytes, bytearray, memoryview, Mapping)
"""What can be gone through, and is no list of anything: a text is one name, and not its letters."""


def _set_rule(rule: ToolPolicy | ModelPolicy) -> None:
    try:
        _set(rule, "decision", PolicyDecision(rule.decision))
    except ValueError:
        known = ", ".join(PolicyDecision)
        raise BadInput(f"decision: {shown(rule.decision)} is none; they are {known}.") from None
    if rule.allowed_scopes is not None:
        hint = 'To forbid it in every scope, write decision = "deny".'
        _set(rule, "allowed_scopes", _patterns(rule.allowed_scopes, "allowed_scopes", hint=hint))
    _check_text(rule.name, "name")
    _check_reason(rule.reason)


def checked_names(given: object, field: str) -> tuple[str, ...]:
    """A list of names as a tuple, which may be empty. Raises BadInput, naming the field, for anything else."""
    return _patterns(given, field, empty=True)


def _patterns(given: object, field: str, *, empty: bool = False, hint: str = "") -> tuple[str, ...]:
    """A list of names as a tuple. An empty one is refused where it could be read as all or as nothing."""
    if isinstance(given, _NO_LISTS) or not isinstance(given, Iterable):
        raise BadInput(f"{field}: must be a list of names, not {shown(given)}.")
    patterns = tuple(given)
    if not patterns and not empty:
        raise BadInput(f"{field}: is empty. {hint or 'Name at least one.'}")
    if len(patterns) > PATTERNS_MAX:
        raise BadInput(f"{field}: has {len(patterns):,} entries; at most {PATTERNS_MAX:,} are read.")
    for pattern in patterns:
        _check_text(pattern, field, needed=True)
    return patterns


def _several(given: object, field: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    if isinstance(given, (*kinds, *_NO_LISTS)) or not isinstance(given, Iterable):
        raise BadInput(f"{field}: must be a list, not {shown(given)}.")
    each = tuple(given)
    if len(each) > PATTERNS_MAX:
        raise BadInput(f"{field}: has {len(each):,} entries; at most {PATTERNS_MAX:,} are read.")
    for one in each:
        if not isinstance(one, kinds):
            raise BadInput(f"{field}: {shown(one)} is no {' or '.join(kind.__name__ for kind in kinds)}.")
    return each


def _check_text(given: object, field: str, *, needed: bool = False) -> None:
    if given is None and not needed:
        return
    if not isinstance(given, str) or not given or given != given.strip() or not given.isprintable():
        raise BadInput(f"{field}: must be a name without spaces around it, not {shown(given)}.")
    if len(given) > NAME_CHARS_MAX:
        raise BadInput(f"{field}: has {len(given)} characters; at most {NAME_CHARS_MAX} are read.")


def _check_reason(given: object) -> None:
    if given is not None and (not isinstance(given, str) or _is_broken(given)):
        raise BadInput(f"reason: must be a text, not {shown(given)}.")


def _check_bool(given: object, field: str) -> None:
    if not isinstance(given, bool):
        raise BadInput(f"{field}: must be true or false, not {shown(given)}.")


def _is_broken(text: str) -> bool:
    """Whether it has half of a character in it, which no log takes."""
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


def _limit(rule: Struct, field: str, *, least: int = 0) -> None:
    given = getattr(rule, field)
    if given is not None and (isinstance(given, bool) or not isinstance(given, int) or not least <= given < 2**53):
        raise BadInput(f"{field}: must be a whole number from {least}, not {shown(given)}.")


def _money(given: object, field: str) -> Decimal | None:
    """An amount of US dollars, exactly as it was written."""
    if given is None:
        return None
    if isinstance(given, float) and not math.isfinite(given):
        raise BadInput(f"{field}: must be an amount of dollars, not {given}.")
    try:
        if isinstance(given, bool) or not isinstance(given, int | float | str | Decimal):
            raise InvalidOperation
        amount = Decimal(str(given))
    except InvalidOperation:
        raise BadInput(f"{field}: must be an amount of dollars, not {shown(given)}.") from None
    if not amount.is_finite() or not 0 <= amount <= 10**15:
        raise BadInput(f"{field}: must be an amount of dollars from 0, not {shown(given)}.")
    return amount
