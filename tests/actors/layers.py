"""Policies in any number of layers, to draw from, and what is asked of the rights that they leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st

from reenact.actors.policy import Rights
from reenact.actors.profiles import PROFILES, resolve
from reenact.events.errors import BadInput
from reenact.events.policy import ConstraintPolicy, ModelPolicy, Policy, PolicyDecision, PolicyRule, Profile, ToolPolicy

ALLOW, WARN, REQUIRE_APPROVAL, DENY = PolicyDecision

TOOLS = (
    "read",
    "Write",
    "edit",
    "exec",
    "bash",
    "apply_patch",
    "apply-patch",
    "web_search",
    "refund",
    "session_status",
)
MODELS = ("openai:gpt-4o", "openai:gpt-5.5", "anthropic:claude-3-opus", "scripted:echo", "local")
SCOPES = ("default", "internal", "admin")


def rights(*layers: Policy, scope: str = "default") -> Rights:
    return Rights(resolve(layers), scope)


def tool(*patterns: str, **fields: Any) -> ToolPolicy:
    return ToolPolicy(tool_patterns=patterns, **fields)


def model(*patterns: str, **fields: Any) -> ModelPolicy:
    return ModelPolicy(model_patterns=patterns, **fields)


def policy(*rules: PolicyRule, **fields: Any) -> Policy:
    return Policy(rules=rules, **fields)


patterns = st.lists(
    st.sampled_from(
        ["*", "read", "WRITE", "bash", "exec", "e*", "b*", "apply_patch", "web_*", "ref[ua]nd", "?ead", "x"]
    ),
    min_size=1,
    max_size=3,
).map(tuple)
names = st.lists(
    st.sampled_from(
        [
            *(
                "read",
                "write",
                "bash",
                "refund",
                "Exec",
                "apply-patch",
                "*",
                "?ead",
                "b*",
                "*_*",
                "ref[ua]nd",
                "nobody",
            ),
            *("group:fs", "group:web", "GROUP:runtime", "group:openclaw"),
        ]
    ),
    min_size=1,
    max_size=3,
).map(tuple)
own_profiles = st.lists(
    st.builds(Profile, name=st.sampled_from(["shop", "desk"]), tools=names),
    max_size=2,
    unique_by=lambda each: each.name,
).map(tuple)
decisions = st.sampled_from(PolicyDecision)
scopes = st.none() | st.lists(st.sampled_from(SCOPES), min_size=1, max_size=2).map(tuple)
counts = st.none() | st.integers(1, 9)
rules = st.one_of(
    st.builds(ToolPolicy, tool_patterns=patterns, decision=decisions, allowed_scopes=scopes),
    st.builds(
        ModelPolicy,
        model_patterns=st.lists(st.sampled_from(["gpt-4*", "openai:*", "*", "claude-3*", "local"]), min_size=1).map(
            tuple
        ),
        decision=decisions,
        require_approval=st.booleans(),
        max_tokens_per_request=counts,
        allowed_scopes=scopes,
    ),
    st.builds(
        ConstraintPolicy,
        max_cost_per_request=st.none() | st.decimals(0, 9, places=2),
        max_tokens_per_request=counts,
        max_tool_calls_per_turn=counts,
        max_turns=counts,
    ),
)
layer = st.builds(
    Policy,
    name=st.sampled_from(["runtime", "container", "image", "job"]),
    rules=st.lists(rules, max_size=3).map(tuple),
    profile=st.none() | st.sampled_from([*sorted(PROFILES), "shop", "desk"]),
    profiles=st.just(()) | own_profiles,
    allow=st.none() | names,
    also_allow=st.just(()) | names,
    deny=st.just(()) | names,
    max_tool_calls_per_turn=counts,
)
layers = st.lists(layer, max_size=4).map(tuple)
scope = st.sampled_from(SCOPES)


def usable(*each: Sequence[Policy]) -> None:
    """Leave out what is refused as a whole: a profile that there is none of, or that there are two of."""
    for several in each:
        try:
            resolve(several)
        except BadInput:
            reject()


def _wider(limit: Any, before: Any) -> bool:
    return before is not None and (limit is None or limit[0] > before[0])


def assert_no_wider(after: Rights, before: Rights) -> None:
    """Nothing that was taken away is given back."""
    for name in TOOLS:
        assert after.tool(name).decision.rank >= before.tool(name).decision.rank, name
        assert before.offers(name) or not after.offers(name)
    for name in MODELS:
        new, old = after.model(name), before.model(name)
        assert new.decision.rank >= old.decision.rank, name
        assert old.tokens is None or (new.tokens is not None and new.tokens <= old.tokens)
    for field in ("cost_per_request", "tokens_per_request", "tool_calls_per_turn", "turns"):
        assert not _wider(getattr(after.limits, field), getattr(before.limits, field)), field
