"""What a model call costs, by the price table that ships with genai-prices. Home of genai_prices.

The table is on this machine and loads once, at the first call of a model that costs money (a quarter of a second);
`load_soon` has it load beside that call. The scripted model never loads it. Nothing here is asked again on a replay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from ..events.budget import Price, Rate, checked_dollars
from ..events.content import Cost, Usage
from ..events.errors import BadInput
from .plain_file import object_in

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelPrice

SCRIPTED = Cost(amount="0", table="scripted")
"""The price of every scripted call, by definition."""

NO_TABLE = "none"
"""The table's name where genai-prices could not be loaded."""

_SELLERS = {"anthropic": "anthropic", "openai": "openai", "openai-chat": "openai", "google": "google"}
"""Provider as in a model string -> as in the table. Others are looked up under their own name."""

_UNITS = {
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "input_audio_tokens": "input_audio_tokens",
    "output_audio_tokens": "output_audio_tokens",
    "web_search_requests": "web_searches",
}
"""`Usage.extra` -> a unit of the table."""

_FREE = frozenset(("web_fetch_requests", "sources"))
"""Units that are counted and cost nothing apart."""

_COMPACTION = {
    "compaction_input_tokens": ("input_tokens",),
    "compaction_output_tokens": ("output_tokens",),
    "compaction_cache_read_input_tokens": ("input_tokens", "cache_read_tokens"),
    "compaction_cache_creation_input_tokens": ("input_tokens", "cache_write_tokens"),
}
"""Tokens of a compaction that the provider made within the call: billed beside the call's own, at the same price."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def price(
    usage: Usage | None,
    model: str,
    provider: str,
    at: int,
    *,
    base_url: str | None = None,
    asked: str | None = None,
) -> Cost:
    """What a call costs in US dollars. Loads the table if need be; never raises.

    model: as the provider named what answered; asked: as it was asked for, tried where the first is not in the table.
    provider: as in a model string. at: microseconds UTC, for prices change. base_url: where the call went: the seller
    at an address that the table knows goes before `provider`; at any other, `provider`'s list price is taken.

    The amount is None ("unpriced") where no price is known: of the provider, the model, or a unit that it counted;
    where it counted nothing; where its counts contradict each other. `scripted` costs nothing. Discounts (batch,
    priority, agreements) are not known here.
    """
    if provider == "scripted":
        return SCRIPTED
    table = _load()
    if table is None:
        return Cost(amount=None, table=NO_TABLE)
    units = None if usage is None else _units(usage)
    if units is not None:
        seller = _seller(table.prices, provider, base_url)
        for name in dict.fromkeys((model, asked)):
            if name and seller is not None:
                amount = _amount(table.prices, units, name, seller, at)
                if amount is not None:
                    return Cost(amount=plain(amount), table=table.name)
    return Cost(amount=None, table=table.name)


def rate(model: str, at: int, base_urls: Iterable[str | None] = (None,)) -> Rate | None:
    """The most that a model may charge for its tokens from now to the end of tomorrow (UTC), by list price, and on each
    later day and the one after it, where the table names a price of that day; None where no price is known.

    model: `provider:name`. at: microseconds UTC. base_urls: where its calls may go, see `price`; where one of them has
    no price, none is known. Where a price depends on how much is read, on whether it is cached, on the hour or on the
    seller, it is the highest of them. Units that are no tokens are not in it. Loads the table if need be; never raises.
    """
    provider, _, name = model.partition(":")
    if provider == "scripted":
        return Rate(model, 0, 0)
    table = _load()
    if table is None:
        return None
    sold: list[Any] = []
    free = name.endswith(":free")
    for seller in {_seller(table.prices, provider, base_url) for base_url in base_urls}:
        found = None if seller is None else _sold(table.prices, name, seller)
        if found is None:
            return Rate(model, 0, 0) if seller is not None and free else None
        sold.append(found)
    try:
        return _from_day_to_day(model, sold, _EPOCH + timedelta(microseconds=at), free=free)
    except (LookupError, ValueError, OverflowError):
        return None


def _from_day_to_day(model: str, sold: list[Any], now: datetime, *, free: bool) -> Rate | None:
    charged = _charged(sold, now, free=free)
    if charged is None:
        return None
    later, last = [], charged
    for day in _other_days(sold, now):
        then = _charged(sold, day, free=free)
        if then is not None and then != last:
            later.append(Price((day - _EPOCH) // _MICROSECOND, *then))
            last = then
    return Rate(model, *charged, tuple(later))


def _charged(sold: list[Any], now: datetime, *, free: bool) -> tuple[int, int] | None:
    """The most that any of these asks for what is read and for what is written, from a moment to the end of the next
    day; None where one has no price. free: then it costs nothing."""
    read = written = 0
    for found in sold:
        for moment in _moments(found.prices, now):
            prices = found.get_prices(moment)
            reads = [_highest(getattr(prices, f"{kind}_mtok")) for kind in _READ]
            writes = [_highest(getattr(prices, f"{kind}_mtok")) for kind in _WRITTEN]
            if reads[0] is None or writes[0] is None:
                return (0, 0) if free else None
            read, written = (
                max(filter(None, [read, *reads]), default=0),
                max(filter(None, [written, *writes]), default=0),
            )
    return read, written


# What we send has no sound, and nothing is kept in a cache for an hour.
_READ = ("input", "cache_write")
_WRITTEN = ("output", "output_reasoning")


def _sold(table: DataSnapshot, model: str, seller: str) -> Any:
    """A model as a seller sells it, None where it does not."""
    try:
        return table.find_provider_model(model, None, seller, None)[1]
    except (LookupError, ValueError):
        return None


def _other_days(sold: list[Any], now: datetime) -> list[datetime]:
    """The midnights to come after which the most of two days may be another, the first one first: that of the day
    before a new price begins, and that with which it does."""
    days: set[date] = set()
    for found in sold:
        for each in found.prices if isinstance(found.prices, list) else ():
            if (begins := getattr(each.constraint, "start_date", None)) is not None:
                days.update((begins - timedelta(1), begins))
    return [datetime.combine(day, time(tzinfo=UTC)) for day in sorted(days) if day > now.date()]


def _moments(prices: Any, now: datetime) -> Iterator[datetime]:
    """Now, and when a price may be another until the end of the next day: at midnight, and where one of the day begins
    or ends."""
    yield now
    if not isinstance(prices, list):
        return
    hours = {time(tzinfo=UTC)}
    for each in prices:
        for end in ("start_time", "end_time"):
            if (at := getattr(each.constraint, end, None)) is not None:
                hours.add(at if at.tzinfo is not None else at.replace(tzinfo=UTC))
    for days in (-1, 0, 1, 2):  # an hour of another zone may be of the day before, or after
        for hour in hours:
            moment = datetime.combine(now.date() + timedelta(days), hour).astimezone(UTC)
            if now < moment and (moment.date() - now.date()).days <= 1:
                yield moment


def _highest(price: Any) -> int | None:
    """Dollars for a million tokens as nano-dollars, rounded up; of one that rises with the tokens, the highest."""
    if price is None:
        return None
    tiers = [price.base, *(tier.price for tier in price.tiers)] if hasattr(price, "tiers") else [price]
    return int((max(tiers) * 1_000_000_000).to_integral_value(rounding=ROUND_CEILING))


def table_of(path: str) -> Callable[[Usage, str, str, int], Cost]:
    """Prices from a file, TOML or JSON: for each `"provider:model"` dollars for a million tokens, `input` and `output`,
    and `cache_read` and `cache_write` where they are others than `input`. What is not in it has no price: neither has a
    call that counted what none of these is for, such as searches of the web.

    Raises BadInput for a file that is no such table.
    """
    rates = _read(path)
    named = f"file {path.rpartition('/')[2]}"

    def price(usage: Usage, model: str, provider: str, at: int) -> Cost:
        found, units = rates.get(f"{provider}:{model}"), _units(usage)
        if found is None or units is None or not units.keys() <= _SOLD:
            return Cost(amount=None, table=named)
        read, cached, kept = (units.get(f"{kind}_tokens", 0) for kind in ("input", "cache_read", "cache_write"))
        amount = (
            found["input"] * max(0, read - cached - kept)
            + found.get("cache_read", found["input"]) * cached
            + found.get("cache_write", found["input"]) * kept
            + found["output"] * units.get("output_tokens", 0)
        )
        return Cost(amount=plain(amount / 1_000_000), table=named)

    return price


def _read(path: str) -> dict[str, dict[str, Decimal]]:
    given = object_in(path, "a table of prices has a name for every model.")
    if not given:
        raise BadInput(f"{path}: a table of prices names a model at least.")
    rates: dict[str, dict[str, Decimal]] = {}
    for model, prices in given.items():
        if not isinstance(prices, dict) or not {"input", "output"} <= prices.keys() <= set(_PRICED):
            raise BadInput(f"{path}: {model!r} needs input and output, and may have cache_read and cache_write.")
        rates[model] = {}
        for name, value in prices.items():
            amount = checked_dollars(f"{path}: {name} of {model!r}", value)
            if amount is None:
                raise BadInput(f"{path}: {name} of {model!r} is missing.")
            rates[model][name] = Decimal(amount)
    return rates


_PRICED = ("input", "output", "cache_read", "cache_write")
_SOLD = {*(f"{name}_tokens" for name in _PRICED), "output_reasoning_tokens"}  # what was thought is a part of the output


def plain(amount: Decimal) -> str:
    """An amount of money as text: exact, without an exponent, without zeros at its end."""
    text = f"{amount:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


# -- the table --


class _Table(NamedTuple):
    name: str
    prices: DataSnapshot


_lock = threading.Lock()
_table: _Table | None = None
_loaded = False
_loading: threading.Thread | None = None


def loaded() -> bool:
    """Whether `price` answers at once."""
    return _loaded


def load() -> None:
    """Load the table, or wait until it is loaded. Never raises: without a table every call is unpriced."""
    _load()


def load_soon() -> None:
    """Have the table loaded in a thread of its own; returns at once. Again, or loaded already: nothing happens."""
    global _loading
    if not _loaded and _loading is None:
        _loading = threading.Thread(target=_load, name="reenact-prices")
        _loading.start()


def _load() -> _Table | None:
    global _table, _loaded
    if not _loaded:
        with _lock:
            if not _loaded:
                try:
                    import genai_prices
                    from genai_prices.data_snapshot import get_snapshot

                    _table = _Table(f"genai-prices {genai_prices.__version__}", get_snapshot())
                except Exception:  # a broken installation must not cost anyone an answer
                    _table = None
                _loaded = True
    return _table


def _seller(table: DataSnapshot, provider: str, base_url: str | None) -> str | None:
    """The table's name of who is paid, None for one that it does not know."""
    if base_url:
        try:
            return table.find_provider(None, None, base_url).id
        except LookupError:
            pass
    name = _SELLERS.get(provider, provider)
    try:
        found = table.find_provider(None, name, None).id
    except LookupError:
        return None
    return found if found == name else None  # it also finds by a part of the name: not good enough for money


def _amount(table: DataSnapshot, units: dict[str, int], model: str, seller: str, at: int) -> Decimal | None:
    from genai_prices.types import Usage as Units

    try:
        found = table.calc(Units(**units), model, seller, None, _EPOCH + timedelta(microseconds=at))
    except (LookupError, ValueError, OverflowError):
        return None
    return found.total_price if _covers(found.model_price, units) or model.endswith(":free") else None


def _covers(prices: ModelPrice, units: dict[str, int]) -> bool:
    """Whether all that was counted has a price. Kinds of tokens without one of their own are sold as plain tokens."""
    needed = {"input_tokens": "input_mtok", "output_tokens": "output_mtok", "web_searches": "web_searches_kcount"}
    return all(getattr(prices, needed[unit]) is not None for unit, count in units.items() if count and unit in needed)


def _units(usage: Usage) -> dict[str, int] | None:
    """What was counted, in the table's units; None where something was that it has no unit for."""
    units = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
    }
    for name, count in (usage.extra or {}).items():
        if name in _UNITS:
            units[_UNITS[name]] = count
        elif name in _COMPACTION:
            for unit in _COMPACTION[name]:
                units[unit] += count
        elif count and name not in _FREE:
            return None
    return {unit: count for unit, count in units.items() if count}
