"""The layers of policy that a runtime lays over its agents: its own, the container's, the image's, and one job's.

Rules come from code, from files and from the log, never from a message, a model or a tool.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

from ..actors.container import State as ContainerState
from ..actors.engine import PolicyEngine, one_layer
from ..actors.image import State as ImageState
from ..actors.policy import Rights, Verdict
from ..actors.profiles import nearest, resolve, unknown_names
from ..adapters.policy_file import load_policy, policy_of
from ..events.errors import BadInput, BadPolicy, NotFound
from ..events.policy import NAME_CHARS_MAX, ConstraintPolicy, Policy, PolicyRef

Given = Policy | Mapping[str, Any] | str | os.PathLike[str]
"""A policy, the same as plain data, or the path of a file of TOML."""

OfJob = Given | PolicyRef
"""What one job is held to beside: a policy, or the name of one that the runtime's engine knows."""

WARNED_MAX = 256
"""Unknown names that are remembered, so that each is told of once."""

STRANGE_SHOWN = 12
"""Names that one line tells of."""

READY_MAX = 1024
"""Layers that are kept ready, by what they are made of."""

_log = logging.getLogger("reenact")


def policy_from(given: Given) -> Policy:
    """A policy, whatever way it was given. Raises BadPolicy with file and key for what is none."""
    if isinstance(given, Policy):
        return given
    return load_policy(given) if isinstance(given, str | os.PathLike) else policy_of(given)


def policies_from(given: Given | PolicyEngine | Iterable[Given] | None) -> tuple[Policy, ...]:
    """One policy or several, outermost first; or those of an engine, as they stand now."""
    if given is None:
        return ()
    if isinstance(given, PolicyEngine):
        return (*given.layers, given.policy)
    if isinstance(given, Policy | Mapping | str | os.PathLike):
        return (policy_from(given),)
    if not isinstance(given, Iterable) or isinstance(given, bytes | bytearray | memoryview):
        raise BadPolicy(f"policy: must be a policy, a file, an object or several of them, not {ascii(given)[:60]}.")
    return tuple(policy_from(each) for each in given)


def limits_cost(*layers: Policy) -> bool:
    """Whether one of these limits what a call of a model may cost: then prices are needed."""
    for layer in layers:
        for rule in layer.rules:
            if isinstance(rule, ConstraintPolicy) and rule.max_cost_per_request is not None:
                return True
    return False


class Policies:
    """own: the runtime's layers. tools: the names there are. container(id): the state of a container. engine: knows
    policies by name."""

    def __init__(
        self,
        own: tuple[Policy, ...],
        *,
        tools: Collection[str],
        container: Callable[[str], Awaitable[ContainerState]],
        engine: PolicyEngine | None = None,
    ) -> None:
        resolve(own)
        self._engine = engine
        self.own = own
        self._tools = tools
        self._container = container
        self._containers: dict[str, Policy | None] = {}
        self._held: dict[str, tuple[Policy, ...]] = {}
        self._ready: dict[tuple[tuple[Policy, ...], Policy | None, Policy | None], tuple[Policy, ...]] = {}
        self._warned: dict[str, None] = {}

    # -- which layers --

    def at_hand(self, container_id: str) -> bool:
        """Whether a container's policy is known, so that `layers` can say what holds in it."""
        return container_id in self._containers

    async def load(self, container_id: str) -> None:
        """Have a container's policy at hand. Once it is, only what is heard changes it."""
        if container_id not in self._containers:
            policy = (await self._container(container_id)).policy
            self._containers.setdefault(container_id, policy)

    def hear(self, container_id: str, policy: Policy | None) -> None:
        """A container has another policy from now on."""
        self._containers[container_id] = policy

    def is_held(self, session_id: str) -> bool:
        """Whether it is known under which rules a session was last run."""
        return session_id in self._held

    def hold(self, session_id: str, given: tuple[Policy, ...]) -> None:
        """A session keeps what it was last run under, in the place of the runtime's own layers."""
        self._held[session_id] = given

    def own_of(self, session_id: str | None) -> tuple[Policy, ...]:
        """The outermost layers over a session: the runtime's own, or those that it keeps."""
        return self._held.get(session_id, self.own) if self._held and session_id is not None else self.own

    def layers(self, state: ImageState, session_id: str | None = None) -> tuple[Policy, ...]:
        """The layers over an image's agents, written out, outermost first. Its container's must be at hand. session_id:
        of the agent's session, which may be held to layers of its own."""
        own = self.own_of(session_id)
        of_container, of_image = self._containers[state.container_id], state.config.policy
        if of_container is None and of_image is None and not own:
            return ()
        key = own, of_container, of_image
        ready = self._ready.get(key)
        if ready is None:
            if len(self._ready) >= READY_MAX:
                self._ready.clear()
            ready = self._ready[key] = resolve(self._over(state, own))
        return ready

    def _over(self, state: ImageState, own: tuple[Policy, ...]) -> list[Policy]:
        layers = (*own, self._containers[state.container_id], state.config.policy)
        return [layer for layer in layers if layer is not None]

    def of_job(self, state: ImageState, given: OfJob, session_id: str | None = None) -> Policy:
        """What one job adds, written out. Raises BadInput for what cannot be, NotFound for a name of none."""
        policy = self.named(given) if isinstance(given, PolicyRef) else policy_from(given)
        self.look(policy)
        return resolve((*self._over(state, self.own_of(session_id)), policy))[-1]

    def named(self, ref: PolicyRef) -> Policy:
        """The policy that a reference names, narrowed by its overrides. Raises NotFound; BadInput for an override."""
        if self._engine is None:
            raise NotFound(
                f"There is no policy {ref.name}: this runtime was given no PolicyEngine that knows any by name."
            )
        return one_layer(self._engine.find(ref), ref.overrides)

    # -- looking at one before it is used --

    async def check(self, policy: Policy, container_id: str | None = None) -> None:
        """Raises BadInput for a policy that cannot be used under those around it; tells of names no tool has."""
        outer = list(self.own)
        if container_id is not None:
            await self.load(container_id)
            of_container = self._containers[container_id]
            outer += [] if of_container is None else [of_container]
        resolve((*outer, policy))
        self.look(policy)

    def look(self, policy: Policy) -> None:
        """Tell once of every name in a policy that no tool has; a strict policy is refused. Raises BadPolicy."""
        for name in strange_names(policy, self._tools):
            key = f"{policy.name}/{name}"
            if key in self._warned:
                continue
            if len(self._warned) >= WARNED_MAX:
                del self._warned[next(iter(self._warned))]
            self._warned[key] = None
            _log.warning("%s", _rules_nothing(policy, name, self._tools))


