"""The policy engine: rules gathered one by one, asked about a tool, a model, an amount, or all at once. Pure.

It decides with the evaluator that agents are held to, and answers for the rules that it has now: what would happen in a
runtime that takes them now. One that took them before, or was given others since, is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import fields, replace

from ..events.errors import BadInput, NotFound, PolicyDenied
from ..events.policy import (
    Policy,
    PolicyContext,
    PolicyDecision,
    PolicyRef,
    PolicyResult,
    PolicyRule,
    checked_names,
    worst,
)
from .policy import Rights, Said, Verdict, rights_of
from .profiles import GROUPS, resolve

PASSED = "All policies passed"


def name_of(given: object, what: str) -> str:
    """A name that rules can be asked about. Raises BadInput for what is no text, or an empty one."""
    if not isinstance(given, str) or not given.strip():
        raise BadInput(f"The name of a {what} is a text that is not empty, not {ascii(given)[:60]}.")
    return given


class PolicyEngine:
    """Rules of its own, in a policy named `name`, over the layers it was given.

    Every rule that is added makes a new version. The newest always counts; what a context names by its `PolicyRef`, an
    older one too, only takes away from it.
    """

    def __init__(
        self, rules: Iterable[PolicyRule] = (), *, layers: Iterable[Policy] = (), name: str = "policy"
    ) -> None:
        for field, given in (("rules", rules), ("layers", layers)):
            if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
                raise BadInput(f"{field}: must be a list, not {ascii(given)[:60]}.")
        self.layers = tuple(layers)
        for each in self.layers:
            if not isinstance(each, Policy):
                raise BadInput(f"layers: {ascii(each)[:60]} is no Policy.")
        self._known: dict[str, list[Policy]] = {}
        self.name = name
        self._known[name] = [Policy(name=name, version="0")]
        for rule in rules:
            self.add_rule(rule)

    @property
    def policy(self) -> Policy:
        """Its own policy as it stands. Its version counts the rules that were added."""
        return self._known[self.name][-1]

    @property
    def version(self) -> str:
        return self.policy.version

    def add_rule(self, rule: PolicyRule) -> str:
        """Add a rule. Returns the version that has it."""
        now = self.policy
        changed = replace(now, rules=(*now.rules, rule), version=str(len(self._known[self.name])))
        self._known[self.name].append(changed)
        return changed.version

    def add_policy(self, policy: Policy) -> None:
        """Let a policy be known under its name and version, for a `PolicyRef` to name. The same again: no change.

        Raises BadInput for another policy of the same name and version, and for what `resolve` refuses.
        """
        if not isinstance(policy, Policy):
            raise BadInput(f"There is no policy in {ascii(policy)[:60]}.")
        resolve((*self.layers, policy))
        known = self._known.setdefault(policy.name, [])
        for each in known:
            if each.version == policy.version and each != policy:
                raise BadInput(f"There is another policy {policy.name}, version {policy.version}.")
        if policy not in known:
            known.append(policy)

    def find(self, ref: PolicyRef) -> Policy:
        """The policy that a reference names, narrowed by its overrides. Raises NotFound; BadInput for an override."""
        if not isinstance(ref, PolicyRef):
            raise BadInput(f"A policy is named by a PolicyRef, not by {ascii(ref)[:60]}.")
        found = [each for each in self._known.get(ref.name, ()) if ref.version in (None, each.version)]
        if not found:
            version = "" if ref.version is None else f", version {ref.version}"
            raise NotFound(f"There is no policy {ref.name}{version}.")
        return found[-1]

    def rights(self, context: PolicyContext) -> Rights:
        """What is left under all of its layers, in the context's scope, to its principal."""
        if not isinstance(context, PolicyContext):
            raise BadInput(f"What is to be done, a PolicyContext says, not {ascii(context)[:60]}.")
        ref = context.policy_ref
        layers = [*self.layers, self.policy]
        if ref is not None:
            named = self.find(ref)
            layers += [*([] if named is self.policy else [named]), *narrowed(ref.overrides)]
        return rights_of(resolve(layers), context.scope_id, context.principal_id or "")

    # -- asking --

    async def check_tool(self, tool_name: str, context: PolicyContext | None = None) -> PolicyResult:
        """Whether a tool may be run."""
        asked = PolicyContext() if context is None else context
        return _result(self.rights(asked).tool(name_of(tool_name, "tool")))

    async def check_model(self, model: str, context: PolicyContext | None = None) -> PolicyResult:
        """Whether a model may be called, for as many tokens as the context says."""
        asked = PolicyContext() if context is None else context
        rights = self.rights(asked)
        verdict = rights.model(name_of(model, "model"))
        result = _result(verdict)
        if verdict.tokens is not None:
            result = replace(result, metadata={**result.metadata, "max_tokens_per_request": verdict.tokens})
            if asked.requested_tokens is not None and asked.requested_tokens > verdict.tokens:
                reason = f"{asked.requested_tokens} tokens are asked for, and at most {verdict.tokens} are allowed"
                violations = (*result.violations, f"max_tokens_per_request: {reason}")
                over = PolicyResult(decision=PolicyDecision.DENY, reason=reason, violations=violations)
                result = _both(result, over)
        return result

    async def check_constraints(self, context: PolicyContext) -> PolicyResult:
        """Whether the amounts of the context are within every limit."""
        limits = self.rights(context).limits
        broken: list[Said] = []
        applied: list[Said] = []
        asked: tuple[tuple[Any, tuple[Any, Said] | None], ...] = (
            (context.requested_cost, limits.cost_per_request),
            (context.requested_tokens, limits.tokens_per_request),
            (None if context.tool_calls is None else context.tool_calls + 1, limits.tool_calls_per_turn),
            (context.turn, limits.turns),
        )
        for amount, limit in asked:
            if limit is not None:
                applied.append(limit[1])
                if amount is not None and amount > limit[0]:
                    broken.append(limit[1])
        return PolicyResult(
            decision=PolicyDecision.DENY if broken else PolicyDecision.ALLOW,
            reason=broken[0].reason if broken else PASSED,
            violations=tuple(f"{said.policy}/{said.rule}: {said.reason}" for said in broken),
            applied_rules=tuple(dict.fromkeys(f"{said.policy}/{said.rule}" for said in applied)),
        )

    async def evaluate(self, context: PolicyContext) -> PolicyResult:
        """All that the context has: its tool, its model, its amounts. Every rule is asked; the strictest counts."""
        result = await self.check_constraints(context)
        if context.model is not None:
            result = _both(result, await self.check_model(context.model, context))
        if context.tool_name is not None:
            result = _both(result, await self.check_tool(context.tool_name, context))
        return result

    async def require(self, context: PolicyContext) -> PolicyResult:
        """As `evaluate`, for what must not be denied. Raises PolicyDenied with every violation."""
        result = await self.evaluate(context)
        if result.decision is PolicyDecision.DENY:
            raise PolicyDenied(result.reason, violations=result.violations)
        return result


