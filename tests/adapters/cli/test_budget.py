"""budget show, set, rm, and cost: beside an owner and without one."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import get_args

import pytest

from reenact import Budget, Ledger, LedgerEvent, RuntimeLedgerWriter
from reenact.adapters.cli.look import bar
from reenact.adapters.cli.read import Groups
from reenact.runtime import Runtime
from tests.adapters.cli.processes import owning
from tests.adapters.cli.terminal import ESCAPES, reenact


def test_a_limit_is_set_shown_kept_to_and_lifted() -> None:
    assert "limited: max_tokens_total 9000\n" in reenact("budget", "set", "--max-tokens-total", "9000").err
    assert reenact("run", "hello", "-m", "scripted:hello").code == 0
    row = reenact("budget", "--json").row
    assert (row["limit"], row["most"], row["strategy"], row["scope"]) == ("max_tokens_total", 9000, "deny", "default")
    assert 0 < row["used"] < 100 and row["used"] + row["outstanding"] + row["left"] == 9000
    assert "max_tokens_total" in reenact("budget", "show").out
    reenact("budget", "set", "--max-tokens-total", "20")
    denied = reenact("run", "hello again", "-m", "scripted:hello")
    assert denied.code == 1 and "max_tokens_total of the scope is 20" in denied.err
    assert "lifted" in reenact("budget", "rm").err
    assert "no such limit" in reenact("budget", "rm").err
    assert reenact("run", "hello", "-m", "scripted:hello").code == 0
    assert "sound" in reenact("verify").out


@pytest.mark.parametrize("terminal", [False, True])
def test_given_a_limit_that_warns_when_a_turn_passes_it_then_whoever_runs_it_is_told_in_one_line(
    terminal: bool,
) -> None:
    reenact("budget", "set", "--max-requests-daily", "1", "--then", "warn")
    said = "reenact: nearly used up, or passed: max_requests_daily of the scope\n"
    for _ in range(2):
        ended = reenact("run", "hello", "-m", "scripted:hello", terminal=terminal)
        assert ended.code == 0 and ESCAPES.sub("", ended.err).count(said) == 1
        assert ended.out == "Hello! I am a script, and this is all I say.\n"
    assert "budget_warned" in [row["type"] for row in reenact("run", "hello", "-m", "scripted:hello", "--json").rows]
    typed = reenact("chat", "-m", "scripted:hello", stdin="hello\n", terminal=terminal)
    assert ESCAPES.sub("", typed.err).count(said) == 1


@pytest.mark.parametrize("name", ["max_cost_daily", "maxCostDaily"])
def test_what_is_named_beside_a_file_of_limits_goes_before_what_it_says_in_either_spelling(name: str) -> None:
    Path("b.json").write_text(f'{{"{name}": 5, "maxTokensDaily": 9}}')
    row = reenact("budget", "set", "--file", "b.json", "--max-cost-daily", "7", "--json").row
    assert (row["maxCostDaily"], row["maxTokensDaily"]) == ("7", 9)


def test_a_table_of_prices_is_refused_where_cost_is_by_tool() -> None:
    assert reenact("run", "hello", "-m", "scripted:hello").code == 0
    Path("p.json").write_text('{"scripted:hello": {"input": 1000, "output": "2000"}}')
    ended = reenact("cost", "--by", "tool", "--prices", "p.json")
    assert ended.code == 2 and "Tools have no price" in ended.err


def test_limits_come_from_a_file_for_a_principal_or_a_session_too() -> None:
    Path("b.toml").write_text('max_cost_daily = "5"\nexceed_strategy = "warn"\n')
    Path("b.json").write_text(json.dumps({"maxRequestsDaily": 7}))
    assert reenact("budget", "set", "--file", "b.toml", "--json").row["maxCostDaily"] == "5"
    assert reenact("budget", "set", "--file", "b.json", "--principal", "ann", "--json").row["principalId"] == "ann"
    assert reenact("run", "hello", "-m", "scripted:hello").code == 0
    assert reenact("budget", "set", "2.50", "--session", "last", "--json").row["maxCostTotal"] == "2.5"
    rows = reenact("budget", "--json").rows
    assert [(row["of"], row["limit"]) for row in rows] == [
        ("scope", "max_cost_daily"),
        ("principal", "max_requests_daily"),
        ("session", "max_cost_total"),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-cost-daily", "-1"), "max_cost_daily must be US dollars"),
        (("--max-cost-daily", "nan"), "max_cost_daily must be US dollars"),
        (("--max-tokens-daily", "1.5"), "max_tokens_daily must be a whole number"),
        (("--max-tokens-daily", "５"), "max_tokens_daily must be a whole number"),
        (("--max-tokens-daily", " 5 "), "max_tokens_daily must be a whole number"),
        (("--max-requests-daily", "1_000"), "max_requests_daily must be a whole number"),
        (("５",), "max_cost_total must be US dollars"),
        ((" 5 ",), "max_cost_total must be US dollars"),
        (("1_000",), "max_cost_total must be US dollars"),
        (("1e3",), "max_cost_total must be US dollars"),
        (("5", "--warning-threshold", "０.5"), "warning_threshold must be above 0"),
        (("--then", "explode"), "exceed_strategy must be deny, degrade or warn"),
        (("--file", "nowhere.json"), "nowhere.json"),
        (("--file", "bad.json"), "bad.json"),
        (("--file", "list.json"), "a budget is an object"),
        (("--file", "unknown.json"), "has no field"),
        ((), "name a limit"),
    ],
)
def test_bad_input_is_one_line_and_begins_no_log(words: tuple[str, ...], said: str) -> None:
    Path("bad.json").write_text("{")
    Path("list.json").write_text("[1]")
    Path("unknown.json").write_text('{"max_money": 1}')
    ended = reenact("budget", "set", *words)
    assert ended.code == 2 and said in ended.err and ended.err.count("\n") == 1
    assert not Path("reenact.db").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--degrade-to", "nonsense"), "nonsense"),
        (("--degrade-to", "openai:no-such-model"), "No price is known for openai:no-such-model"),
        ((), "a cheaper model to go on with, and none is named"),
        (
            ("--degrade-to", "anthropic:claude-opus-4-1"),
            "opus-4-1 costs no less than anthropic:claude-haiku-4-5",
        ),
        (("--degrade-to", "anthropic:claude-haiku-4-5"), "costs no less than"),
    ],
)
def test_a_limit_that_degrades_to_nothing_cheaper_is_refused(words: tuple[str, ...], said: str) -> None:
    assert reenact("run", "hello", "-m", "anthropic:claude-haiku-4-5").code != 2
    ended = reenact("budget", "set", "1", "--then", "degrade", *words)
    assert ended.code == 2 and said in ended.err and ended.err.count("\n") == 1, ended.err
    assert reenact("budget", "--json").rows == []


OWNER = """
import asyncio, json, sys
from reenact import Runtime


