"""What money is measured and limited in: amounts, prices, limits of a tenant, of a person, of a session, of a run.

Outside, money is US dollars as exact decimals; inside deciders it is whole nano-dollars (1e-9), rounded up. Never a
float, and a limit that is no limit (negative, NaN, infinite, true) is refused where it is made.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from .errors import BadInput
from .visible import shown

if TYPE_CHECKING:
    Dollars = str | int | float | Decimal
else:
    Dollars = str | int | float

NANO = 1_000_000_000
"""Nano-dollars of a dollar."""

COUNT_MAX = 10**15
"""The largest limit of a count."""

DOLLARS_MAX = 10**6
"""The largest limit of money, in US dollars."""

SECONDS_MAX = 366 * 24 * 3600
"""The longest time limit of a run: a year."""

Strategy = Literal["deny", "degrade", "warn"]
"""What follows when a limit would be passed: the turn ends; a cheaper model is taken; it is recorded and goes on."""

OnBreach = Literal["deny", "ask"]
"""What follows where a limit denies: that is the end of it; or a person is asked to raise the limit."""

Unpriced = Literal["deny", "allow"]
"""What follows when a limit of money stands and the model has no known price."""


class Amount(Struct, frozen=True, rename="camel", gc=False):
    """So much of everything that is counted. cost: nano-dollars. requests: model calls. tools: calls of tools."""

    tokens: int = 0
    cost: int = 0
    requests: int = 0
    tools: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.tokens + other.tokens,
            self.cost + other.cost,
            self.requests + other.requests,
            self.tools + other.tools,
        )

    def __sub__(self, other: Amount) -> Amount:
        """What is left; nothing where less than nothing would be."""
        tokens, cost = self.tokens - other.tokens, self.cost - other.cost
        requests, tools = self.requests - other.requests, self.tools - other.tools
        if tokens >= 0 and cost >= 0 and requests >= 0 and tools >= 0:  # as it mostly is, twelve times a turn
            return Amount(tokens, cost, requests, tools)
        return Amount(max(0, tokens), max(0, cost), max(0, requests), max(0, tools))

    def least(self, other: Amount) -> Amount:
        """Of everything the lower one."""
        return Amount(
            min(self.tokens, other.tokens),
            min(self.cost, other.cost),
            min(self.requests, other.requests),
            min(self.tools, other.tools),
        )

    def covers(self, other: Amount) -> bool:
        """Whether it is at least the other in everything."""
        return (
            self.tokens >= other.tokens
            and self.cost >= other.cost
            and self.requests >= other.requests
            and self.tools >= other.tools
        )


NOTHING = Amount()


class Price(Struct, frozen=True, rename="camel", gc=False):
    """The most that a model charges from a moment on, as in `Rate`. since: microseconds UTC."""

    since: int
    input: int
    output: int


class Rate(Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """The most that a model charges, in nano-dollars for a million tokens. model: `provider:name`. later: what it
    charges once that is another price, the first one first."""

    model: str
    input: int
    output: int
    later: tuple[Price, ...] = ()

    def on(self, now: int) -> Rate:
        """What it charges at a time, in microseconds UTC."""
        if not self.later or now < self.later[0].since:
            return self
        price = [each for each in self.later if each.since <= now][-1]
        return Rate(self.model, price.input, price.output)

    def cost(self, read: int, written: int) -> int:
        """Nano-dollars for so many tokens, rounded up."""
        return -(-(read * self.input + written * self.output) // 1_000_000)


class BudgetSpec(Struct, frozen=True, kw_only=True, rename="camel"):
    """What one run (a job) may use; None: no such limit. Raises BadInput for a limit that is none.

    max_cost: US dollars. max_turns: turns of the model, that is, calls of it. max_runtime_seconds: from when the job
    starts; then what is under way is stopped. It is a timer, and no gate: in the moment in which it goes off a call may
    still begin, and is stopped. unpriced: whether a model without a known price may be called although max_cost is set.
    on_breach: `ask` has the job wait for a person, who may raise max_tokens, max_cost or max_turns of this run; not
    with max_tool_calls.
    """

    max_tokens: int | None = None
    max_cost: Dollars | None = None
    max_tool_calls: int | None = None
    max_turns: int | None = None
    max_runtime_seconds: float | None = None
    unpriced: Unpriced = "deny"
    on_breach: OnBreach = "deny"

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_tool_calls", "max_turns"):
            checked_count(name, getattr(self, name))
        force_setattr(self, "max_cost", checked_dollars("max_cost", self.max_cost))
        seconds = self.max_runtime_seconds
        if seconds is not None:
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= SECONDS_MAX:
                raise BadInput(
                    f"max_runtime_seconds must be above 0 and at most {SECONDS_MAX:,}, not {shown(seconds)}."
                )
            force_setattr(self, "max_runtime_seconds", float(seconds))
        _checked_word("unpriced", self.unpriced, ("deny", "allow"))
        _checked_word("on_breach", self.on_breach, ("deny", "ask"))

    @property
    def needs_price(self) -> bool:
        """Whether no model without a known price may be called."""
        return self.max_cost is not None and self.unpriced == "deny"


class Budget(Struct, frozen=True, kw_only=True, rename="camel"):
    """Limits of a scope, or within it of one principal or one session. Raises BadInput for a limit that is none.

    Money in US dollars, None: no such limit. A request is one model call. Days and months are those of UTC, a minute is
    the last 60 seconds. warning_threshold: the part of a limit from which on it is warned of. exceed_strategy: what
    follows when a limit would be passed. degrade_to: the cheaper model of `degrade`, where the image names none.
    unpriced: whether models without a known price may be called although a limit of money is set. on_breach: `ask` has
    a job wait for a person, who may raise its limit of a day, a month or in all; not with max_tool_calls_daily.
    """

    scope_id: str | None = None
    principal_id: str | None = None
    session_id: str | None = None
    max_tokens_per_request: int | None = None
    max_tokens_daily: int | None = None
    max_tokens_monthly: int | None = None
    max_tokens_total: int | None = None
    max_cost_per_request: Dollars | None = None
    max_cost_daily: Dollars | None = None
    max_cost_monthly: Dollars | None = None
    max_cost_total: Dollars | None = None
    max_requests_per_minute: int | None = None
    max_requests_daily: int | None = None
    max_tool_calls_per_request: int | None = None
    max_tool_calls_daily: int | None = None
    warning_threshold: float = 0.8
    exceed_strategy: Strategy = "deny"
    degrade_to: str | None = None
    unpriced: Unpriced = "deny"
    on_breach: OnBreach = "deny"

    def __post_init__(self) -> None:
        for name in ("scope_id", "principal_id", "session_id", "degrade_to"):
            _checked_name(name, getattr(self, name))
        for limit in LIMITS:
            value = getattr(self, limit.name)
            if limit.of == "cost":
                force_setattr(self, limit.name, checked_dollars(limit.name, value))
            else:
                checked_count(limit.name, value)
        part = self.warning_threshold
        if isinstance(part, bool) or not isinstance(part, int | float) or not 0 < part <= 1:
            raise BadInput(f"warning_threshold must be above 0 and at most 1, not {shown(part)}.")
        force_setattr(self, "warning_threshold", float(part))
        _checked_word("exceed_strategy", self.exceed_strategy, ("deny", "degrade", "warn"))
        _checked_word("unpriced", self.unpriced, ("deny", "allow"))
        _checked_word("on_breach", self.on_breach, ("deny", "ask"))
        if self.on_breach == "ask" and self.exceed_strategy != "deny":
            raise BadInput('on_breach="ask" is for limits that deny: the others let the call go on.')


class Limit(Struct, frozen=True):
    """One kind of limit. of: a field of `Amount`. window: request, minute, day, month or total."""

    name: str
    of: str
    window: str


LIMITS = (
    Limit("max_tokens_per_request", "tokens", "request"),
    Limit("max_tokens_daily", "tokens", "day"),
    Limit("max_tokens_monthly", "tokens", "month"),
    Limit("max_tokens_total", "tokens", "total"),
    Limit("max_cost_per_request", "cost", "request"),
    Limit("max_cost_daily", "cost", "day"),
    Limit("max_cost_monthly", "cost", "month"),
    Limit("max_cost_total", "cost", "total"),
    Limit("max_requests_per_minute", "requests", "minute"),
    Limit("max_requests_daily", "requests", "day"),
    Limit("max_tool_calls_per_request", "tools", "request"),
    Limit("max_tool_calls_daily", "tools", "day"),
)
"""Every limit of a `Budget`."""


class Terms(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """What an agent must know of money to call a model; recorded with its definition, so that replays need no prices.

    spec: of every run. ledger: the scope whose ledger it asks first, None where no budget is set. rates: of the models
    it may call that have a price. overhead: tokens of instructions and tools, an upper bound. degrade_to: the cheaper
    model. denies: limits of the run that nobody may be asked to raise, though `spec` asks, for one of those who set
    them does not.
    """

    spec: BudgetSpec | None = None
    ledger: str | None = None
    rates: tuple[Rate, ...] = ()
    overhead: int = 0
    degrade_to: str | None = None
    denies: tuple[str, ...] = ()

    def asks(self, limit: str) -> bool:
        """Whether a person is asked to raise this limit of the run."""
        return self.spec is not None and self.spec.on_breach == "ask" and limit not in self.denies


UNCOUNTED = "uncounted"
"""The code of a breach: what was used before a limit was set is not counted yet."""


class Breach(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A limit that is in the way. code: `budget_exceeded`, `unpriced`, or what went wrong with the limit `ledger`,
    such as `uncounted`.

    limit: its name in `Budget` or `BudgetSpec`. of: whose it is: `scope`, `principal`, `session` or `run`. used,
    wanted, most: in the limit's unit, cost in nano-dollars. why: why one that degrades denies. asks: a person may
    raise it.
    """

    code: str = "budget_exceeded"
    limit: str
    of: str
    used: int = 0
    wanted: int = 0
    most: int = 0
    why: str = ""
    asks: bool = False

    @property
    def text(self) -> str:
        """One sentence for a person."""
        if self.code == UNCOUNTED:
            return f"What the {self.of} used before it was limited is not counted yet, and nothing is spent before."
        if self.limit == "ledger":
            return f"The ledger of the {self.of} could not be asked: {self.code}."
        if self.code == "unpriced":
            # A session knows of its ledger only that some limit of money stands.
            some = self.limit == "max_cost" and self.of != "run"
            limit = "there is a limit of money" if some else f"{self.limit} of the {self.of} is a limit of money"
            return (
                f"No price is known for this model, and {limit}:"
                ' name another model, or set the budget with unpriced="allow".'
            )
        show = shown_dollars if "cost" in self.limit else shown_count
        return (
            f"{self.limit} of the {self.of} is {show(self.most)}:"
            f" {show(self.used)} used or set aside, {show(self.wanted)} more wanted."
            + (f" {self.why}" if self.why else "")
        )