def narrowed(overrides: Mapping[str, Any]) -> list[Policy]:
    """The layer that overrides make, none where they take nothing away. Raises BadInput for one there is not."""
    known = {field.name for field in fields(Policy)} - {"name", "version", "profile_tools", "profiles"}
    given: dict[str, Any] = {}
    denied: list[str] = []
    for key, value in overrides.items():
        group = key.removeprefix("allow_")
        if key in known:
            given[key] = value
        elif key != group and group in GROUPS and isinstance(value, bool):
            denied += [] if value else [f"group:{group}"]
        else:
            flags = ", ".join(f"allow_{group}" for group in sorted(GROUPS))
            raise BadInput(f"overrides: {key!r} is none. There are {', '.join(sorted(known))}, and {flags} (a bool).")
    try:
        if denied:
            given["deny"] = (*checked_names(given.get("deny", ()), "deny"), *denied)
        return [Policy(name="overrides", **given)] if given else []
    except BadInput as error:
        raise BadInput(f"overrides: {error}") from None


def one_layer(policy: Policy, overrides: Mapping[str, Any]) -> Policy:
    """A policy and what narrows it for one use, as one layer: never more than either allows.

    Raises BadInput for an override there is not, and for a second list of what is allowed, which no one layer can hold.
    """
    for other in narrowed(overrides):
        for field in ("allow", "profile"):
            if getattr(policy, field) is not None and getattr(other, field) is not None:
                raise BadInput(f"overrides: {field}: policy {policy.name} has its own; take away with deny.")
        limits = [each.max_tool_calls_per_turn for each in (policy, other) if each.max_tool_calls_per_turn is not None]
        policy = replace(
            policy,
            rules=(*policy.rules, *other.rules),
            deny=(*policy.deny, *other.deny),
            allow=policy.allow if other.allow is None else other.allow,
            profile=policy.profile if other.profile is None else other.profile,
            also_allow=policy.also_allow if other.profile is None else other.also_allow,
            max_tool_calls_per_turn=min(limits, default=None),
            strict=policy.strict or other.strict,
        )
    return policy


def _result(verdict: Verdict) -> PolicyResult:
    metadata: dict[str, Any] = {}
    if verdict.rule is not None:
        metadata = {"policy": verdict.policy, "version": verdict.version, "rule": verdict.rule}
    return PolicyResult(
        decision=verdict.decision,
        reason=PASSED if verdict.decision is PolicyDecision.ALLOW else verdict.reason,
        violations=verdict.violations,
        applied_rules=verdict.applied,
        metadata=metadata,
    )


def _both(one: PolicyResult, other: PolicyResult) -> PolicyResult:
    """The stricter of two, with what both have to say."""
    strict, mild = (other, one) if other.decision.rank > one.decision.rank else (one, other)
    return PolicyResult(
        decision=worst((one.decision, other.decision)),
        reason=strict.reason,
        violations=tuple(dict.fromkeys((*one.violations, *other.violations))),
        applied_rules=tuple(dict.fromkeys((*one.applied_rules, *other.applied_rules))),
        metadata={**mild.metadata, **strict.metadata},
    )


__all__ = ["PolicyEngine", "narrowed", "one_layer"]
