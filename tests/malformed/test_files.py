"""Malformed files of a user's: scripts, policies, prices, budgets and settings of failover."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reenact.adapters import plain_file, prices
from reenact.adapters.models.script import _parsed
from reenact.adapters.policy_file import load_policy, parse_policy, policy_of
from reenact.events import codec
from reenact.events.budget import budget_of
from reenact.events.content import Usage
from reenact.events.errors import BadInput, BadPolicy
from reenact.events.image import ImageConfig, ImageUpdated
from reenact.events.ledger import BudgetSet
from reenact.models import failover_file
from tests.malformed.attack import attacked, finds, plain, plain_bytes


def test_files_of_scripts() -> None:
    corpus = [
        b'[{"text":"hi"}]',
        b'{"steps":[{"tool_calls":[{"name":"look","input":{"city":"Paris"}}]},{"text":"ok"}],"repeat":true}',
    ]
    attacked(lambda text: _parsed("script.json", text), corpus, (BadInput,))


# -- policies

POLICIES = [
    b'name = "a"\nprofile = "coding"\nallow = ["read", "group:fs"]\ndeny = ["exec"]\nmax_tool_calls_per_turn = 3\n',
    b'[profiles]\nshop = ["refund"]\n[[tools]]\ntool_patterns = ["pay_*"]\ndecision = "deny"\nreason = "No."\n',
    b'[[models]]\nmodel_patterns = ["gpt-*"]\nrequire_approval = true\nmax_tokens_per_request = 10\n'
    b"[[constraints]]\nmax_cost_per_request = 0.5\nmax_turns = 3\n",
]
POLICY_TABLES = [
    b'{"name":"a","alsoAllow":["x"],"rules":[{"kind":"tool","toolPatterns":["*"],"allowedScopes":["acme"]}]}',
    b'{"rules":[{"kind":"constraint","maxCostPerRequest":"0.5"}],"profiles":{"shop":["refund"]},"strict":true}',
]


def test_files_of_policies() -> None:
    attacked(lambda text: parse_policy(text, "policy.toml"), POLICIES, (BadPolicy,))


def test_policies_as_plain_data() -> None:
    def parse(data: bytes) -> None:
        policy = policy_of(plain(data))
        codec.encode(ImageUpdated(version=1, updated_at=1, config=ImageConfig(policy=policy)))

    attacked(parse, POLICY_TABLES, (BadPolicy,))


def test_policies_read_from_files(tmp_path: Path) -> None:
    def parse(data: bytes) -> None:
        (tmp_path / "policy.toml").write_bytes(data)
        load_policy(tmp_path / "policy.toml")

    attacked(parse, POLICIES, (BadPolicy,))


# -- prices, budgets and failover

PRICES = {"x:a": {"input": "3", "output": 15.5}, "y:b": {"input": 1, "output": 2, "cache_read": 0.1}}
BUDGET = {"max_cost_total": "2.50", "maxTokensDaily": 1000, "on_breach": "deny", "principal_id": "ann"}
SETTINGS = {"timeout_s": 120, "keyOrder": "given", "stop_on": ["auth"], "cooldowns": {"transient_s": [10, 60]}}
FILES: dict[str, tuple[Any, bytes]] = {
    "prices": (PRICES, b'["x:a"]\ninput = 3\noutput = "15"\n["y:b"]\ninput = 1.5\noutput = 2\ncache_read = 0.1\n'),
    "budget": (BUDGET, b'max_cost_total = "2.50"\nmax_tokens_daily = 1000\nprincipal_id = "ann"\n'),
    "failover": (SETTINGS, b'timeout_s = 120\nstop_on = ["auth"]\n[cooldowns]\ntransient_s = [10, 60]\n'),
}


def reading(what: str, path: Path) -> Callable[[bytes], None]:
    """The parser of a kind of file, as the command line goes about it."""

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        if what == "prices":
            cost = prices.table_of(str(path))(Usage(input_tokens=10**9, cache_read_tokens=7), "a", "x", 0)
            assert cost.amount is None or Decimal(cost.amount) >= 0
        elif what == "budget":
            codec.row(BudgetSet(budget=budget_of(plain_file.object_in(str(path), "an object")), at=0))
        else:
            assert failover_file.failover_in(str(path)).timeout_s is not None

    return parse


@pytest.mark.parametrize("form", ["json", "toml"])
@pytest.mark.parametrize("what", FILES)
def test_files_of_a_user(what: str, form: str, tmp_path: Path) -> None:
    plainly, toml = FILES[what]
    parse = reading(what, tmp_path / f"file.{form}")
    if form == "json":
        attacked(parse, [json.dumps(plainly).encode()], (BadInput,), lambda rng: plain_bytes(rng, [plainly]))
    else:
        attacked(parse, [toml], (BadInput,))


# -- and the attack can find something


def trusting_reader(path: str, wanted: str) -> Any:
    return json.loads(Path(path).read_bytes())


def trusting_table(given: Any, place: str, kind: Any) -> dict[str, Any]:
    names = {form: each.name for each in msgspec.structs.fields(kind) for form in (each.name, each.encode_name)}
    return {names[key]: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


BROKEN: dict[str, tuple[object, str, Any]] = {
    "prices": (prices, "object_in", trusting_reader),
    "budget": (plain_file, "object_in", trusting_reader),
    "failover": (failover_file, "object_in", trusting_reader),
    "prices: an amount": (prices, "checked_dollars", lambda name, value: str(Decimal(value))),
    "failover: a key": (failover_file, "_table", trusting_table),
}


@pytest.mark.parametrize("build", BROKEN)
def test_each_of_them_that_trusts_its_input_is_found(
    build: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, name, broken = BROKEN[build]
    monkeypatch.setattr(where, name, broken)
    finds(lambda: test_files_of_a_user(build.partition(":")[0], "json", tmp_path))
