"""Which tools an agent may use, by name: the part of a policy that programs read and change as plain fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..actors.engine import name_of
from ..actors.policy import Rights
from ..actors.profiles import resolve
from ..events.errors import BadInput
from ..events.policy import Policy, checked_names
from .policies import Given, policy_from


class AgentToolPolicy(Struct, frozen=True, kw_only=True, rename="camel"):
    """Which tools an agent may use. allowed_tools: only these, None for all that the profile has.

    denied_tools: none of these. max_tool_calls_per_turn: None for no limit.
    """

    profile: str = "full"
    allowed_tools: tuple[str, ...] | None = None
    denied_tools: tuple[str, ...] = ()
    max_tool_calls_per_turn: int | None = None


_NAMES = {"allowed_tools": "allow", "denied_tools": "deny", "profile": "profile"}


def tool_policy_of(policy: Policy | None) -> AgentToolPolicy:
    """An image's own policy, as far as it is about tools by name."""
    if policy is None:
        return AgentToolPolicy()
    return AgentToolPolicy(
        profile=policy.profile or "full",
        allowed_tools=policy.allow,
        denied_tools=policy.deny,
        max_tool_calls_per_turn=policy.max_tool_calls_per_turn,
    )


def with_tool_policy(policy: Policy | None, changes: AgentToolPolicy | Mapping[str, Any]) -> Policy:
    """A policy with these parts changed; what is not named stays. An empty `allowed_tools` allows what the profile has.

    Raises BadInput for a part there is not, or a value that does not fit.
    """
    if isinstance(changes, AgentToolPolicy):
        changes = {name: getattr(changes, name) for name in changes.__struct_fields__}
    if not isinstance(changes, Mapping):
        raise BadInput(f"The changes of a tool policy are an object, not {ascii(changes)[:60]}.")
    fields: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in AgentToolPolicy.__struct_fields__:
            known = ", ".join(AgentToolPolicy.__struct_fields__)
            raise BadInput(f"A tool policy has no {key!r}. It has: {known}.")
        fields[_NAMES.get(key, key)] = value
    if fields.get("allow") is not None:
        fields["allow"] = checked_names(fields["allow"], "allowed_tools") or None
    if "deny" in fields:
        fields["deny"] = () if fields["deny"] is None else checked_names(fields["deny"], "denied_tools")
    before = policy or Policy(name="tools")
    if fields.get("profile", before.profile) != before.profile:
        fields["profile_tools"] = None  # they are those of the profile before, where that was written out
    return replace(before, **fields)


def filter_tools_by_policy(
    tools: Iterable[Any], policy: Given | AgentToolPolicy, *, scope: str = "default"
) -> list[Any]:
    """Those tools, or names of tools, that an agent under this policy would be offered, and could run."""
    if not isinstance(tools, Iterable) or isinstance(tools, str | bytes):
        raise BadInput(f"tools must be tools or names of tools, not {ascii(tools)[:60]}.")
    by_name = isinstance(policy, AgentToolPolicy) or (
        isinstance(policy, Mapping) and set(policy) <= set(AgentToolPolicy.__struct_fields__)
    )
    layer = with_tool_policy(None, policy) if by_name else policy_from(policy)  # type: ignore[arg-type]
    rights = Rights(resolve((layer,)), scope)
    return [tool for tool in tools if rights.offers(name_of(getattr(tool, "name", tool), "tool"))]
