"""What the rules say of a tool or a model: one evaluator, for what is offered and for what is run. Pure.

Layers are laid over each other, outermost first. Each is asked everything it has to say, and the strictest answer of
all counts; so one more layer, or one more rule, can only take away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from fnmatch import translate
from functools import lru_cache
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from ..events.policy import ConstraintPolicy, ModelPolicy, Policy, PolicyDecision, PolicyRule, ToolPolicy

ALLOW, WARN, REQUIRE_APPROVAL, DENY = PolicyDecision
ASKING = Policy(
    name="approval_required", rules=(ToolPolicy(tool_patterns=("*",), decision=REQUIRE_APPROVAL, name="every tool"),)
)
"""The layer under which a person is asked before every call of a tool."""

SHUT = {DENY, REQUIRE_APPROVAL}
"""Decisions under which nothing begins by itself."""

VERDICTS_MAX = 4096
"""How many names a set of rights remembers its verdict on."""

RIGHTS_MAX = 1024
"""How many different sets of rights are kept ready."""


class Verdict(Struct, frozen=True, gc=False):
    """What all layers say of one name. rule, reason, policy, version: of the strictest rule, the outermost of equals.

    applied: every rule that was about it, as `policy/rule`. violations: those that deny it, in words.
    tokens: most that a call of the model may be asked to write, None for no limit.
    """

    decision: PolicyDecision = ALLOW
    rule: str | None = None
    reason: str = ""
    policy: str = ""
    version: str = ""
    applied: tuple[str, ...] = ()
    violations: tuple[str, ...] = ()
    tokens: int | None = None


class Limits(Struct, frozen=True, gc=False):
    """The narrowest limits of all layers, each with the rule it comes from. None: there is none."""

    cost_per_request: tuple[Decimal, Said] | None = None
    tokens_per_request: tuple[int, Said] | None = None
    tool_calls_per_turn: tuple[int, Said] | None = None
    turns: tuple[int, Said] | None = None


class Said(Struct, frozen=True, gc=False):
    """One rule's word on one name."""

    decision: PolicyDecision
    rule: str
    reason: str
    policy: str
    version: str
    tokens: int | None = None


def denied_by(said: Said | Verdict) -> str:
    return f"Denied by policy {said.policy} (version {said.version})"


class Rights:
    """What layers of policy leave, in one scope, to one principal. Asked twice, it says the same at once.

    principal: empty where nobody knows who asks; then no rule that names some lets it pass.
    """

    __slots__ = ("_handed_on", "_layers", "_models", "_tools", "layers", "limits", "principal", "scope")

    def __init__(self, layers: Sequence[Policy], scope: str, principal: str = "") -> None:
        self.layers = tuple(layers)
        self.scope = scope
        self.principal = principal if asks_who(layers) else ""
        self.limits = _limits(self.layers)
        self._layers = [_Layer(layer) for layer in self.layers]
        self._tools: dict[str, Verdict] = {}
        self._models: dict[str, Verdict] = {}
        self._handed_on: tuple[Policy, ...] | None = None

    @property
    def handed_on(self) -> tuple[Policy, ...]:
        """Its layers for a job that is sent from under them: they leave no more to it, in whatever scope it is and
        whoever sends it, than they leave here."""
        if self._handed_on is None:
            own = self.scope, self.principal
            layers = (replace(each, rules=tuple(_said_here(rule, *own) for rule in each.rules)) for each in self.layers)
            self._handed_on = tuple(dict.fromkeys(layers))
        return self._handed_on

    def tool(self, name: str) -> Verdict:
        """Whether a tool of this name may be run, and so whether it is offered."""
        verdict = self._tools.get(name)
        if verdict is None:
            folded = name.casefold()
            who = self.scope, self.principal
            verdict = _verdict([said for layer in self._layers for said in layer.of_tool(name, folded, *who)])
            _keep(self._tools, name, verdict)
        return verdict

    def model(self, name: str) -> Verdict:
        """Whether a model, `provider:name`, may be called, and for how many tokens at most."""
        verdict = self._models.get(name)
        if verdict is None:
            folded = name.casefold()
            said = [said for layer in self._layers for said in layer.of_model(name, folded, self.scope)]
            verdict = _verdict(said, self.limits.tokens_per_request)
            _keep(self._models, name, verdict)
        return verdict

    def offers(self, name: str) -> bool:
        """Whether a tool is listed to a model: exactly when the first call of a turn would not be denied if it were one
        of it. What a turn has used up stays listed: providers cache the list, and some refuse results without it."""
        limit = self.limits.tool_calls_per_turn
        return self.tool(name).decision is not DENY and (limit is None or limit[0] > 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rights) and self._whole == other._whole

    @property
    def _whole(self) -> tuple[object, ...]:
        return self.layers, self.scope, self.principal

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Rights({', '.join(layer.name for layer in self.layers)}; scope {self.scope})"


