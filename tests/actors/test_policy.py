"""What the rules say: of all that apply the strictest counts, and whatever is added can only take away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors.engine import PolicyEngine
from reenact.actors.policy import VERDICTS_MAX, Rights, Verdict, rights_of
from reenact.actors.profiles import GROUPS, PROFILES, for_child, resolve, unknown_names
from reenact.events.errors import BadInput, NotFound, PolicyDenied
from reenact.events.policy import (
    ConstraintPolicy,
    ModelPolicy,
    Policy,
    PolicyContext,
    PolicyDecision,
    PolicyRef,
    PolicyRule,
    Profile,
    ToolPolicy,
    worst,
)

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


# -- any layers at all --

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


@settings(max_examples=300)
@given(before=layers, added=layer, place=st.integers(0, 4), scope=scope)
def test_one_more_layer_never_weakens_a_decision(
    before: tuple[Policy, ...], added: Policy, place: int, scope: str
) -> None:
    after = (*before[:place], added, *before[place:])
    usable(before, after)
    assert_no_wider(rights(*after, scope=scope), rights(*before, scope=scope))


profiled = st.builds(Policy, profile=st.sampled_from(["shop", "desk", None]), profiles=own_profiles)


@settings(max_examples=500)
@given(before=st.lists(profiled, max_size=3).map(tuple), added=profiled, place=st.integers(0, 3))
def test_nor_does_one_that_brings_profiles_of_its_own(before: tuple[Policy, ...], added: Policy, place: int) -> None:
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


@given(parent=layers, own=st.none() | layer, grandchild=st.none() | layer, leaf=st.booleans(), scope=scope)
def test_the_rights_of_a_child_are_within_those_of_its_parent(
    parent: tuple[Policy, ...], own: Policy | None, grandchild: Policy | None, leaf: bool, scope: str
) -> None:
    child = for_child(parent, own, leaf=leaf)
    usable(parent, child, for_child(child, grandchild))
    assert_no_wider(rights(*child, scope=scope), rights(*parent, scope=scope))
    assert_no_wider(rights(*for_child(child, grandchild), scope=scope), rights(*child, scope=scope))


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


# -- profiles, groups, aliases --


def offered(*layers: Policy) -> set[str]:
    every = {name for members in GROUPS.values() for name in members} | {"refund"}
    return {name for name in every if rights(*layers).offers(name)}


def test_the_four_profiles_are_those_of_their_names() -> None:
    minimal = {"read", "web_search", "web_fetch", "memory_search", "memory_get"}
    files = {"read", "write", "edit", "apply_patch", "list_directory"}
    memory = {"memory_search", "memory_get", "memory_store", "memory_update"}
    mail = {"message", "email", "send_email", "send_notification"}
    assert offered(Policy(profile="minimal")) == minimal
    assert offered(Policy(profile="coding")) == files | {"web_search", "web_fetch"} | memory
    assert offered(Policy(profile="messaging")) == {"read", "web_search", "web_fetch"} | memory | mail
    assert offered(Policy(profile="full")) == offered()


def test_a_profile_is_added_to_narrowed_and_taken_from() -> None:
    assert "refund" in offered(Policy(profile="minimal", also_allow=["refund"]))
    assert offered(Policy(profile="minimal", also_allow=["refund"], allow=["read", "refund", "exec"])) == {
        "read",
        "refund",
    }
    assert offered(Policy(profile="minimal", deny=["group:web", "group:memory"])) == {"read"}


def test_a_profile_of_ones_own_serves_the_layers_under_it() -> None:
    outer = Policy(profiles=[Profile(name="shop", tools=["refund", "group:web"])])
    assert offered(outer, Policy(profile="shop")) == {"refund", "web_search", "web_fetch"}
    with pytest.raises(BadInput, match="there is no 'shop'; there are coding, full, messaging, minimal"):
        rights(Policy(profile="shop"), outer)
    with pytest.raises(BadInput, match="'full' is there from the start"):
        rights(Policy(profiles=[Profile(name="full", tools=["read"])]))


def test_a_rule_on_an_alias_is_a_rule_on_the_tool() -> None:
    for denied in ("bash", "exec", "b*", "EX*"):
        assert not {"bash", "exec"} & {name for name in ("bash", "exec") if rights(Policy(deny=[denied])).offers(name)}
    assert rights(Policy(allow=["bash"])).offers("exec") and not rights(Policy(allow=["b*"])).offers("exec")
    assert not rights(policy(tool("bash", decision="deny"))).offers("exec")


@pytest.mark.parametrize("name", ["apply_patch", "apply-patch"])
def test_who_may_write_may_patch_and_who_may_not_may_not(name: str) -> None:
    assert rights(Policy(allow=["write"])).offers(name)
    assert not rights(Policy(deny=["write"])).offers(name) and not rights(Policy(deny=["wr*"])).offers(name)
    assert not rights(Policy(allow=["apply_patch"])).offers("write")


def test_a_group_there_is_not_is_refused_for_it_would_rule_nothing() -> None:
    with pytest.raises(BadInput, match="policy image: deny: there is no group 'shell'"):
        rights(Policy(name="image", deny=["group:shell"]))
    everything = {name for members in GROUPS.values() for name in members}
    assert offered(Policy(deny=["group:openclaw"])) == {"refund"} and len(everything) > 25


def test_names_that_no_tool_has_are_found_in_what_is_allowed_and_in_what_is_denied() -> None:
    strange = Policy(
        allow=["read", "refnud", "Refund"],
        deny=["exce", "shell_*"],
        rules=[tool("pya", decision="deny")],
        also_allow=["x"],
    )
    assert unknown_names(strange, ["refund"]) == ("refnud", "x", "exce", "pya")
    assert unknown_names(Policy(deny=["bash", "apply-patch", "group:fs"]), []) == ()


def test_a_child_lacks_what_children_lack_unless_its_own_policy_names_it() -> None:
    def may(name: str, own: Policy | None = None, leaf: bool = True, parent: Sequence[Policy] = ()) -> bool:
        return rights(*for_child(parent, own, leaf=leaf)).offers(name)

    assert not may("cron") and not may("sessions_spawn") and may("sessions_spawn", leaf=False) and may("read")
    assert may("cron", Policy(also_allow=["cron"])) and may("cron", Policy(allow=["CRON"]))
    assert not may("cron", Policy(also_allow=["cron"]), parent=[Policy(deny=["cron"])])
    assert not may("exec", Policy(allow=["exec"]), parent=[Policy(profile="minimal")])


def test_a_policy_whose_profile_was_never_written_out_offers_nothing() -> None:
    assert not Rights([Policy(profile="full")], "default").offers("read")


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


# -- the engine --


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


def test_every_rule_makes_a_version_and_an_older_one_can_still_be_named() -> None:
    made = engine()
    assert made.version == "4"
    before = PolicyContext(policy_ref=PolicyRef(name="policy", version="0"))
    assert ask(made.check_tool("file_read", before)).decision is ALLOW
    assert ask(made.check_tool("file_read")).decision is DENY
    with pytest.raises(NotFound, match="There is no policy policy, version 9"):
        ask(made.check_tool("file_read", PolicyContext(policy_ref=PolicyRef(name="policy", version="9"))))


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


@given(before=layers, added=st.lists(rules, max_size=4))
def test_the_engine_says_what_the_evaluator_says(before: tuple[Policy, ...], added: list[PolicyRule]) -> None:
    usable(before)
    made = PolicyEngine(added, layers=before)
    plain = rights(*before, Policy(rules=tuple(added)))
    for name in TOOLS:
        assert ask(made.check_tool(name)).decision is plain.tool(name).decision