async def main():
    async with Runtime("sqlite:///reenact.db") as runtime:
        bot = await runtime.image("bot", model="scripted:hello")
        print("null", flush=True)
        while (word := (await asyncio.to_thread(sys.stdin.readline)).strip()):
            if word == "send":
                result = await bot.send("hi")
                said = result.failure.code if result.failure is not None else result.status
            elif word == "get":
                got = (await runtime.request("budget_get_request", {})).data
                said = [[limit["most"] for limit in got.limits], len(got.budgets)]
            else:
                said = (await runtime.request("budget_set_request", {"budget": {"max_tokens_total": -1}})).data.error
            print(json.dumps(said), flush=True)

asyncio.run(main())
"""


def test_a_limit_goes_to_whoever_owns_the_log() -> None:
    with owning(OWNER) as owner:
        assert owner.stdin is not None and owner.stdout is not None

        def asked(word: str) -> object:
            assert owner.stdin is not None and owner.stdout is not None
            owner.stdin.write(f"{word}\n")
            owner.stdin.flush()
            return json.loads(owner.stdout.readline())

        assert owner.stdout.readline() == "null\n"
        assert reenact("budget", "set", "--max-tokens-total", "20", "--json").row["maxTokensTotal"] == 20
        assert asked("send") == "budget_exceeded"
        assert reenact("budget", "--json").row["most"] == 20
        assert asked("get") == [[20], 1]
        assert "max_tokens_total" in str(asked("set wrongly"))
        assert reenact("budget", "rm", "--json").row == {"removed": True}
        assert asked("send") == "succeeded"
        owner.stdin.close()


def test_history_is_priced_anew_without_touching_the_log() -> None:
    assert reenact("run", "hello", "-m", "scripted:hello").code == 0
    before = Path("reenact.db").read_bytes()
    Path("p.json").write_text('{"scripted:hello": {"input": 1000, "output": "2000"}}')
    row = reenact("cost", "--prices", "p.json", "--json").row
    assert float(row["amount"]) == (row["inputTokens"] * 1000 + row["outputTokens"] * 2000) / 1_000_000
    assert reenact("cost", "--json").row["amount"] == "0"
    Path("q.toml").write_text('["other:model"]\ninput = 1\noutput = 1\n')
    assert reenact("cost", "--prices", "q.toml", "--json").row["unpriced"] == 1
    for text in ("{", "[]", "{}", '{"a:b": {"input": 1}}', '{"a:b": {"input": -1, "output": 1}}', '{"a:b": 3}'):
        Path("bad.json").write_text(text)
        ended = reenact("cost", "--prices", "bad.json")
        assert ended.code == 2 and "bad.json" in ended.err
    assert Path("reenact.db").read_bytes() == before


@pytest.mark.parametrize("by", ["day", "model", "session", "tool", "scope"])
def test_cost_is_added_up_by(by: str) -> None:
    assert reenact("run", "hello", "-m", "scripted:hello").code == 0
    assert reenact("cost", "--by", by, "--json").code == 0


@pytest.mark.parametrize("by", get_args(Groups))
def test_what_programs_told_a_ledger_is_in_what_it_cost(by: str) -> None:
    """They say what they like: of no session, job or model, and what a tool cost."""

    async def tell() -> None:
        async with Runtime("sqlite:///reenact.db") as runtime:
            await runtime.set_budget(Budget(max_cost_total=100))
            book = Ledger(RuntimeLedgerWriter(runtime))
            await book.record_model_usage(None, {"input_tokens": 7, "output_tokens": 5, "cost": "5"}, model="m")
            await book.record_model_usage(None, {"total_tokens": 9, "cost": "0.25"}, provider="p", model="m")
            await book.record_tool_usage(None, tool_name="search", duration_ms=12.4)
            for kind in ("tool_usage", "connector_usage", "audit"):
                entry = LedgerEvent(type=kind, tool_name="maps", cost="0.5")
                await book.writer.write(entry)

    asyncio.run(tell())
    assert reenact("run", "hello", "-m", "scripted:hello").code == 0
    used = reenact("budget", "--json").row["used"]
    found = reenact("cost", "--by", by, "--json").rows
    assert reenact("cost", "--by", by).code == 0
    if by == "tool":
        assert [(row["name"], row["calls"], row["durationMs"]) for row in found] == [("maps", 1, 0), ("search", 1, 12)]
        return
    assert sum(Decimal(row["amount"]) for row in found) == Decimal(used) == Decimal("6.25")
    assert sum(row["calls"] for row in found) == 5
    columns = "sum(amount) AS usd, sum(input_tokens + output_tokens)::INT AS tokens"
    row = reenact("sql", f"SELECT {columns} FROM ledger_calls WHERE starts_with(call, 'usage:')", "--json").row
    assert (Decimal(row["usd"]), row["tokens"]) == (Decimal("6.25"), 21)


def test_after_a_model_was_called_and_no_tool_that_is_what_is_said_of_tools() -> None:
    assert reenact("run", "hello", "-m", "scripted:hello").code == 0
    assert reenact("cost", "--by", "tool").err == "no tool was called yet.\n"


def test_a_file_of_limits_that_names_one_twice_is_refused() -> None:
    Path("b.json").write_text('{"max_cost_daily": 5, "max_cost_daily": 7}')
    ended = reenact("budget", "set", "--file", "b.json")
    assert ended.code == 2 and "b.json: 'max_cost_daily' is named twice." in ended.err


def test_on_a_terminal_a_bar_shows_how_much_is_gone() -> None:
    reenact("budget", "set", "--max-tokens-total", "9000")
    assert "░" in reenact("budget", terminal=True).out
    assert "░" not in reenact("budget").out
    reenact("run", "hello", "-m", "scripted:hello")
    assert "100%" in reenact("cost", terminal=True).out, "it cost nothing, so the bar is of tokens"
    assert "%" not in reenact("cost").out
    assert bar(0.5, cells=4) == "██░░  50%"
    assert bar(2.0, cells=4) == "████ 200%"
    assert bar(0.0, cells=4) == "░░░░   0%"


# -- a question about a limit --

ASKING = 'max_tokens_total = 30\non_breach = "ask"\n'


def test_a_run_that_waits_for_a_raise_says_by_how_much_and_so_does_its_approval() -> None:
    Path("b.toml").write_text(ASKING)
    reenact("budget", "set", "--file", "b.toml")
    asked = reenact("run", "hello", "-m", "scripted:hello")
    by = reenact("approvals", "--json").row["payload"]["raise_by"]
    assert asked.code == 1 and f"Raise it by {by}, to {30 + by}?" in asked.err and "(or deny)" in asked.err
    listed = reenact("approvals").out
    assert f"raise by {by}: max_tokens_total of the scope" in listed and "raise_by" not in listed
    said = reenact("approvals", "approve", "a1")
    assert said.code == 0 and f"limit raised by {by}, if it is still 30: max_tokens_total of the scope\n" in said.out
    assert "reenact resume" in said.err and reenact("resume").code == 0


def test_after_a_no_that_ends_the_job_nobody_is_sent_to_resume_it() -> None:
    Path("b.toml").write_text(ASKING)
    reenact("budget", "set", "--file", "b.toml")
    reenact("run", "hello", "-m", "scripted:hello")
    said = reenact("approvals", "deny", "a1")
    assert said.code == 0 and "limit not raised\n" in said.out and said.err == ""
    assert "nothing is left to do" in reenact("resume").err


def test_what_was_used_before_a_limit_is_said_when_it_is_set_and_counts() -> None:
    """Nobody owns the log: whoever sets the limit counts."""
    for _ in range(2):
        assert reenact("run", "hello", "-m", "scripted:hello").code == 0
    said = reenact("budget", "set", "--max-requests-daily", "3", "--max-tokens-total", "9000")
    assert "used of it already: max_tokens_total 26, max_requests_daily 2\n" in said.err
    assert [row["used"] for row in reenact("budget", "--json").rows] == [26, 2]
    assert reenact("run", "hello", "-m", "scripted:hello").code == 0
    assert reenact("run", "hello", "-m", "scripted:hello").code == 1
    assert "2 sessions used 26 tokens + 2 requests in all" in reenact("events").out
    assert "sound" in reenact("verify").out


def test_limits_that_are_set_again_without_some_of_before_say_which_of_them_are_lifted() -> None:
    first = reenact("budget", "set", "--max-requests-daily", "10", "--max-cost-daily", "5")
    assert "limited: max_cost_daily $5, max_requests_daily 10\n" in first.err
    assert "used of it already" not in first.err
    again = reenact("budget", "set", "--max-requests-daily", "3", "--on-breach", "ask")
    assert "limited: max_requests_daily 3; lifted, for they were not named again: max_cost_daily $5\n" in again.err
    reenact("budget", "set", "--principal", "ann", "--max-tokens-daily", "7")
    [whole, ann] = reenact("budget", "--json").rows
    assert (whole["limit"], whole["strategy"], ann["strategy"]) == ("max_requests_daily", "ask", "deny")