@lru_cache(RIGHTS_MAX)
def rights_of(layers: tuple[Policy, ...], scope: str, principal: str = "") -> Rights:
    """The rights under these layers, the same object for the same layers: whoever asks shares what it remembers."""
    return Rights(layers, scope, principal)


def only_tools(names: Iterable[str]) -> Policy:
    """The layer that allows these tools, by their own names, and no others."""
    allowed = tuple(names)
    return Policy(name="tools", allow=allowed) if allowed else Policy(name="tools", deny=("*",))


def _said_here(rule: PolicyRule, scope: str, principal: str) -> PolicyRule:
    """A rule as it is in this scope for this principal, and then in every scope. Who is named in it must be it too."""
    if isinstance(rule, ConstraintPolicy):
        return rule
    who = rule.allowed_principals if isinstance(rule, ToolPolicy) else None
    scopes = rule.allowed_scopes
    if who is not None and principal not in who:
        return replace(rule, decision=DENY, allowed_scopes=None, allowed_principals=None)
    if scopes is None:
        return rule
    if scope not in scopes:
        rule = replace(rule, decision=DENY, allowed_scopes=None)
        return rule if who is None else replace(rule, allowed_principals=None)
    decision = ALLOW if rule.decision is DENY and who is None else rule.decision
    return replace(rule, decision=decision, allowed_scopes=None)


def asks_who(layers: Iterable[Policy]) -> bool:
    """Whether a rule of these layers depends on who sent a job."""
    return any(
        isinstance(rule, ToolPolicy) and rule.allowed_principals is not None for layer in layers for rule in layer.rules
    )


# -- one layer --


class _Names:
    """A list of patterns, folded."""

    __slots__ = ("_exact", "_globs")

    def __init__(self, patterns: Iterable[str]) -> None:
        folded = [pattern.casefold() for pattern in patterns]
        self._exact = frozenset(folded)
        self._globs = [re.compile(translate(pattern)) for pattern in folded if set(pattern) & set("*?[")]

    def match(self, *names: str) -> bool:
        return any(name in self._exact or any(glob.match(name) for glob in self._globs) for name in names)