def strange_names(policy: Policy, tools: Collection[str]) -> tuple[str, ...]:
    """The names in a policy that no tool has. Raises BadPolicy where the policy is strict and there are any."""
    strange = unknown_names(policy, tools)
    if strange and policy.strict:
        named = ", ".join(f"{name!r}{_meant(name, tools)}" for name in strange)
        raise BadPolicy(f"policy {policy.name}: there is no tool named {named}.")
    return strange


def _rules_nothing(policy: Policy, name: str, tools: Collection[str]) -> str:
    meant = _meant(name, tools)
    return f"policy {policy.name}: there is no tool named {name!r}{meant}; a rule on it rules nothing."


def _meant(name: str, tools: Collection[str]) -> str:
    near = nearest(name, tools)
    return f" (did you mean {near!r}?)" if near else ""


# -- looking at policies without a log --


def verdicts(
    files: Iterable[Given],
    *,
    tools: Iterable[str],
    models: Iterable[str],
    scope: str,
    principal: str = "",
    there: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """What policies say of these tools and models, one row each, then the limits they set.

    principal: who sent the job, empty where nobody knows. there: the tools that there are. As a runtime that has them
    would, it tells of names that none of them has and refuses a policy that is strict; where they are None, names are
    only looked for among those that groups know and those that are asked about. Raises BadPolicy, and BadInput for what
    is no name.
    """
    tools, models = list(tools), list(models)
    for field, given in (("a tool", tools), ("a model", models), ("a scope", [scope])):
        for name in given:
            if not name.strip() or not name.isprintable() or len(name) > NAME_CHARS_MAX:
                raise BadInput(f"The name of {field} is 1 to {NAME_CHARS_MAX} printable characters, not {name[:60]!a}.")
    policies = policies_from(list(files))
    layers = resolve(policies)
    if there is None:
        for policy in policies:
            _not_looked_for(policy, tools)
    else:
        for policy in policies:
            for name in strange_names(policy, there):
                _log.warning("%s", _rules_nothing(policy, name, there))
        for name in unknown_names(Policy(also_allow=tuple(tools)), there):
            _log.warning("%s", f"there is no tool named {name!r}{_meant(name, there)}.")
    rights = Rights(layers, scope, principal)
    rows = [_row("tool", name, rights.tool(name)) for name in tools]
    rows += [_row("model", name, rights.model(name)) for name in models]
    for field in rights.limits.__struct_fields__:
        limit = getattr(rights.limits, field)
        if limit is not None:
            said = limit[1]
            rows.append(
                {
                    "kind": "limit",
                    "name": f"max_{field} {limit[0]}",
                    "decision": None,
                    "reason": said.reason,
                    "policy": said.policy,
                    "version": said.version,
                    "appliedRules": [f"{said.policy}/{said.rule}"],
                    "violations": [],
                }
            )
    return rows


def _not_looked_for(policy: Policy, asked: Collection[str]) -> None:
    """Tell of the names that only tools could have which nobody gave."""
    strange = unknown_names(policy, asked)
    if strange:
        named = ", ".join(f"{name!r}{_meant(name, asked)}" for name in strange[:STRANGE_SHOWN])
        more = "" if len(strange) <= STRANGE_SHOWN else f" and {len(strange) - STRANGE_SHOWN} more"
        _log.warning("policy %s: whether there is a tool named %s%s is not known.", policy.name, named, more)


def _row(kind: str, name: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "decision": verdict.decision.value,
        "reason": verdict.reason or "no rule is about it",
        "policy": verdict.policy or None,
        "version": verdict.version or None,
        "appliedRules": list(verdict.applied),
        "violations": list(verdict.violations),
    } | ({} if verdict.tokens is None else {"maxTokensPerRequest": verdict.tokens})
