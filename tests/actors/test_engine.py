"""The engine: rules that are added one by one, asked part by part or all at once, and policies that are referred to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors.engine import PolicyEngine
from reenact.actors.profiles import PROFILES
from reenact.events.errors import BadInput, NotFound, PolicyDenied
from reenact.events.policy import ConstraintPolicy, Policy, PolicyContext, PolicyRef, PolicyRule
from tests.actors.layers import (
    ALLOW,
    DENY,
    REQUIRE_APPROVAL,
    TOOLS,
    assert_no_wider,
    layer,
    layers,
    model,
    names,
    rights,
    rules,
    scope,
    tool,
    usable,
)


def ask(work: Any) -> Any:
    return asyncio.run(work)


def engine() -> PolicyEngine:
    made = PolicyEngine()
    made.add_rule(tool("file_*", "shell_*", decision="deny", reason="Dangerous tools not allowed"))
    made.add_rule(tool("search_*", allowed_scopes=["internal", "admin"], decision="allow"))
    made.add_rule(model("gpt-4*", "claude-3*", require_approval=True, max_tokens_per_request=10_000))
    made.add_rule(ConstraintPolicy(max_cost_per_request=1.0, max_tokens_per_request=50_000, max_tool_calls_per_turn=5))
    return made


CONTEXT = PolicyContext(
    scope_id="tenant-123", principal_id="user-456", tool_name="file_read", model="gpt-4", requested_tokens=5000
)


def test_the_engine_is_asked_part_by_part_or_all_at_once() -> None:
    made = engine()
    assert ask(made.check_tool("file_read", CONTEXT)).decision is DENY
    assert ask(made.check_tool("search_web", CONTEXT)).decision is DENY
    assert ask(made.check_tool("other", CONTEXT)).decision is ALLOW
    assert ask(made.check_model("gpt-4", CONTEXT)).decision is REQUIRE_APPROVAL
    assert ask(made.check_constraints(CONTEXT)).reason == "All policies passed"
    result = ask(made.evaluate(CONTEXT))
    assert (result.decision, result.reason) == (DENY, "Dangerous tools not allowed")
    assert result.violations == ("policy/rule 1: Dangerous tools not allowed",)
    assert set(result.applied_rules) == {"policy/rule 1", "policy/rule 3", "policy/rule 4"}
    fine = replace(CONTEXT, tool_name="other", model="gpt-5.5")
    assert ask(made.require(fine)).decision is ALLOW
    with pytest.raises(PolicyDenied, match="Dangerous") as caught:
        ask(made.require(CONTEXT))
    assert caught.value.violations == result.violations and caught.value.code == "policy_denied"


@pytest.mark.parametrize(
    ("asked", "broken"),
    [
        ({"requested_tokens": 50_001}, True),
        ({"requested_tokens": 50_000}, False),
        ({"requested_cost": "1.01"}, True),
        ({"requested_cost": 1.0}, False),
        ({"tool_calls": 5}, True),
        ({"tool_calls": 4}, False),
        ({"turn": 1_000}, False),
    ],
)
def test_every_amount_is_held_to_its_limit_and_the_limit_itself_is_allowed(asked: Any, broken: bool) -> None:
    result = ask(engine().check_constraints(PolicyContext(**asked)))
    assert (result.decision is DENY) is broken and bool(result.violations) is broken
    assert result.applied_rules == ("policy/rule 4",)


def test_a_model_asked_for_more_tokens_than_it_may_write_is_denied() -> None:
    over = ask(engine().check_model("claude-3-opus", PolicyContext(requested_tokens=10_001)))
    assert over.decision is DENY and over.metadata["max_tokens_per_request"] == 10_000


def test_every_rule_makes_a_version_and_an_older_one_can_be_named_and_gives_nothing_back() -> None:
    made = engine()
    assert made.version == "4"
    for version in (None, "0", "4"):
        named = PolicyContext(policy_ref=PolicyRef(name="policy", version=version))
        assert ask(made.check_tool("file_read", named)) == ask(made.check_tool("file_read"))
    assert ask(made.check_tool("file_read")).decision is DENY
    with pytest.raises(NotFound, match="There is no policy policy, version 9"):
        ask(made.check_tool("file_read", PolicyContext(policy_ref=PolicyRef(name="policy", version="9"))))


@given(before=layers, added=st.lists(rules, max_size=4), version=st.integers(0, 4))
def test_whatever_version_of_its_own_policy_is_named_the_newest_counts(
    before: tuple[Policy, ...], added: list[PolicyRule], version: int
) -> None:
    usable(before)
    made = PolicyEngine(added, layers=before)
    named = PolicyContext(policy_ref=PolicyRef(name=made.name, version=str(min(version, len(added)))))
    assert_no_wider(made.rights(named), made.rights(PolicyContext()))


OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("deny", "allow", "also_allow"), names),
        "profile": st.sampled_from(sorted(PROFILES)),
        "rules": st.lists(rules, max_size=2).map(tuple),
        "max_tool_calls_per_turn": st.integers(0, 9),
        **{f"allow_{group}": st.booleans() for group in ("fs", "web", "runtime")},
    },
)


@settings(max_examples=300)
@given(before=layers, named=layer, overrides=OVERRIDES, scope=scope)
def test_overrides_give_nothing_whatever_they_are(
    before: tuple[Policy, ...], named: Policy, overrides: dict[str, Any], scope: str
) -> None:
    named = replace(named, name="named")
    usable((*before, named))
    made = PolicyEngine(layers=before)
    made.add_policy(named)
    plain = PolicyContext(scope_id=scope, policy_ref=PolicyRef(name="named"))
    narrowed = replace(plain, policy_ref=PolicyRef(name="named", overrides=overrides))
    assert_no_wider(made.rights(narrowed), made.rights(plain))


def test_a_reference_names_a_policy_that_its_overrides_can_only_narrow() -> None:
    made = PolicyEngine()
    made.add_policy(Policy(name="production", version="v1", profile="coding"))
    made.add_policy(Policy(name="production", version="v1", profile="coding"))

    def may(name: str, **overrides: Any) -> bool:
        ref = PolicyRef(name="production", version="v1", overrides=overrides)
        return bool(ask(made.check_tool(name, PolicyContext(policy_ref=ref))).decision is ALLOW)

    assert may("web_search") and may("web_search", allow_web=True) and not may("web_search", allow_web=False)
    assert not may("exec", allow_runtime=True), "a flag gives nothing"
    assert not may("read", deny=["read"]) and not may("exec", allow=["exec"])
    with pytest.raises(BadInput, match="overrides: 'allow_sky' is none"):
        may("read", allow_sky=True)
    with pytest.raises(BadInput, match="another policy production, version v1"):
        made.add_policy(Policy(name="production", version="v1", profile="full"))


@pytest.mark.parametrize("flags", [{}, {"allow_fs": False}, {"allow_fs": True}])
@pytest.mark.parametrize("field", ["deny", "allow", "also_allow", "rules"])
@pytest.mark.parametrize("given", ["pay", b"pay", b"", "", 5, None, {"pay": 1}, {}, [5], ["pay", ""]])
def test_an_override_that_is_no_list_of_names_is_refused(given: Any, field: str, flags: dict[str, bool]) -> None:
    if (given, field) == (None, "allow"):
        return  # as if it were not there
    made = PolicyEngine()
    made.add_policy(Policy(name="plain"))
    ref = PolicyRef(name="plain", overrides={field: given, **flags})
    with pytest.raises(BadInput, match=f"overrides: {field}: "):
        ask(made.check_tool("pay", PolicyContext(policy_ref=ref)))
    with pytest.raises(BadInput, match=f"{field}: "):
        Policy(**{field: given})


@given(before=layers, added=st.lists(rules, max_size=4))
def test_the_engine_says_what_the_evaluator_says(before: tuple[Policy, ...], added: list[PolicyRule]) -> None:
    usable(before)
    made = PolicyEngine(added, layers=before)
    plain = rights(*before, Policy(rules=tuple(added)))
    for name in TOOLS:
        assert ask(made.check_tool(name)).decision is plain.tool(name).decision
