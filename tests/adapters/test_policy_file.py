"""Policies as people write them: what a file says is what is held to, and every mistake is named with its place."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reenact.adapters import policy_file
from reenact.adapters.policy_file import BYTES_MAX, load_policy, policy_of
from reenact.events.errors import BadInput, BadPolicy
from reenact.events.policy import ConstraintPolicy, ModelPolicy, Policy, PolicyDecision, Profile, ToolPolicy


def written(tmp_path: Path, text: str | bytes, name: str = "house.toml") -> Path:
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_the_file_in_the_docstring_is_the_policy_it_looks_like(tmp_path: Path) -> None:
    assert policy_file.__doc__ is not None
    _, _, text = policy_file.__doc__.partition("\n\n")
    policy = load_policy(written(tmp_path, "\n".join(line.strip() for line in text.splitlines())))
    assert policy == Policy(
        name="production",
        version="3",
        profile="coding",
        also_allow=("refund",),
        deny=("group:runtime",),
        max_tool_calls_per_turn=10,
        strict=True,
        profiles=(Profile(name="shop", tools=("refund", "group:web")),),
        rules=(
            ToolPolicy(
                tool_patterns=("pay_*",),
                decision=PolicyDecision.REQUIRE_APPROVAL,
                reason="Money leaves the house.",
            ),
            ModelPolicy(model_patterns=("openai:gpt-5*",), max_tokens_per_request=4000),
            ConstraintPolicy(max_cost_per_request=Decimal("0.50"), max_turns=100),
        ),
    )


def test_a_policy_without_a_name_has_that_of_its_file_and_an_empty_file_allows_everything(tmp_path: Path) -> None:
    assert load_policy(written(tmp_path, "", "night shift.toml")) == Policy(name="night shift")


def test_amounts_are_read_as_they_are_written(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path, "[[constraints]]\nmax_cost_per_request = 0.1\n"))
    assert policy.rules == (ConstraintPolicy(max_cost_per_request=Decimal("0.1")),)


def test_plain_data_in_either_spelling_is_the_same_policy() -> None:
    policy = Policy(
        name="a",
        also_allow=("x",),
        profiles=(Profile(name="shop", tools=("refund",)),),
        rules=(ToolPolicy(tool_patterns=("*",), allowed_scopes=("acme",)), ConstraintPolicy(max_cost_per_request="1")),
    )
    assert policy_of(msgspec.to_builtins(policy)) == policy == policy_of(policy)
    snake = {
        "name": "a",
        "also_allow": ["x"],
        "profiles": {"shop": ["refund"]},
        "tools": [{"tool_patterns": ["*"], "allowed_scopes": ["acme"]}],
        "constraints": [{"max_cost_per_request": 1}],
    }
    assert policy_of(snake) == policy


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("dney = ['exec']", "dney: there is no such key; there are name, version, rules, profile, allow"),
        ("deny = 'exec'", "deny: must be a list of names, not 'exec'"),
        ("deny = [3]", "deny: must be a name without spaces around it, not 3"),
        ("allow = []", 'allow: is empty. To forbid all tools, write deny = ["*"]'),
        ("strict = 'yes'", "strict: must be true or false, not 'yes'"),
        ("version = []", "version: must be a name"),
        ("max_tool_calls_per_turn = -1", "max_tool_calls_per_turn: must be a whole number from 0, not -1"),
        ("max_tool_calls_per_turn = 1.5", "max_tool_calls_per_turn: must be a whole number from 0"),
        ("max_tool_calls_per_turn = 99999999999999999999", "max_tool_calls_per_turn: must be a whole number"),
        ("profiles = ['a']", "profiles[1]: must be a table, not 'a'"),
        ("[profiles]\nshop = 'refund'", "profiles.shop: profile shop: must be a list of names, not 'refund'"),
        ("[tools]\ntool_patterns = ['a']", "tools: must be a list of tables"),
        ("[[tools]]\ndecision = 'deny'", "tools[1]: tool_patterns: is missing"),
        ("[[tools]]\ntool_patterns = ['a']\n[[tools]]\ntool_patterns = []", "tools[2]: tool_patterns: is empty"),
        ("[[tools]]\ntool_patterns = ['a']\ndecision = 'dney'", "tools[1]: decision: 'dney' is none; they are allow, "),
        ("[[tools]]\ntool_patterns = ['a']\nscopes = ['b']", "tools[1]: scopes: there is no such key; there are tool"),
        ("[[models]]\nmodel_patterns = ['a']\nrequire_approval = 1", "models[1]: require_approval: must be true or"),
        ("[[models]]\nmodel_patterns = ['a']\nmax_tokens_per_request = 0", "max_tokens_per_request: must be a whole"),
        ("[[constraints]]\nmax_cost_per_request = nan", "constraints[1]: max_cost_per_request: must be an amount"),
        ("[[constraints]]\nmax_cost_per_request = inf", "max_cost_per_request: must be an amount of dollars"),
        ("[[constraints]]\nmax_cost_per_request = -0.01", "must be an amount of dollars from 0, not"),
        ("[[constraints]]\nmax_turns = true", "constraints[1]: max_turns: must be a whole number from 0, not True"),
        ("deny = ['a'", "Unclosed array"),
        ("deny = ['a']\ndeny = ['b']", "Cannot overwrite a value"),
        (b"name = '\xff'", "is not UTF-8, at byte 8"),
        ("#" * (BYTES_MAX + 1), "is longer than 1,048,576 bytes"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(BadPolicy) as caught:
        load_policy(file)
    said = str(caught.value)
    assert said.startswith(f"{file}: ") and "\n" not in said
    assert complaint in said
    assert isinstance(caught.value, BadInput) and caught.value.code == "bad_policy"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(BadPolicy):
            load_policy(path)


def test_a_key_in_both_spellings_is_refused() -> None:
    given: dict[str, Any] = {"alsoAllow": ["a"], "also_allow": ["b"]}
    with pytest.raises(BadPolicy, match="also_allow: is there twice"):
        policy_of(given)