class Raise(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A person's consent, given in `action` of a session, to raise a limit by so much from what it was then.

    by, most: in the limit's unit, cost in nano-dollars. principal: who gave it.
    """

    action: str
    limit: str
    of: str
    most: int
    by: int
    principal: str


class CallLimit(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A limit of every call that does not deny, by its name. whose: `scope`, `principal` or `session`. of: a field of
    `Amount`. degrades: what may pass it goes to the cheaper model; else it is warned of."""

    limit: str
    whose: str
    of: str
    most: int
    degrades: bool

    @property
    def text(self) -> str:
        """As it is warned of."""
        return f"{self.limit} of the {self.whose}"


class Grant(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """What a ledger allots to a session.

    amount: to be spent until it is used up or `until` is reached (microseconds UTC, 0 for never). tokens_per_request,
    cost_per_request, tools_per_request: of every call, None where there is no limit. needs_price: models without a
    price may not be called. per_job: it ends with the job, for a limit of its principal stands. degrade: a limit was
    passed, take the cheaper model; passed: that limit. warned: the limits that are nearly or quite used up. principal:
    for whom, and with a job of another it ends, one that degrades with any job. calls: limits of every call that warn
    or degrade. whose: of those that deny, a field of `Amount` and whose it is, where that is not the scope. ahead:
    limits of calls of tools, and of how many calls from now on they are not warned of: so many are allotted ahead, and
    perhaps not made.
    """

    amount: Amount = NOTHING
    until: int = 0
    tokens_per_request: int | None = None
    cost_per_request: int | None = None
    tools_per_request: int | None = None
    needs_price: bool = False
    per_job: bool = False
    degrade: bool = False
    degrade_to: str | None = None
    warned: tuple[str, ...] = ()
    passed: Breach | None = None
    principal: str = ""
    calls: tuple[CallLimit, ...] = ()
    whose: tuple[tuple[str, str], ...] = ()
    ahead: tuple[tuple[str, int], ...] = ()

    def of(self, unit: str) -> str:
        """Whose the limit of every call is, by a field of `Amount`."""
        return dict(self.whose).get(unit, "scope")


# -- money as it is written --


def checked_dollars(name: str, value: Any) -> str | None:
    """An amount of US dollars as an exact decimal. Raises BadInput for anything that is none, or above DOLLARS_MAX."""
    if value is None:
        return None
    exact = _exact(value, _PLAIN)
    if exact is None or exact != exact.quantize(_FINEST):
        raise BadInput(
            f"{name} must be US dollars from 0 to {DOLLARS_MAX:,} in steps of a nano-dollar, not {shown(value)}."
        )
    return plain_dollars(exact)


def used_dollars(name: str, value: Any) -> str | None:
    """What something cost, rounded up to a nano-dollar: however fine, what was used is not to be lost. A float is what
    it is written as. Raises BadInput for what is no amount."""
    if value is None:
        return None
    exact = _exact(value, _WRITTEN)
    if exact is None:
        raise BadInput(f"{name} must be US dollars from 0 to {DOLLARS_MAX:,}, not {shown(value)}.")
    return plain_dollars(exact.quantize(_FINEST, rounding=ROUND_CEILING))


def _exact(value: Any, text: re.Pattern[str]) -> Decimal | None:
    """The number that an amount is, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    written = value.removeprefix("$") if isinstance(value, str) else str(value)
    try:
        exact = Decimal(written) if not isinstance(value, str) or text.fullmatch(written) else None
    except InvalidOperation:
        exact = None
    return exact if exact is not None and exact.is_finite() and 0 <= exact <= DOLLARS_MAX else None


_FINEST = Decimal("0.000000001")
_PLAIN = re.compile(r"-?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})")
"""An amount as people write it: `Decimal` alone takes digits of any script, blanks, `1_000` and `1e3`."""
_WRITTEN = re.compile(_PLAIN.pattern + r"([eE][+-]?[0-9]{1,3})?")
"""And as programs write it, who make a text of a float."""


def plain_dollars(amount: Decimal) -> str:
    """Without an exponent, and without zeros at its end."""
    text = f"{amount:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


AMOUNTS_MAX = 4_096
"""Texts of amounts whose number is remembered."""


@lru_cache(AMOUNTS_MAX)
def nanos(amount: str | Any) -> int:
    """Dollars as nano-dollars, rounded up."""
    return int((Decimal(amount) * NANO).to_integral_value(rounding=ROUND_CEILING))


def dollars(nano: int) -> str:
    """Nano-dollars as dollars."""
    return plain_dollars(Decimal(nano) / NANO)


def shown_dollars(nano: int) -> str:
    return f"${dollars(nano)}"


def shown_count(count: int) -> str:
    return f"{count:,}"


def most_of(budget: Budget, limit: Limit) -> int | None:
    """What a budget limits a thing to, in its unit; None where it does not."""
    value = getattr(budget, limit.name)
    if value is None:
        return None
    return nanos(value) if limit.of == "cost" else int(value)


def checked_count(name: str, value: Any) -> None:
    """Raises BadInput for what is no whole number from 0 to COUNT_MAX, and not None."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise BadInput(f"{name} must be a whole number from 0 to {COUNT_MAX:,}, not {shown(value)}.")


def _checked_name(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value.strip() or len(value) > 256 or not value.isprintable():
        raise BadInput(f"{name} must be a text of 1 to 256 printable characters, not {shown(value)}.")


def _checked_word(name: str, value: Any, words: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in words:
        raise BadInput(f"{name} must be {', '.join(words[:-1])} or {words[-1]}, not {shown(value)}.")


def budget_of(given: object) -> Budget:
    """A budget from a `Budget`, an object of its fields (in either spelling), or an amount: so many dollars in all.

    Raises BadInput.
    """
    if isinstance(given, Budget):
        return _asking(given, given.max_tool_calls_daily, "max_tool_calls_daily")
    if isinstance(given, str | int | float | Decimal) and not isinstance(given, bool):
        return Budget(max_cost_total=given)
    made: Budget = _made(given, Budget, "A budget")
    return _asking(made, made.max_tool_calls_daily, "max_tool_calls_daily")


_Asking = TypeVar("_Asking", Budget, BudgetSpec)


def _asking(budget: _Asking, tool_calls: int | None, name: str) -> _Asking:
    """Refused where it is given and not where it is made: of limits laid over each other one may ask, and another be of
    calls of tools."""
    if budget.on_breach == "ask" and tool_calls is not None:
        raise BadInput(f'Nobody is asked about calls of tools: on_breach="ask" does not go with {name}.')
    return budget


def spec_of(given: object) -> BudgetSpec | None:
    """The budget of a run from a `BudgetSpec`, an object of its fields, or an amount of dollars. Raises BadInput."""
    if given is None:
        return None
    if isinstance(given, BudgetSpec):
        return _asking(given, given.max_tool_calls, "max_tool_calls")
    if isinstance(given, str | int | float | Decimal) and not isinstance(given, bool):
        return BudgetSpec(max_cost=given)
    made: BudgetSpec = _made(given, BudgetSpec, "The budget of a run")
    return _asking(made, made.max_tool_calls, "max_tool_calls")


def _made(given: object, kind: type[Struct], what: str) -> Any:
    if not isinstance(given, dict):
        raise BadInput(f"{what} is an amount of dollars or an object of limits, not {shown(given)}.")
    names = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
    names |= {name: name for name in kind.__struct_fields__}
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name not in names:
            raise BadInput(f"{what} has no field {shown(name)}. It has: {', '.join(sorted(kind.__struct_fields__))}.")
        if names[name] in fields:
            raise BadInput(f"{what} names {names[name]} twice.")
        fields[names[name]] = value
    return kind(**fields)
