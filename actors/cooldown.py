"""Which models are left alone for a while, because they failed a moment ago. Pure: a table, and what changes it.

A failure opens a window for the model and the key it was asked with; a key that is refused or not paid for is closed
for all its models. A window that is open never grows: who fails within it changes nothing but, where another model or
another reason fails with the same key, that the whole key cools until the same end. Each window after the last one is
longer, up to a limit, until the model answers or a day has passed without a failure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from ..events.errors import BadInput

WINDOWS_MAX = 1_000
"""Windows that are remembered, and models of which it is known with which key they answered. Of the scope that has most
of them one goes first: the window that ended longest ago, the model that has been known for longest."""

PROBES_MAX = 1_000
"""Keys of a provider, and models, whose last failure or probe is remembered; of the scope that has most of them the
oldest goes first."""

_OF_THE_KEY = frozenset(("auth", "billing"))
_OF_THE_MODEL = frozenset(("model_not_found", "permission", "bad_response", "internal", "crashed"))
"""Failures that say nothing of the key."""

STEPS_MAX = 100
"""Times that `transient_s` may name."""

Kind = Literal["transient", "billing", "auth"]


class CooldownTimes(Struct, frozen=True, kw_only=True, rename="camel"):
    """How long what cools, in seconds. Raises BadInput for a time that is none, and for a longest that is no longest.

    transient_s: after the first failure, the second, and so on; the last one for all that follow. billing_s, auth_s:
    the first window; each next one is twice as long, up to `..._max_s`. forget_s: without a failure for so long, the
    next one counts as the first. probe_margin_s: so long before the end of its window a model may be probed.
    probe_every_s: no provider is probed more often with one key.
    """

    transient_s: tuple[float, ...] = (30.0, 60.0, 300.0)
    billing_s: float = 5 * 3600.0
    billing_max_s: float = 24 * 3600.0
    auth_s: float = 600.0
    auth_max_s: float = 3600.0
    forget_s: float = 24 * 3600.0
    probe_margin_s: float = 120.0
    probe_every_s: float = 30.0

    def __post_init__(self) -> None:
        steps = self.transient_s
        if not isinstance(steps, tuple) or not 1 <= len(steps) <= STEPS_MAX:
            raise BadInput(f"transient_s must be a tuple of 1 to {STEPS_MAX} times, not {ascii(steps)[:60]}.")
        for name in self.__struct_fields__:
            value = getattr(self, name)
            for each in value if name == "transient_s" else (value,):
                check_number(name, each, most=LONGEST_S)
        for kind in ("billing", "auth"):
            first, longest = getattr(self, f"{kind}_s"), getattr(self, f"{kind}_max_s")
            if first > longest:
                raise BadInput(f"{kind}_max_s must not be less than {kind}_s: {longest:g} and {first:g}.")


LONGEST_S = 366 * 24 * 3600.0
"""No window is longer: a year."""


def check_number(name: str, value: object, *, least: float = 0.0, most: float) -> None:
    """Raises BadInput, naming it, for what is no number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BadInput(f"{name} must be a number from {least:,g} to {most:,g}, not {ascii(value)[:60]}.")


class Window(Struct, frozen=True, gc=False):
    """since, until, failed_at: microseconds UTC. code: of the failure that opened it. count: windows of its kind in a
    row. failed_at: the last failure, within it too. scope: whose call opened it."""

    code: str
    since: int
    until: int
    count: int
    failed_at: int
    scope: str = ""


class Noted(Struct, frozen=True, gc=False):
    """at: microseconds UTC. scope: whose call it was."""

    at: int
    scope: str = ""


class Cooldowns(Struct, frozen=True):
    """windows: by key and model, model None for all models of a key. probes: by key and provider, when that was last
    known to fail or probed; by key and model, when what failed was that model's own fault. well: by key and model, what
    has answered since it last failed, and whose call it was. Never changed: each step gives another table.

    A key is named by its label, a server that needs none by that of its address; where there is neither it is named
    None, and is no key to close.
    """

    windows: dict[tuple[str | None, str | None], Window] = {}
    probes: dict[tuple[str | None, str], Noted] = {}
    well: dict[tuple[str | None, str], str] = {}


def until(table: Cooldowns, key: str | None, model: str, now: int) -> int | None:
    """When a model may be asked with a key again, microseconds UTC; None where it may be now."""
    window = window_of(table, key, model, now)
    return None if window is None else window.until


