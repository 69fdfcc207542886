"""Profiles, groups and aliases: the names under which policies offer tools, and those that no tool has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.actors.policy import Rights
from reenact.actors.profiles import ALIASES, COVERS, GROUPS, unknown_names
from reenact.events.errors import BadInput
from reenact.events.policy import Policy, Profile
from tests.actors.layers import policy, rights, tool


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


GLOBS = st.sampled_from(sorted({*ALIASES, *ALIASES.values(), *COVERS, "read"})).flatmap(
    lambda name: st.integers(0, len(name)).flatmap(
        lambda at: st.sampled_from([f"{name[:at]}*", f"*{name[at:]}", f"{name[:at]}?{name[at + 1 :]}", name.upper()])
    )
)


@given(st.lists(GLOBS, min_size=1, max_size=3), st.sampled_from(["deny", "require_approval", "warn"]))
def test_whatever_a_rule_or_a_list_takes_by_a_glob_it_takes_under_every_name_and_with_what_that_covers(
    patterns: list[str], decision: str
) -> None:
    for taking in (policy(tool(*patterns, decision=decision)), Policy(deny=patterns)):
        said = rights(taking)
        for name, other in ALIASES.items():
            assert said.tool(name).decision is said.tool(other).decision
        for name, covered in COVERS.items():
            assert said.tool(covered).decision.rank >= said.tool(name).decision.rank


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


def test_a_policy_whose_profile_was_never_written_out_offers_nothing() -> None:
    assert not Rights([Policy(profile="full")], "default").offers("read")
