"""What the rules say: of all that apply the strictest counts, and whatever is added can only take away."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors.policy import VERDICTS_MAX, Rights, Verdict, rights_of
from reenact.actors.profiles import resolve
from reenact.events.errors import BadInput
from reenact.events.policy import ConstraintPolicy, Policy, PolicyContext, PolicyRule, Profile, ToolPolicy, worst
from tests.actors.layers import (
    ALLOW,
    DENY,
    MODELS,
    REQUIRE_APPROVAL,
    TOOLS,
    WARN,
    assert_no_wider,
    decisions,
    layer,
    layers,
    model,
    names,
    patterns,
    policy,
    rights,
    rules,
    scope,
    scopes,
    tool,
    usable,
)


@settings(max_examples=300)
@given(before=layers, added=layer, place=st.integers(0, 4), scope=scope)
def test_one_more_layer_never_weakens_a_decision(
    before: tuple[Policy, ...], added: Policy, place: int, scope: str
) -> None:
    after = (*before[:place], added, *before[place:])
    usable(before, after)
    assert_no_wider(rights(*after, scope=scope), rights(*before, scope=scope))


@st.composite
def profiled(draw: st.DrawFn) -> tuple[tuple[Policy, ...], Policy, int]:
    """Layers that choose what they or those around them bring, and one more, to stand anywhere among them."""
    agreed = {name: draw(names) for name in ("shop", "desk")}
    there: set[str] = set()
    before = []
    for _ in range(draw(st.integers(1, 3))):
        own = draw(st.sampled_from([(), ("shop",), ("desk", "shop")]))
        there.update(own)
        brought = tuple(Profile(name=name, tools=agreed[name]) for name in own)
        before.append(Policy(profile=draw(st.sampled_from([*sorted(there), None])), profiles=brought))
    own = draw(st.sampled_from([("shop",), ("desk", "shop")]))
    other = {name: draw(st.sampled_from([agreed[name], ("*",), ("read", "exec")])) for name in own}
    profiles = tuple(Profile(name=name, tools=tools) for name, tools in other.items())
    added = Policy(profile=draw(st.sampled_from([None, *other])), profiles=profiles)
    return tuple(before), added, draw(st.integers(0, len(before)))


@settings(max_examples=1000)
@given(layers=profiled())
def test_nor_does_one_that_brings_profiles_of_its_own(layers: tuple[tuple[Policy, ...], Policy, int]) -> None:
    before, added, place = layers
    after = (*before[:place], added, *before[place:])
    usable(before, after)
    assert_no_wider(rights(*after), rights(*before))


def test_a_profile_that_an_outer_layer_brings_cannot_be_another_one_further_in() -> None:
    house = Policy(name="house", profiles=[Profile(name="shop", tools=["read"])])
    wider = Policy(name="tenant", profiles=[Profile(name="shop", tools=["read", "exec"])])
    image = Policy(name="image", profile="shop")
    assert not rights(house, image).offers("exec")
    with pytest.raises(BadInput, match="policy tenant: profiles: 'shop' is another one in policy house"):
        rights(house, wider, image)
    assert rights(house, replace(house, name="again"), image).offers("read"), "the same again is fine"


@settings(max_examples=300)
@given(before=st.lists(layer, min_size=1, max_size=4).map(tuple), added=rules, name=names, data=st.data(), scope=scope)
def test_one_more_rule_or_denied_name_in_a_layer_never_weakens_a_decision(
    before: tuple[Policy, ...], added: PolicyRule, name: tuple[str, ...], data: st.DataObject, scope: str
) -> None:
    usable(before)
    at = data.draw(st.integers(0, len(before) - 1))
    for changed in (
        replace(before[at], rules=(*before[at].rules, added)),
        replace(before[at], deny=(*before[at].deny, *name)),
    ):
        after = (*before[:at], changed, *before[at + 1 :])
        assert_no_wider(rights(*after, scope=scope), rights(*before, scope=scope))


def test_the_law_finds_an_evaluator_that_lets_the_innermost_layer_win() -> None:
    class Lenient(Rights):
        def tool(self, name: str) -> Verdict:
            return Rights(self.layers[-1:], self.scope).tool(name)

    before, after = (
        Lenient(resolve([policy(deny=("exec",))]), "default"),
        Lenient(resolve([policy(deny=("exec",)), policy()]), "default"),
    )
    with pytest.raises(AssertionError):
        assert_no_wider(after, before)


@settings(max_examples=300)
@given(before=layers, scope=scope)
def test_the_decision_is_the_strictest_that_any_part_makes_alone(before: tuple[Policy, ...], scope: str) -> None:
    usable(before)
    known = {each.name: each for policy in before for each in policy.profiles}
    parts: list[Policy] = []
    for each in before:
        parts += [Policy(rules=(rule,)) for rule in each.rules]
        its = () if each.profile not in known else (known[each.profile],)
        parts.append(Policy(profile=each.profile, also_allow=each.also_allow, profiles=its))
        parts.append(Policy(allow=each.allow))
        parts.append(Policy(deny=each.deny))
    alone = [rights(part, scope=scope) for part in parts]
    together = rights(*before, scope=scope)
    for name in TOOLS:
        assert together.tool(name).decision is worst(each.tool(name).decision for each in alone)
    for name in MODELS:
        assert together.model(name).decision is worst(each.model(name).decision for each in alone)


@given(before=layers, data=st.data(), scope=scope)
def test_the_order_of_layers_changes_no_decision(before: tuple[Policy, ...], data: st.DataObject, scope: str) -> None:
    usable(before)
    before = resolve(before)  # a profile serves the layers under the one that brings it
    other = data.draw(st.permutations(before))
    for name in TOOLS:
        assert rights(*before, scope=scope).tool(name).decision is rights(*other, scope=scope).tool(name).decision


principal = st.sampled_from(["owner", "guest", "agent:1", ""])
named = st.builds(
    ToolPolicy,
    tool_patterns=patterns,
    decision=decisions,
    allowed_scopes=scopes,
    allowed_principals=st.none() | st.lists(principal.filter(bool), min_size=1, max_size=2).map(tuple),
)
told_who = st.lists(
    st.builds(lambda each, rules: replace(each, rules=(*each.rules, *rules)), layer, st.lists(named, max_size=2)),
    max_size=3,
).map(tuple)


kin = st.tuples(told_who, scope, principal)


@settings(max_examples=300)
@given(family=st.lists(kin, min_size=2, max_size=3))
def test_the_rights_of_a_child_are_within_those_of_its_parent(
    family: list[tuple[tuple[Policy, ...], str, str]],
) -> None:
    """Whatever rules of its own it has, in whatever scope it is, whoever it is; and so on down."""
    above: Rights | None = None
    for own, where, who in family:
        usable(own)
        handed_on = () if above is None else above.handed_on
        rights = Rights((*resolve(own), *handed_on), where, who)
        if above is not None:
            assert_no_wider(rights, above)
        above = rights


@example(own=(policy(tool("refund", decision=DENY, allowed_scopes=("admin",))),), scope="admin", principal="owner")
@given(own=told_who, scope=scope, principal=principal)
def test_given_a_child_without_rules_of_its_own_when_it_is_where_its_parent_is_then_it_may_do_the_same(
    own: tuple[Policy, ...], scope: str, principal: str
) -> None:
    usable(own)
    parent = Rights(resolve(own), scope, principal)
    assert_no_wider(parent, Rights(parent.handed_on, scope, principal))


def test_the_law_finds_layers_that_are_handed_on_as_they_stand() -> None:
    here = policy(tool("refund", decision=DENY, allowed_scopes=("admin",)))
    with pytest.raises(AssertionError):
        assert_no_wider(Rights((here,), "admin"), Rights((here,), "default"))


@given(before=layers, scope=scope)
def test_what_was_written_out_stays_as_it_is_and_comes_back_from_the_log_as_it_went(
    before: tuple[Policy, ...], scope: str
) -> None:
    usable(before)
    written = resolve(before)
    assert resolve(written) == written
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(written), type=tuple[Policy, ...])
    assert stored == written and msgspec.convert(msgspec.to_builtins(written), tuple[Policy, ...]) == written
    assert rights_of(stored, scope) is rights_of(written, scope), "and is remembered once"


@given(before=layers, scope=scope)
def test_names_are_the_same_in_any_case_and_asking_twice_gives_the_same(before: tuple[Policy, ...], scope: str) -> None:
    usable(before)
    asked = rights(*before, scope=scope)
    for name in TOOLS:
        again = {asked.tool(each).decision for each in (name, name.upper(), name.lower(), name)}
        assert again == {asked.tool(name).decision}


# -- one at a time --


def test_what_no_rule_is_about_is_allowed() -> None:
    assert rights().tool("refund") == Verdict()
    assert rights(policy(tool("other", decision="deny"))).tool("refund") == Verdict()


def test_a_denial_says_which_rule_of_which_policy_and_why() -> None:
    strict = policy(tool("file_*", "shell_*", decision="deny", reason="Dangerous."), name="production", version="3")
    verdict = rights(policy(), strict).tool("shell_run")
    assert (verdict.decision, verdict.rule, verdict.reason) == (DENY, "rule 1", "Dangerous.")
    assert (verdict.policy, verdict.version) == ("production", "3")
    assert verdict.violations == ("production/rule 1: Dangerous.",) and verdict.applied == ("production/rule 1",)


def test_the_worst_of_all_rules_wins_and_all_of_them_are_named() -> None:
    mixed = policy(
        tool("pay", name="fine"), tool("p*", decision="warn"), tool("*", decision="deny"), tool("pa?", decision="warn")
    )
    verdict = rights(mixed).tool("pay")
    assert verdict.decision is DENY and verdict.rule == "rule 3"
    assert verdict.applied == ("policy/fine", "policy/rule 2", "policy/rule 3", "policy/rule 4")


@pytest.mark.parametrize(
    ("decision", "inside", "outside"),
    [("allow", ALLOW, DENY), ("warn", WARN, DENY), ("require_approval", REQUIRE_APPROVAL, DENY), ("deny", ALLOW, DENY)],
)
def test_a_rule_with_scopes_denies_its_tools_to_all_others(decision: str, inside: Any, outside: Any) -> None:
    rule = policy(tool("search_*", decision=decision, allowed_scopes=["internal", "admin"]))
    assert rights(rule, scope="admin").tool("search_x").decision is inside
    assert rights(rule, scope="tenant-123").tool("search_x").decision is outside
    assert rights(rule, scope="ADMIN").tool("search_x").decision is outside, "a scope is no glob and has its case"
    assert rights(rule, scope="tenant-123").tool("other").decision is ALLOW


def test_whoever_is_spared_a_denial_is_not_spared_the_question() -> None:
    rule = policy(model("gpt-4*", decision="deny", require_approval=True, allowed_scopes=["admin"]))
    assert rights(rule, scope="admin").model("gpt-4o").decision is REQUIRE_APPROVAL
    assert rights(rule, scope="other").model("gpt-4o").decision is DENY


@pytest.mark.parametrize("name", ["openai:gpt-4o", "GPT-4o", "azure:gpt-4"])
def test_a_model_is_named_with_its_provider_or_without(name: str) -> None:
    asked = rights(policy(model("gpt-4*", require_approval=True, max_tokens_per_request=10_000)))
    assert asked.model(name).decision is REQUIRE_APPROVAL and asked.model(name).tokens == 10_000
    assert asked.model("openai:gpt-5.5") == Verdict()
    assert rights(policy(model("openai:*", decision="deny"))).model("openai:gpt-4o").decision is DENY


def test_a_model_that_needs_approval_may_still_be_denied() -> None:
    spaced = rights(policy(model("openai:gpt-5", decision="deny")))
    for name in ("openai: gpt-5", "openai:gpt-5 ", " openai:gpt-5", "openai :gpt-5", "gpt-5"):
        assert (spaced.model(name).decision is DENY) is (name != "gpt-5")
    assert rights(policy(model("*", decision="deny", require_approval=True))).model("a:b").decision is DENY


def test_the_narrowest_limit_counts_wherever_it_stands() -> None:
    limits = rights(
        policy(ConstraintPolicy(max_tool_calls_per_turn=9, max_turns=3, max_cost_per_request="0.10")),
        Policy(max_tool_calls_per_turn=4, name="image"),
        policy(ConstraintPolicy(max_cost_per_request=0.2, max_tool_calls_per_turn=5)),
    ).limits
    assert limits.tool_calls_per_turn is not None and limits.tool_calls_per_turn[0] == 4
    assert limits.tool_calls_per_turn[1].policy == "image"
    assert limits.cost_per_request is not None and limits.cost_per_request[0] == Decimal("0.10")
    assert limits.tokens_per_request is None and limits.turns is not None and limits.turns[0] == 3


def test_a_profile_whose_tools_were_never_written_out_offers_none() -> None:
    asked = rights_of((Policy(name="house", profile="full"),), "default")
    assert asked.tool("read").decision is DENY and not asked.offers("read")


def test_what_is_remembered_has_a_bound() -> None:
    asked = rights(Policy(deny=["exec"]))
    for number in range(VERDICTS_MAX + 10):
        asked.tool(f"made_up_{number}")
    assert len(asked._tools) <= VERDICTS_MAX and not asked.offers("exec")


# -- what is no policy --


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: tool(), "tool_patterns: is empty"),
        (lambda: ToolPolicy(tool_patterns="file_*"), "tool_patterns: must be a list of names, not 'file_\\*'"),
        (lambda: tool("a", decision="dney"), "decision: 'dney' is none; they are allow, warn, require_approval, deny"),
        (lambda: tool("a", allowed_scopes=[]), "allowed_scopes: is empty. To forbid it in every scope"),
        (lambda: tool(" a"), "tool_patterns: must be a name without spaces around it"),
        (lambda: tool("a" * 257), "has 257 characters"),
        (lambda: tool("a", reason=7), "reason: must be a text"),
        (lambda: model("a", max_tokens_per_request=0), "max_tokens_per_request: must be a whole number from 1, not 0"),
        (lambda: ConstraintPolicy(max_turns=-1), "max_turns: must be a whole number from 0, not -1"),
        (lambda: ConstraintPolicy(max_turns=True), "max_turns: must be a whole number"),
        (lambda: ConstraintPolicy(max_tool_calls_per_turn=1.5), "max_tool_calls_per_turn: must be a whole number"),
        (lambda: ConstraintPolicy(max_cost_per_request=float("nan")), "must be an amount of dollars, not nan"),
        (lambda: ConstraintPolicy(max_cost_per_request="NaN"), "must be an amount of dollars from 0, not 'NaN'"),
        (lambda: ConstraintPolicy(max_cost_per_request=-0.5), "must be an amount of dollars from 0, not -0.5"),
        (lambda: ConstraintPolicy(max_cost_per_request="much"), "must be an amount of dollars, not 'much'"),
        (lambda: Policy(max_tool_calls_per_turn=-1), "max_tool_calls_per_turn: must be a whole number from 0, not -1"),
        (lambda: Policy(allow=[]), 'allow: is empty. To forbid all tools, write deny = \\["\\*"\\]'),
        (lambda: Policy(deny=["a"] * 1001), "deny: has 1,001 entries"),
        (lambda: Policy(rules=["deny all"]), "rules: 'deny all' is no ToolPolicy or ModelPolicy or ConstraintPolicy"),
        (lambda: Policy(rules=tool("a")), "rules: must be a list"),
        (lambda: Policy(name=""), "name: must be a name"),
        (lambda: PolicyContext(requested_cost="-1"), "requested_cost: must be an amount"),
    ],
)
def test_what_is_no_policy_cannot_be_made(make: Any, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        make()


def test_an_amount_is_the_one_that_was_written() -> None:
    assert ConstraintPolicy(max_cost_per_request=0.1).max_cost_per_request == Decimal("0.1")
    assert ConstraintPolicy(max_cost_per_request="0.10").max_cost_per_request == Decimal("0.1")