def window_of(table: Cooldowns, key: str | None, model: str, now: int) -> Window | None:
    """The open window that a model with a key is in, the longer one of two; None where it may be asked now."""
    found = [
        window
        for scope in ((model, None) if key is not None else (model,))
        if (window := table.windows.get((key, scope))) is not None and _open(window, now)
    ]
    return max(found, key=lambda window: window.until, default=None)


def is_well(table: Cooldowns, key: str | None, model: str) -> bool:
    """Whether it is known to have answered with this key after its last failure with it."""
    return (key, model) in table.well


def last_probe(table: Cooldowns, key: str | None, model: str) -> int | None:
    """When the provider of a model was last known to fail with this key, or probed with it. What failed for other keys,
    and what was another model's own, says nothing of it."""
    found = (table.probes.get((key, name)) for name in (model.partition(":")[0], model))
    return max((noted.at for noted in found if noted is not None), default=None)


def probe_worthy(
    table: Cooldowns, key: str | None, model: str, expiry: float | None, now: int, times: CooldownTimes
) -> bool:
    """Whether a model that failed may be asked once with a key, to see whether it answers again.

    expiry: the end of its window. None or NaN, that is, nobody knows: it is worth a try. An end that is far is not; and
    no provider is probed more often than `times.probe_every_s` with one key, counted from `last_probe`.
    """
    last = last_probe(table, key, model)
    if last is not None and 0 <= now - last < times.probe_every_s * 1_000_000:
        return False
    if expiry is None or math.isnan(expiry):
        return True
    return now >= expiry - times.probe_margin_s * 1_000_000


# -- what changes it --


def failed(
    table: Cooldowns,
    key: str | None,
    model: str,
    code: str,
    now: int,
    times: CooldownTimes,
    *,
    retry_after_s: float | None = None,
    scope: str = "",
) -> Cooldowns:
    """The table after a model failed for good with this key: what was to be tried again was.

    retry_after_s: what the provider asked for, honoured up to the longest window of its kind. scope: whose call it was.
    """
    table = _noted(table, asked_place(key, model, code), now, times, scope)
    if (key, model) in table.well:
        table = replace(table, well={each: whose for each, whose in table.well.items() if each != (key, model)})
    place = (key, None if key is not None and code in _OF_THE_KEY else model)
    windows = {each: window for each, window in table.windows.items() if _counts(window, now, times)}
    whole = windows.get((key, None)) if key is not None else None
    if whole is not None and _open(whole, now):
        windows[key, None] = replace(whole, failed_at=now)
        return replace(table, windows=windows)
    widest = _widest(windows, key, model, code, now)
    if widest is not None:
        windows[key, None] = replace(widest, failed_at=now)
    known = windows.get(place)
    if known is not None and _open(known, now):
        if place[1] is not None:
            windows[place] = replace(known, failed_at=now)
    else:
        windows[place] = replace(_next(known, code, now, times, retry_after_s), scope=scope)
    return replace(table, windows=bounded(windows, (place, (key, None))))


def succeeded(table: Cooldowns, key: str | None, model: str, *, scope: str = "") -> Cooldowns:
    """The table after a model answered: neither it nor its key cools any more, and its next failure is a first one.
    scope: whose call it was."""
    gone = {(key, model)} if key is None else {(key, model), (key, None)}
    windows = {place: window for place, window in table.windows.items() if place not in gone}
    well = table.well
    if (key, model) not in well:
        well = {**well, (key, model): scope}
        fair(well, WINDOWS_MAX, str, lambda whose: 0, ((key, model),))
    return Cooldowns(windows, table.probes, well)


def probed(
    table: Cooldowns, key: str | None, model: str, now: int, times: CooldownTimes, *, scope: str = ""
) -> Cooldowns:
    """The table after it was noted that a model is about to be probed with a key. scope: whose call it is."""
    return _noted(table, (key, model.partition(":")[0]), now, times, scope)


def asked_place(key: str | None, model: str, code: str) -> tuple[str | None, str]:
    """What a failure counts for where it is asked how often something is probed."""
    return key, model if code in _OF_THE_MODEL else model.partition(":")[0]


def _noted(table: Cooldowns, place: tuple[str | None, str], now: int, times: CooldownTimes, scope: str) -> Cooldowns:
    probes = {each: noted for each, noted in table.probes.items() if 0 <= now - noted.at < times.forget_s * 1_000_000}
    probes[place] = Noted(now, scope)
    return replace(table, probes=_bounded(probes, (place,)))


