"""What calls cost: the price table against 120 counted calls, and what has no price."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.adapters import prices
from reenact.events.budget import nanos
from reenact.events.content import Cost, Usage

JUNE_2026 = 1_781_000_000_000_000
DECEMBER_2026 = 1_796_000_000_000_000
USAGE = Usage(input_tokens=1000, output_tokens=100)
SEARCH = Decimal("0.01")  # a web search; the expected prices are those of the tokens alone


def usage_of(counted: dict[str, int]) -> Usage:
    extra = {
        ours: counted[theirs]
        for theirs, ours in (("web_searches", "web_search_requests"), ("input_audio_tokens", "input_audio_tokens"))
        if theirs in counted
    }
    return Usage(
        input_tokens=counted.get("input_tokens", 0),
        output_tokens=counted.get("output_tokens", 0),
        cache_read_tokens=counted.get("cache_read_tokens", 0),
        cache_write_tokens=counted.get("cache_write_tokens", 0),
        reasoning_tokens=counted.get("output_reasoning_tokens", 0),
        extra=extra or None,
    )


def expected(material: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (material / "prices" / "expected_prices.jsonl").read_text().splitlines()]


def disagreements(material: Path, at: int) -> list[tuple[str, Decimal]]:
    """The model of every call that costs otherwise than expected, and by how much."""
    found = []
    for row in expected(material):
        counted = row["usage_normalised"]
        cost = prices.price(usage_of(counted), row["model"], row["provider"], at)
        assert cost.amount is not None, row
        searches = counted.get("web_searches", 0) * SEARCH
        off = Decimal(cost.amount) - Decimal(row["input_price_usd"]) - Decimal(row["output_price_usd"]) - searches
        if off:
            found.append((row["model"], off))
    return found


def test_the_expected_prices_of_120_calls_are_met_at_the_time_of_their_table(material: Path) -> None:
    assert len(expected(material)) == 120
    assert disagreements(material, JUNE_2026) == []


def test_a_price_that_was_changed_since_is_the_only_one_that_differs_later(material: Path) -> None:
    assert {model for model, _ in disagreements(material, DECEMBER_2026)} == {"gpt-5.6-sol"}
    assert len(disagreements(material, DECEMBER_2026)) == 5


@pytest.mark.parametrize(
    ("usage", "amount"),
    [
        (Usage(input_tokens=1_000_000, output_tokens=1_000_000), "18"),
        (Usage(input_tokens=1_000_000, cache_read_tokens=1_000_000), "0.3"),
        (Usage(input_tokens=1_000_000, cache_write_tokens=1_000_000), "3.75"),
        (Usage(output_tokens=1_000_000, reasoning_tokens=400_000), "15"),
        (
            Usage(input_tokens=1_000_000, cache_write_tokens=1_000_000, extra={"cache_write_1h_tokens": 1_000_000}),
            "6",
        ),
        (Usage(extra={"web_search_requests": 3, "web_fetch_requests": 2}), "0.03"),
        (Usage(input_tokens=1, extra={"compaction_input_tokens": 999_999}), "3"),
        (Usage(input_tokens=3, output_tokens=7), "0.000114"),
        (Usage(), "0"),
    ],
)
def test_every_kind_of_token_has_its_price(usage: Usage, amount: str) -> None:
    cost = prices.price(usage, "claude-sonnet-4-6", "anthropic", JUNE_2026)
    assert cost == Cost(amount=amount, table=cost.table)
    assert cost.table.startswith("genai-prices ")


def test_a_price_is_that_of_its_day() -> None:
    day = [prices.price(USAGE, "gpt-5.6-sol", "openai", at).amount for at in (JUNE_2026, DECEMBER_2026)]
    assert day == ["0.008", "0.006"]


@pytest.mark.parametrize(
    ("usage", "model", "provider"),
    [
        (USAGE, "claude-of-2041", "openai"),
        (USAGE, "gpt-4o", "a-provider-of-my-own"),
        (USAGE, "gpt-4o", "not-openai-but-close"),
        (USAGE, "", "anthropic"),
        (None, "gpt-4o", "openai"),
        (Usage(input_tokens=10, cache_read_tokens=11), "gpt-4o", "openai"),
        (Usage(input_tokens=10, extra={"moon_rocks": 1}), "gpt-4o", "openai"),
        (Usage(input_tokens=-1), "gpt-4o", "openai"),
    ],
    ids=["model", "provider", "part of a name", "no model", "not counted", "contradiction", "unit", "negative"],
)
def test_what_has_no_price_is_unpriced_and_not_free(usage: Usage | None, model: str, provider: str) -> None:
    cost = prices.price(usage, model, provider, JUNE_2026)
    assert cost.amount is None
    assert cost.table.startswith("genai-prices ")


def test_the_name_that_was_asked_for_is_tried_where_the_one_that_answered_is_not_known() -> None:
    known = prices.price(USAGE, "gpt-4o", "openai", JUNE_2026)
    assert prices.price(USAGE, "our-deployment-7", "openai", JUNE_2026, asked="gpt-4o") == known


def test_who_is_paid_follows_from_the_address() -> None:
    def at(base_url: str | None) -> str | None:
        return prices.price(USAGE, "deepseek-chat", "openai-chat", JUNE_2026, base_url=base_url).amount

    assert at("https://api.deepseek.com/v1") is not None
    assert at(None) is None
    assert at("http://127.0.0.1:8000") is None
    proxied = prices.price(USAGE, "gpt-4o", "openai-chat", JUNE_2026, base_url="http://127.0.0.1:8000")
    assert proxied == prices.price(USAGE, "gpt-4o", "openai", JUNE_2026)


def test_the_scripted_model_costs_nothing_and_loads_nothing() -> None:
    code = (
        "import sys; from reenact.adapters import prices\n"
        "print(prices.price(None, 'hello', 'scripted', 0), 'genai_prices' in sys.modules, prices.loaded())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "Cost(amount='0', table='scripted') False False\n"


def test_a_table_that_cannot_be_loaded_costs_no_answer() -> None:
    code = (
        "import sys; sys.modules['genai_prices'] = None\n"
        "from reenact.adapters import prices; from reenact.events.content import Usage\n"
        "prices.load_soon(); prices.load()\n"
        "print(prices.price(Usage(input_tokens=1), 'gpt-4o', 'openai', 0), prices.loaded())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "Cost(amount=None, table='none') True\n"


def test_loading_soon_loads_once_and_beside() -> None:
    code = (
        "import threading; from reenact.adapters import prices\n"
        "for _ in range(3): prices.load_soon()\n"
        "print(sum(t.name == 'reenact-prices' for t in threading.enumerate()))\n"
        "prices.load(); print(prices.loaded())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "1\nTrue\n"


counts = st.integers(0, 10**9)


@given(counts, counts, counts, counts, st.sampled_from(["gpt-4o", "gpt-5-mini", "o3-mini", "gpt-5.6-sol"]))
def test_money_is_exact_and_written_plainly(read: int, wrote: int, cached: int, thought: int, model: str) -> None:
    usage = Usage(
        input_tokens=read + cached, cache_read_tokens=cached, output_tokens=wrote + thought, reasoning_tokens=thought
    )
    cost = prices.price(usage, model, "openai", JUNE_2026)
    assert cost.amount is not None
    assert prices.plain(Decimal(cost.amount)) == cost.amount
    assert Decimal(cost.amount) * 10**15 % 1 == 0, "a millionth of a price in thousandths of a cent, and no rest"


SOLD = ["google:gemini-2.5-pro", "anthropic:claude-sonnet-4-5", "anthropic:claude-opus-4-1", "openai:gpt-4o"]
few = st.integers(0, 10**6)


@given(few, few, few, few, st.sampled_from(SOLD))
def test_what_is_set_aside_by_its_rate_covers_what_a_call_costs(
    read: int, wrote: int, cached: int, kept: int, model: str
) -> None:
    """However much is read, from a cache, into one, or neither: some prices rise with it."""
    provider, _, name = model.partition(":")
    usage = Usage(
        input_tokens=read + cached + kept, cache_read_tokens=cached, cache_write_tokens=kept, output_tokens=wrote
    )
    cost, rate = prices.price(usage, name, provider, JUNE_2026), prices.rate(model, JUNE_2026)
    assert cost.amount is not None and rate is not None
    assert nanos(cost.amount) <= rate.cost(usage.input_tokens, usage.output_tokens)


HOURLY = ["deepseek:deepseek-v4-pro", "deepseek:deepseek-chat", "google:gemini-4-argon", "anthropic:claude-opus-4-6"]
DATED = [*HOURLY, "deepseek:deepseek-v4-flash", "mistral:mistral-large-4", "google:gemini-3.6-flash"]
MINUTE_US, DAY_US = 60_000_000, 86_400_000_000


@given(st.sampled_from(HOURLY), st.integers(0, 400), st.integers(0, 24 * 60), st.integers(0, 36 * 60))
def test_what_is_set_aside_at_any_hour_covers_a_call_that_ends_at_another(
    model: str, day: int, minute: int, later: int
) -> None:
    """A rate is taken once a day, and a call may end the day after: some prices are others by the hour or the date."""
    provider, _, name = model.partition(":")
    began = JUNE_2026 // DAY_US * DAY_US + day * DAY_US + minute * MINUTE_US
    ended = min(began + later * MINUTE_US, (began // DAY_US + 2) * DAY_US - 1)
    rate, cost = prices.rate(model, began), prices.price(USAGE, name, provider, ended)
    assert cost.amount is not None and rate is not None
    assert nanos(cost.amount) <= rate.cost(USAGE.input_tokens, USAGE.output_tokens)


@given(st.sampled_from(DATED), st.integers(0, 400), st.integers(0, 400))
def test_a_rate_that_is_taken_early_says_what_one_of_each_later_day_does(model: str, day: int, days: int) -> None:
    """However long a job waits with it: a price of a day that is named beforehand is known beforehand."""
    began = JUNE_2026 // DAY_US * DAY_US + day * DAY_US
    early, late = prices.rate(model, began), prices.rate(model, began + days * DAY_US)
    assert early is not None and late is not None
    known = early.on(began + days * DAY_US)
    assert (known.input, known.output) == (late.input, late.output)


def test_a_rate_forgets_what_was_dearer_before_and_foresees_no_price_of_next_year() -> None:
    fell = prices.rate("anthropic:claude-opus-4-6", JUNE_2026)
    assert fell is not None and fell.input == 6_250_000_000, "a quarter more for what goes into a cache, and no tier"
    rises = prices.rate("google:gemini-3.6-flash", JUNE_2026)
    assert rises is not None and rises.input == 750_000_000


@pytest.mark.parametrize("base_urls", [("https://api.cerebras.ai/v1",), (None, "https://api.cerebras.ai/v1")])
def test_a_rate_is_that_of_whoever_is_paid_at_the_address(base_urls: tuple[str | None, ...]) -> None:
    rate = prices.rate("openai-chat:gpt-oss-120b", JUNE_2026, base_urls)
    cost = prices.price(USAGE, "gpt-oss-120b", "openai-chat", JUNE_2026, base_url="https://api.cerebras.ai/v1")
    assert cost.amount is not None and rate is not None
    assert nanos(cost.amount) <= rate.cost(USAGE.input_tokens, USAGE.output_tokens)
    nowhere = (*base_urls, "https://api.deepseek.com")
    assert prices.rate("openai-chat:gpt-oss-120b", JUNE_2026, nowhere) is None, "one of its sellers has no price for it"


@pytest.mark.parametrize(
    ("more", "amount"),
    [
        ({}, "0.000404"),
        ({"cache_read": "0.1"}, "0.0003743"),
        ({"cache_write": "1.25"}, "0.000405"),
        ({"cache_read": 0.1, "cache_write": 1.25}, "0.0003753"),
    ],
)
def test_a_table_of_ones_own_prices_what_was_read_from_a_cache_and_kept_in_one(
    tmp_path: Path, more: dict[str, Any], amount: str
) -> None:
    table = tmp_path / "prices.json"
    table.write_text(json.dumps({"openai:ours": {"input": "1", "output": "3", **more}}))
    usage = Usage(input_tokens=104, output_tokens=100, cache_read_tokens=33, cache_write_tokens=4)
    assert prices.table_of(str(table))(usage, "ours", "openai", 0).amount == amount
    assert prices.table_of(str(table))(usage, "theirs", "openai", 0).amount is None


SONNET = {"input": "3", "output": "15", "cache_read": "0.3", "cache_write": "3.75"}
COUNTS = st.integers(0, 9000)
COUNTED = (
    *("compaction_input_tokens", "compaction_output_tokens"),
    *("compaction_cache_read_input_tokens", "compaction_cache_creation_input_tokens"),
)


@given(
    plainly=COUNTS,
    cached=COUNTS,
    kept=COUNTS,
    written=st.integers(1, 9000),
    extra=st.dictionaries(st.sampled_from((*COUNTED, "web_fetch_requests")), COUNTS),
)
def test_given_a_table_with_the_list_prices_a_call_costs_as_much_by_it(
    tmp_path_factory: pytest.TempPathFactory,
    plainly: int,
    cached: int,
    kept: int,
    written: int,
    extra: dict[str, int],
) -> None:
    table = tmp_path_factory.getbasetemp() / "sonnet.json"
    table.write_text(json.dumps({"anthropic:claude-sonnet-4-5": SONNET}))
    usage = Usage(
        input_tokens=plainly + cached + kept,
        output_tokens=written,
        cache_read_tokens=cached,
        cache_write_tokens=kept,
        reasoning_tokens=written // 2,
        extra=extra,
    )
    call = usage, "claude-sonnet-4-5", "anthropic", JUNE_2026
    assert prices.table_of(str(table))(*call).amount == prices.price(*call).amount is not None


@pytest.mark.parametrize(
    "unit", ["web_search_requests", "input_audio_tokens", "output_audio_tokens", "cache_write_1h_tokens", "unheard_of"]
)
def test_given_a_unit_that_a_table_of_ones_own_has_no_price_for_a_call_with_it_is_unpriced(
    tmp_path: Path, unit: str
) -> None:
    table = tmp_path / "prices.json"
    table.write_text(json.dumps({"anthropic:ours": SONNET}))
    price = prices.table_of(str(table))
    assert price(replace(USAGE, extra={unit: 100}), "ours", "anthropic", 0).amount is None
    assert price(replace(USAGE, extra={unit: 0}), "ours", "anthropic", 0).amount == "0.0045"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("0.000", "0"),
        ("-0.0", "0"),
        ("1E+2", "100"),
        ("1E-9", "0.000000001"),
        ("10", "10"),
        ("1.50", "1.5"),
    ],
)
def test_an_amount_is_written_without_exponent_and_needless_zeros(amount: str, text: str) -> None:
    assert prices.plain(Decimal(amount)) == text
