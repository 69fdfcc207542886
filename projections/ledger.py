"""The ledger: what was used and what it cost, by day, tenant's container, image, session, job and model. A pure fold.

It adds up the costs that the log recorded and never looks at a price table, so it says tomorrow what it says today.
Money is exact: decimals, never floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, Literal, TypedDict, Unpack

from msgspec import Struct

from ..events.content import Cost, Usage
from ..events.errors import BadInput
from ..events.message import Recorded
from .meter import Meters, ModelUse, ToolUse, amount_of

By = Literal["day", "scope", "container", "image", "session", "job", "provider", "model"]
"""What spending may be grouped by. A model is always named with its provider."""

Price = Callable[[Usage, str, str, int], Cost]
"""price(usage, model, provider, at in microseconds UTC), such as `adapters.prices.price`."""

_DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1)
_EXACT = Context(prec=100, traps=[Inexact, InvalidOperation])


class Only(TypedDict, total=False):
    """What a query is narrowed to. since_day, until_day: UTC, as 2026-03-29, both included."""

    scope: str | None
    container_id: str | None
    image_id: str | None
    session_id: str | None
    job_id: str | None
    since_day: str | None
    until_day: str | None


class Spend(Struct, frozen=True, kw_only=True, rename="camel"):
    """One line of the ledger. What it is not grouped by is None.

    day: UTC, as 2026-03-29. calls: model calls that ended, every attempt that was made one, and those whose process
    died, once something follows. failed: those that gave no complete answer. unpriced: those that used tokens, or that
    nobody counted, and have no price. amount: US dollars as an exact decimal, the sum of all that has a price: what was
    unpriced comes on top. None where nothing has one.
    """

    day: str | None = None
    scope: str | None = None
    container_id: str | None = None
    image_id: str | None = None
    session_id: str | None = None
    job_id: str | None = None
    provider: str | None = None
    model: str | None = None
    calls: int
    failed: int
    unpriced: int
    amount: str | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int


class ToolSpend(Struct, frozen=True, kw_only=True, rename="camel"):
    """How often a tool was called and how that ended. runs: begun, repeats included. outcomes: how many ended how."""

    name: str
    calls: int
    runs: int
    duration_ms: int
    outcomes: dict[str, int]


class Ledger:
    """The ledger over a whole log. `apply` takes every event, in order, each once, and never raises.

    price: prices every call anew instead of reading what was recorded, to see what it would cost by another table. It
    is given the model as its provider named it, and as it was asked for where that has no price.
    """

    name = "ledger"
    version = 4

    __slots__ = ("_meters", "_price", "_spent", "_tools")

    def __init__(self, price: Price | None = None) -> None:
        self._price = price
        self._meters = Meters()
        self._spent: dict[_Key, _Sum] = {}
        self._tools: dict[tuple[_Key, str], _ToolSum] = {}

    def apply(self, recorded: Recorded) -> None:
        for use in self._meters.apply(recorded):
            self.add(use)

    def add(self, use: ModelUse | ToolUse) -> None:
        """Enter one use."""
        day = use.at // _DAY_US
        ids = (use.scope, use.container_id, use.image_id, use.session_id, use.job_id)
        if isinstance(use, ToolUse):
            place = ((day, *ids, "", ""), use.name)
            tool = self._tools.get(place)
            if tool is None:
                tool = self._tools[place] = _ToolSum()
            tool.add(use)
            return
        key = (day, *ids, use.provider, use.model)
        spent = self._spent.get(key)
        if spent is None:
            spent = self._spent[key] = _Sum()
        amount = use.amount
        if self._price is not None:
            amount = None if use.usage is None else _anew(self._price, use, use.usage)
        spent.add(use, amount)

    def query(self, by: By | Iterable[By] = "model", **only: Unpack[Only]) -> list[Spend]:
        """The lines, grouped by one or several of `By`. Grouped by day first: in order of time, else the dearest first.

        Raises `BadInput` for a group that there is none of, and for a day that is no date.
        """
        groups: tuple[By, ...] = (by,) if isinstance(by, str) else tuple(by)
        unknown = [group for group in groups if group not in _PLACES]
        if unknown:
            raise BadInput(f"Spending is grouped by {', '.join(_PLACES)}, not by {', '.join(unknown)}.")
        wanted = _filter(only)
        places = tuple(dict.fromkeys(place for group in groups for place in _PLACES[group]))
        sums: dict[tuple[Any, ...], _Sum] = {}
        for key, spent in self._spent.items():
            if wanted(key):
                group = tuple([key[place] for place in places])
                into = sums.get(group)
                if into is None:
                    into = sums[group] = _Sum()
                into.take(spent)
        lines = [_line(places, group, into) for group, into in sums.items()]
        if groups and groups[0] == "day":
            lines.sort(key=_names)
        else:
            lines.sort(key=_by_price)
        return lines

    def total(self, **only: Unpack[Only]) -> Spend:
        """One line for all of it. Nothing spent: amount "0"."""
        wanted = _filter(only)
        total = _Sum()
        for key, spent in self._spent.items():
            if wanted(key):
                total.take(spent)
        return _line((), (), total)

    def tools(self, **only: Unpack[Only]) -> list[ToolSpend]:
        """The tools by name, the most called first."""
        wanted = _filter(only)
        sums: dict[str, _ToolSum] = {}
        for (key, name), tool in self._tools.items():
            if wanted(key):
                into = sums.get(name)
                if into is None:
                    into = sums[name] = _ToolSum()
                into.take(tool)
        lines = [
            ToolSpend(
                name=name,
                calls=tool.calls,
                runs=tool.runs,
                duration_ms=tool.duration_ms,
                outcomes=dict(sorted(tool.outcomes.items())),
            )
            for name, tool in sums.items()
        ]
        return sorted(lines, key=lambda line: (-line.calls, line.name))


_Key = tuple[int, str, str | None, str | None, str, str | None, str, str]
"""Day (since 1970), scope, container, image, session, job, provider, model."""

_PLACES: dict[str, tuple[int, ...]] = {
    "day": (0,),
    "scope": (1,),
    "container": (2,),
    "image": (3,),
    "session": (4,),
    "job": (5,),
    "provider": (6,),
    "model": (6, 7),
}
_FIELDS = ("day", "scope", "container_id", "image_id", "session_id", "job_id", "provider", "model")


def _anew(price: Price, use: ModelUse, usage: Usage) -> Decimal | None:
    for model in dict.fromkeys((use.model, use.asked.partition(":")[2])):
        amount = amount_of(price(usage, model, use.provider, use.at))
        if amount is not None:
            return amount
    return None


class _Sum:
    __slots__ = (
        "amount",
        "cache_read",
        "cache_write",
        "calls",
        "failed",
        "output",
        "priced",
        "read",
        "thought",
        "unpriced",
    )

    def __init__(self) -> None:
        self.calls = self.failed = self.priced = self.unpriced = 0
        self.read = self.output = self.cache_read = self.cache_write = self.thought = 0
        self.amount = Decimal(0)

    def add(self, use: ModelUse, amount: Decimal | None) -> None:
        self.calls += 1
        usage = use.usage
        if use.failure is not None:
            self.failed += 1
        if usage is not None:
            self.read += usage.input_tokens
            self.output += usage.output_tokens
            self.cache_read += usage.cache_read_tokens
            self.cache_write += usage.cache_write_tokens
            self.thought += usage.reasoning_tokens
        if amount is not None:
            self.priced += 1
            self.amount = _EXACT.add(self.amount, amount)
        elif use.costs:
            self.unpriced += 1

    def take(self, other: _Sum) -> None:
        self.calls += other.calls
        self.failed += other.failed
        self.priced += other.priced
        self.unpriced += other.unpriced
        self.read += other.read
        self.output += other.output
        self.cache_read += other.cache_read
        self.cache_write += other.cache_write
        self.thought += other.thought
        self.amount = _EXACT.add(self.amount, other.amount)


class _ToolSum:
    __slots__ = ("calls", "duration_ms", "outcomes", "runs")

    def __init__(self) -> None:
        self.calls = self.runs = self.duration_ms = 0
        self.outcomes: dict[str, int] = {}

    def add(self, use: ToolUse) -> None:
        self.calls += 1
        self.runs += use.runs
        self.duration_ms += use.duration_ms
        self.outcomes[use.outcome] = self.outcomes.get(use.outcome, 0) + 1

    def take(self, other: _ToolSum) -> None:
        self.calls += other.calls
        self.runs += other.runs
        self.duration_ms += other.duration_ms
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count


def _filter(only: Only) -> Callable[[_Key], bool]:
    exact = [(_FIELDS.index(field), value) for field, value in only.items() if field in _FIELDS and value is not None]
    first, last = _day(only.get("since_day")), _day(only.get("until_day"))

    def wanted(key: _Key) -> bool:
        return (
            all(key[place] == value for place, value in exact)
            and (first is None or key[0] >= first)
            and (last is None or key[0] <= last)
        )

    return wanted


def _day(day: str | None) -> int | None:
    if day is None:
        return None
    try:
        return (date.fromisoformat(day) - _EPOCH).days
    except ValueError:
        raise BadInput(f"{day!r} is no day. Write it as 2026-03-29.") from None


def _line(places: tuple[int, ...], group: tuple[Any, ...], spent: _Sum) -> Spend:
    names = {_FIELDS[place]: value for place, value in zip(places, group, strict=True)}
    if "day" in names:
        names["day"] = (_EPOCH + timedelta(days=names["day"])).isoformat()
    return Spend(
        **names,
        calls=spent.calls,
        failed=spent.failed,
        unpriced=spent.unpriced,
        amount=None if spent.unpriced and not spent.priced else f"{spent.amount.normalize(_EXACT):f}",
        input_tokens=spent.read,
        output_tokens=spent.output,
        cache_read_tokens=spent.cache_read,
        cache_write_tokens=spent.cache_write,
        reasoning_tokens=spent.thought,
    )


def _names(line: Spend) -> tuple[str, ...]:
    return tuple([getattr(line, field) or "" for field in _FIELDS])


def _by_price(line: Spend) -> tuple[Any, ...]:
    return -Decimal(line.amount or 0), -line.input_tokens - line.output_tokens, _names(line)