def _bounded(
    probes: dict[tuple[str | None, str], Noted], newest: Collection[tuple[str | None, str]] = ()
) -> dict[tuple[str | None, str], Noted]:
    fair(probes, PROBES_MAX, lambda noted: noted.scope, lambda noted: noted.at, newest)
    return probes


def joined(table: Cooldowns, left: Cooldowns) -> Cooldowns:
    """The table, and what another knows besides: of two windows of the same key and model the later one."""
    windows = dict(table.windows)
    for place, window in left.windows.items():
        if place not in windows or windows[place].since < window.since:
            windows[place] = window
    probes = dict(table.probes)
    for place, noted in left.probes.items():
        if place not in probes or probes[place].at < noted.at:
            probes[place] = noted
    return replace(table, windows=bounded(windows), probes=_bounded(probes))


def soonest(table: Cooldowns, places: Iterable[tuple[str | None, str]], now: int) -> int | None:
    """The first moment at which one of these keys and models may be asked, None where none of them cools."""
    ends = [end for key, model in places if (end := until(table, key, model, now)) is not None]
    return min(ends, default=None)


def _open(window: Window, now: int) -> bool:
    """A window that begins in the future was opened before the clock was set back."""
    return window.since <= now < window.until


def _counts(window: Window, now: int, times: CooldownTimes) -> bool:
    """Whether it is open, or will be, or makes the next one of its kind longer."""
    return now < window.until or now - window.failed_at < times.forget_s * 1_000_000


def _widest(
    windows: dict[tuple[str | None, str | None], Window], key: str | None, model: str, code: str, now: int
) -> Window | None:
    """The open window that becomes the whole key's, now that something else failed with it."""
    if key is None or code in _OF_THE_MODEL or code in _OF_THE_KEY:
        return None
    others = [
        window
        for (holder, scope), window in windows.items()
        if holder == key
        and scope is not None
        and _open(window, now)
        and window.code not in _OF_THE_MODEL
        and (scope != model or window.code != code)
    ]
    return max(others, key=lambda window: window.until, default=None)


def _next(known: Window | None, code: str, now: int, times: CooldownTimes, retry_after_s: float | None) -> Window:
    count = 1
    if known is not None and kind_of(known.code) == kind_of(code):
        age = now - known.failed_at
        if 0 <= age < times.forget_s * 1_000_000:
            count = known.count + 1
    span_us = math.ceil(span_s(kind_of(code), count, times, retry_after_s) * 1_000_000)
    return Window(code, now, now + span_us, count, now)


def kind_of(code: str) -> Kind:
    """How a failure of this code cools."""
    if code == "billing":
        return "billing"
    return "auth" if code in ("auth", "permission") else "transient"


def span_s(kind: Kind, count: int, times: CooldownTimes, retry_after_s: float | None = None) -> float:
    """How long the `count`-th window in a row lasts."""
    if kind == "billing":
        first, most = times.billing_s, times.billing_max_s
    elif kind == "auth":
        first, most = times.auth_s, times.auth_max_s
    else:
        steps = times.transient_s
        step, most = steps[min(count, len(steps)) - 1], max(steps)
        return max(step, min(retry_after_s or 0.0, most))
    return min(first * 2.0 ** min(count - 1, 64), most)


def bounded(
    windows: dict[tuple[str | None, str | None], Window], newest: Collection[tuple[str | None, str | None]] = ()
) -> dict[tuple[str | None, str | None], Window]:
    """These, without those too many, which are taken out of it. newest: those just opened, which stay."""
    fair(windows, WINDOWS_MAX, lambda window: window.scope, lambda window: window.until, newest)
    return windows


Value = TypeVar("Value")


def fair(
    held: dict[Any, Value],
    most: int,
    scope_of: Callable[[Value], str],
    age: Callable[[Value], int],
    newest: Collection[object] = (),
) -> None:
    """Take out of it those too many: always of the scope that has most of all that have one to lose, so that no scope
    pushes out what is remembered for another that has less; of its own the one with the least `age`, of several the
    first. newest: these stay."""
    if len(held) <= most:
        return
    many = Counter(map(scope_of, held.values()))
    while len(held) > most:
        may_go = (each for each in held if each not in newest)
        gone = held.pop(min(may_go, key=lambda each: (-many[scope_of(held[each])], age(held[each]))))
        many[scope_of(gone)] -= 1
