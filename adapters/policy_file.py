"""Policies as people write them: a file of TOML, or the same as plain data. Every mistake is named with its place.

name = "production"
version = "3"
profile = "coding"                  # minimal, coding, messaging, full, or one of [profiles]
also_allow = ["refund"]
deny = ["group:runtime"]
max_tool_calls_per_turn = 10
strict = true

[profiles]
shop = ["refund", "group:web"]

[[tools]]
tool_patterns = ["pay_*"]
decision = "require_approval"       # allow, warn, require_approval, deny
reason = "Money leaves the house."

[[models]]
model_patterns = ["openai:gpt-5*"]
max_tokens_per_request = 4000

[[constraints]]
max_cost_per_request = 0.50
max_turns = 100
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import fields

from ..events.errors import BadInput, BadPolicy
from ..events.policy import ConstraintPolicy, ModelPolicy, Policy, PolicyRule, Profile, ToolPolicy
from ..events.visible import shown

BYTES_MAX = 1024 * 1024
"""The longest file that is read."""

_RULES: dict[str, type[ToolPolicy] | type[ModelPolicy] | type[ConstraintPolicy]] = {
    "tools": ToolPolicy,
    "models": ModelPolicy,
    "constraints": ConstraintPolicy,
}
_KINDS = {"tool": ToolPolicy, "model": ModelPolicy, "constraint": ConstraintPolicy}
_BOOLS = ("strict", "require_approval")


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """The policy in a file of TOML, named after the file unless it says otherwise. Amounts are read exactly.

    Raises BadPolicy, in one line with file and key: no such file, no TOML, an unknown key, a value of the wrong type,
    a negative limit or one that is no number, a decision there is not.
    """
    file = Path(path)
    try:
        with open(file, "rb") as stream:
            text = stream.read(BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise BadPolicy(f"{file}: {getattr(error, 'strerror', None) or error}.") from None
    return parse_policy(text, str(file), name=file.stem)


def parse_policy(text: bytes, where: str, *, name: str = "policy") -> Policy:
    """The policy in the text of a file. name: of one that has none of its own. Raises BadPolicy as `load_policy`."""
    if len(text) > BYTES_MAX:
        raise BadPolicy(f"{where}: is longer than {BYTES_MAX:,} bytes.")
    import tomllib  # most runtimes read no file

    try:
        table = tomllib.loads(text.decode(), parse_float=Decimal)
    except UnicodeDecodeError as error:
        raise BadPolicy(f"{where}: is not UTF-8, at byte {error.start}.") from None
    except (tomllib.TOMLDecodeError, ValueError, RecursionError, ArithmeticError) as error:
        raise BadPolicy(f"{where}: {' '.join(str(error).split()) or type(error).__name__}.") from None
    table.setdefault("name", name)
    return policy_of(table, where)


def policy_of(table: object, where: str = "policy") -> Policy:
    """A policy from plain data, keys in snake_case or in camelCase. where: named in what is raised, BadPolicy.

    Rules stand in `tools`, `models` and `constraints`, or in `rules`, each with its `kind`.
    """
    given = _table(table, where)
    if given.get("profile_tools") is not None and not isinstance(table, Policy):
        raise BadPolicy(f"{where}: profile_tools: what a profile allows follows from `profile`, and cannot be given.")
    rules: list[PolicyRule] = []
    for key, kind in _RULES.items():
        for number, each in enumerate(_list(given.pop(key, ()), f"{where}: {key}"), start=1):
            place = f"{where}: {key}[{number}]"
            rules.append(_made(kind, _table(each, place), place))
    for number, each in enumerate(_list(given.pop("rules", ()), f"{where}: rules"), start=1):
        rules.append(_rule(each, f"{where}: rules[{number}]"))
    profiles = given.pop("profiles", {})
    if isinstance(profiles, Mapping):
        profiles = [{"name": name, "tools": tools} for name, tools in profiles.items()]
    own = []
    for number, each in enumerate(_list(profiles, f"{where}: profiles"), start=1):
        table = _table(each, f"{where}: profiles[{number}]")
        own.append(_made(Profile, table, f"{where}: profiles.{table.get('name', number)}"))
    policy: Policy = _made(Policy, {**given, "rules": rules, "profiles": own}, where)
    return policy


def _rule(each: object, place: str) -> PolicyRule:
    if isinstance(each, ToolPolicy | ModelPolicy | ConstraintPolicy):
        return each
    table = _table(each, place)
    kind = table.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadPolicy(f"{place}: kind: must be one of {', '.join(_KINDS)}, not {shown(kind)}.")
    made: PolicyRule = _made(_KINDS[kind], table, place)
    return made


def _made(kind: Any, table: Mapping[str, Any], place: str) -> Any:
    """One struct of these fields; whatever is wrong with one is said with its place."""
    known = [field.name for field in fields(kind)]
    for key, value in table.items():
        if key not in known:
            extra = [*_RULES] if kind is Policy else []
            raise BadPolicy(f"{place}: {key}: there is no such key; there are {', '.join([*known, *extra])}.")
        if key in _BOOLS and not isinstance(value, bool):
            raise BadPolicy(f"{place}: {key}: must be true or false, not {shown(value)}.")
    missing = [field.name for field in fields(kind) if field.required and field.name not in table]
    if missing:
        raise BadPolicy(f"{place}: {missing[0]}: is missing.")
    try:
        return kind(**table)
    except BadInput as error:
        raise BadPolicy(f"{place}: {error}") from None


def _table(value: object, place: str) -> dict[str, Any]:
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if not isinstance(value, Mapping):
        raise BadPolicy(f"{place}: must be a table, not {shown(value)}.")
    table: dict[str, Any] = {}
    for key, each in value.items():
        name = _snake(str(key))
        if name in table:
            raise BadPolicy(f"{place}: {key}: is there twice.")
        table[name] = each
    return table


def _list(value: object, place: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise BadPolicy(f"{place}: must be a list of tables, not {shown(value)}.")
    return list(value)


def _snake(key: str) -> str:
    return "".join("_" + char.lower() if char.isascii() and char.isupper() else char for char in key)