class _Layer:
    """A policy made ready to be asked. One whose profile was never written out offers nothing."""

    __slots__ = ("allow", "deny", "models", "policy", "profile", "tools")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.profile = None if policy.profile is None else _Names(policy.profile_tools or ())
        self.allow = None if policy.allow is None else _Names(policy.allow)
        self.deny = _Names(policy.deny)
        self.tools: list[tuple[str, ToolPolicy, _Names]] = []
        self.models: list[tuple[str, ModelPolicy, _Names]] = []
        for number, rule in enumerate(policy.rules, start=1):
            name = rule.name or f"rule {number}"
            if isinstance(rule, ToolPolicy):
                self.tools.append((name, rule, _Names(rule.tool_patterns)))
            elif isinstance(rule, ModelPolicy):
                self.models.append((name, rule, _Names(rule.model_patterns)))

    def of_tool(self, name: str, folded: str, scope: str, principal: str) -> Iterator[Said]:
        """Everything it says of a tool."""
        if self.profile is not None and not self.profile.match(folded):
            yield self._says(DENY, "profile", f"{name} is not in the profile {self.policy.profile}")
        if self.allow is not None and not self.allow.match(folded):
            yield self._says(DENY, "allow", f"{name} is not among the tools that are allowed")
        if self.deny.match(folded):
            yield self._says(DENY, "deny", f"{name} is among the tools that are denied")
        for called, rule, names in self.tools:
            if names.match(folded):
                yield self._ruled(called, rule, rule.decision, name, scope, principal)

    def of_model(self, name: str, folded: str, scope: str) -> Iterator[Said]:
        """Everything it says of a model. Patterns may name it without its provider; spaces around are nothing."""
        provider, colon, bare = (part.strip() for part in folded.partition(":"))
        folded, bare = f"{provider}{colon}{bare}", bare or provider
        for called, rule, names in self.models:
            if names.match(folded, bare):
                decision = rule.decision
                if rule.require_approval and decision.rank < REQUIRE_APPROVAL.rank:
                    decision = REQUIRE_APPROVAL
                yield self._ruled(called, rule, decision, name, scope)

    def _ruled(
        self,
        called: str,
        rule: ToolPolicy | ModelPolicy,
        decision: PolicyDecision,
        name: str,
        scope: str,
        principal: str = "",
    ) -> Said:
        reason = rule.reason
        who = rule.allowed_principals if isinstance(rule, ToolPolicy) else None
        if who is not None and principal not in who:
            decision, reason = DENY, reason or f"{name} is not allowed to whoever sent this"
        elif rule.allowed_scopes is not None and scope not in rule.allowed_scopes:
            decision, reason = DENY, reason or f"{name} is not allowed in this scope"
        elif (rule.allowed_scopes is not None or who is not None) and decision is DENY:
            decision = REQUIRE_APPROVAL if isinstance(rule, ModelPolicy) and rule.require_approval else ALLOW
        tokens = rule.max_tokens_per_request if isinstance(rule, ModelPolicy) else None
        return self._says(decision, called, reason or _USUAL[decision].format(name), tokens)

    def _says(self, decision: PolicyDecision, rule: str, reason: str, tokens: int | None = None) -> Said:
        return Said(decision, rule, reason, self.policy.name, self.policy.version, tokens)


_USUAL = {
    ALLOW: "{} is allowed",
    WARN: "{} is allowed with a warning",
    REQUIRE_APPROVAL: "{} needs the approval of a person",
    DENY: "{} is denied",
}


def _verdict(said: Sequence[Said], tokens: tuple[int, Said] | None = None) -> Verdict:
    """The strictest word; of several, that of the outermost layer."""
    caps = [each.tokens for each in said if each.tokens is not None] + ([] if tokens is None else [tokens[0]])
    cap = min(caps, default=None)
    if not said:
        return Verdict(tokens=cap)
    first = max(said, key=lambda each: each.decision.rank)
    return Verdict(
        first.decision,
        first.rule,
        first.reason,
        first.policy,
        first.version,
        tuple(dict.fromkeys(f"{each.policy}/{each.rule}" for each in said)),
        tuple(f"{each.policy}/{each.rule}: {each.reason}" for each in said if each.decision is DENY),
        cap,
    )


def _limits(layers: Sequence[Policy]) -> Limits:
    found: list[tuple[ConstraintPolicy, str, Policy]] = []
    for layer in layers:
        if layer.max_tool_calls_per_turn is not None:
            own = ConstraintPolicy(max_tool_calls_per_turn=layer.max_tool_calls_per_turn)
            found.append((own, "max_tool_calls_per_turn", layer))
        for number, rule in enumerate(layer.rules, start=1):
            if isinstance(rule, ConstraintPolicy):
                found.append((rule, rule.name or f"rule {number}", layer))

    def least(field: str, words: str) -> tuple[Any, Said] | None:
        limits = [
            (limit, rule, name, layer) for rule, name, layer in found if (limit := getattr(rule, field)) is not None
        ]
        if not limits:
            return None
        limit, rule, name, layer = min(limits, key=lambda each: each[0])
        reason = rule.reason or words.format(limit)
        return limit, Said(DENY, name, reason, layer.name, layer.version)

    return Limits(
        least("max_cost_per_request", "a call of a model may cost at most {} dollars"),
        least("max_tokens_per_request", "a call of a model may ask for at most {} tokens"),
        least("max_tool_calls_per_turn", "at most {} calls of tools are allowed in a turn"),
        least("max_turns", "at most {} turns are allowed in a session"),
    )


_Kept = TypeVar("_Kept")


def _keep(memory: dict[str, _Kept], name: str, value: _Kept) -> None:
    if len(memory) >= VERDICTS_MAX:  # names come from models
        memory.clear()
    memory[name] = value
