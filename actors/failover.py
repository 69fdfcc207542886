"""What to do when a model does not answer: ask it again, ask with another key, ask another model, or give up. Pure.

Chosen from what the call says (its chain, what it has tried), from the keys that there are, and from the table of what
cools down; the choice is recorded by the session, so a replay needs neither table nor keys. A call is asked at most
`Failover.attempts` times where there is anywhere else to go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..events.agent import CallModel, Selection
from ..events.content import Failure, Tried
from ..events.errors import BadInput
from .cooldown import (
    Cooldowns,
    CooldownTimes,
    check_number,
    failed,
    is_well,
    kind_of,
    last_probe,
    probe_worthy,
    probed,
    soonest,
    until,
    window_of,
)
from .selection import name_of, provider_of

NEVER = ("cancelled", "context_exceeded", "too_large")
"""After these nobody else is ever asked: a person wanted an end, or no model could read it."""

STOP_ON = ("invalid_request", "content_filter", "bad_input")
"""After these nobody else is asked unless the settings say otherwise: the same request would be refused everywhere."""

BUSY = frozenset(("rate_limit", "overloaded"))
ROTATES = frozenset(("auth", "billing", "rate_limit"))
"""Failures after which another key of the same provider is tried first."""

STARTS_MAX = 5
"""How often a model is asked for one call by owners that are gone before it has answered or failed, one after the
other. Most did not die of it, and were only stopped; but what kills five would kill the next one."""

ANSWER_S = 600.0
"""Seconds for the whole of one answer, unless the settings say otherwise."""

SILENCE_S = 300.0
"""Seconds in which nothing of an answer comes, unless the settings say otherwise: some models think without a word."""

SHORTEST_ANSWER_S = 0.01
LONGEST_ANSWER_S = 86_400.0
"""What the settings may say of either, seconds: no less and no more."""

KEY_ORDERS = ("least_recently_used", "given")


class Failover(Struct, frozen=True, kw_only=True, rename="camel"):
    """How a runtime goes on when a model does not answer. Raises BadInput for numbers that are none.

    timeout_s: seconds that a model has for the whole of one answer. silence_s: in which nothing of it may come. After
    either the call has failed as `timeout`, and where there is another model it is asked at once. retries: how often a
    model that is busy (rate limit, overload) is asked again while there is another to ask; any other failure follows
    the runtime's `RetryPolicy`. rotations: other keys that are tried after a rate limit before another model is; where
    none can be asked, and after a refused or unpaid key, all are. attempts: of one call in all, over models and keys;
    one is kept for each model that can be asked and was not, so that what is busy is asked less often in a long chain.
    stop_on: codes of failures after which nobody else is asked, beside those of `NEVER`. cooldowns: for how long what
    failed is left alone. key_order: of several keys of a provider a session that has none yet takes the one that was
    `least_recently_used`, or the first as they were `given`; in either case those that cool come last.
    """

    retries: int = 2
    rotations: int = 1
    attempts: int = 20
    stop_on: tuple[str, ...] = STOP_ON
    cooldowns: CooldownTimes = CooldownTimes()
    key_order: str = "least_recently_used"
    timeout_s: float = ANSWER_S
    silence_s: float = SILENCE_S

    def __post_init__(self) -> None:
        for name, least in (("retries", 0), ("rotations", 0), ("attempts", 1)):
            value = getattr(self, name)
            check_number(name, value, least=least, most=1_000)
            if not isinstance(value, int):
                raise BadInput(f"{name} must be a whole number, not {value}.")
        for name in ("timeout_s", "silence_s"):
            check_number(name, getattr(self, name), least=SHORTEST_ANSWER_S, most=LONGEST_ANSWER_S)
        if not isinstance(self.stop_on, tuple) or not all(isinstance(code, str) and code for code in self.stop_on):
            raise BadInput("stop_on must be a tuple of failure codes.")
        if not isinstance(self.cooldowns, CooldownTimes):
            raise BadInput("cooldowns must be a CooldownTimes.")
        if self.key_order not in KEY_ORDERS:
            raise BadInput(f"key_order must be {' or '.join(KEY_ORDERS)}, not {ascii(self.key_order)[:60]}.")

    def advances(self, code: str) -> bool:
        """Whether another model may be asked after this failure. What is not known may be."""
        return code not in NEVER and code not in self.stop_on


class Go(Struct, frozen=True):
    """Ask the model, with this key."""

    key: str | None


class Select(Struct, frozen=True):
    """Record this selection; its model is asked next."""

    selection: Selection


class Retry(Struct, frozen=True):
    """Ask the same again, after so long."""

    wait_s: float


class Stop(Struct, frozen=True):
    """The failure is the end: asking somebody else would not help."""


class Exhausted(Struct, frozen=True):
    """Nobody is left. unasked: who was not asked, because it cools, or as all attempts were used up. available_at:
    milliseconds UTC. because, key: where nobody was asked, why the call's model was not, and the label of its key.
    """

    unasked: tuple[Tried, ...]
    available_at: int | None
    because: str = "cooldown"
    key: str | None = None


class Keys(Struct, frozen=True):
    """The keys of each provider of a chain, by their labels, in the order in which they were given.

    used: when each was last used. sticky: the one that the session used last, by provider. scope: whose they are.
    """

    of: Mapping[str, Sequence[str | None]]
    used: Mapping[str | None, int] = {}
    sticky: Mapping[str, str | None] = {}
    scope: str = ""

    def all(self, model: str) -> Sequence[str | None]:
        return self.of.get(provider_of(model)) or (None,)

    def named(self, model: str, key: str | None) -> str | None:
        """As a selection says it: None where there is no choice."""
        return key if len(self.all(model)) > 1 else None


def in_order(keys: Keys, model: str, table: Cooldowns, now: int, *, preferred: str | None = None) -> list[str | None]:
    """The keys to ask a model with: the preferred one, then the least recently used, then those that cool, the one
    that is first done with it first."""
    given = keys.all(model)
    wanted = preferred if preferred is not None else keys.sticky.get(provider_of(model))

    def rank(place: int) -> Any:
        key = given[place]
        end = until(table, key, model, now)
        if end is not None:
            return 1, end, 0, place
        return 0, 0 if key is not None and key == wanted else 1, keys.used.get(key, -1), place

    return [given[place] for place in sorted(range(len(given)), key=rank)]


def ready(keys: Keys, model: str, table: Cooldowns, now: int, *, preferred: str | None = None) -> list[str | None]:
    """As `in_order`, without those that cool."""
    ordered = in_order(keys, model, table, now, preferred=preferred)
    return [key for key in ordered if until(table, key, model, now) is None]


def before(
    call: CallModel, keys: Keys, table: Cooldowns, now: int, settings: Failover
) -> tuple[Go | Select | Exhausted, Cooldowns]:
    """Whom to ask, before anybody is, and the table after it.

    A conversation that fell back returns to the first of its chain at the beginning of a turn: at once when that is
    known to answer again, else as a probe. Where everything cools, the one that is first done with it is probed. A
    model that has no other beside it is asked although it is busy, with the key that is first free; where all its keys
    are refused or unpaid, as a probe, and nobody is asked between.
    """
    chain = call.open
    if call.attempt - 1 - len(call.tried) >= max(settings.attempts, len(chain)):  # chosen anew so often, and not asked
        return Go(in_order(keys, call.model, table, now, preferred=call.key)[0]), table
    if len(chain) == 1:
        return _alone(call, keys, table, now, settings)
    head = _first(call)
    if head in chain and call.model != head and call.step == 1 and call.attempt == 1 and call.reason != "budget":
        back, table = _back(head, keys, table, now, settings)
        if back is not None:
            return Select(back), table
    if call.reason == "probe" and call.attempt > 1:
        return Go(in_order(keys, call.model, table, now, preferred=call.key)[0]), table
    if ready(keys, call.model, table, now):
        return _with_a_key(call, keys, table, now), table
    if call.model == head:
        probe, table = _probe([head], keys, table, now, settings)
        if probe is not None:
            return Select(probe), table
    return _elsewhere(call, chain, keys, table, now, settings, because="cooldown", me=True)


def after(
    call: CallModel,
    failure: Failure,
    key: str | None,
    keys: Keys,
    table: Cooldowns,
    now: int,
    settings: Failover,
    *,
    wait_s: float | None,
) -> tuple[Retry | Select | Stop | Exhausted, Cooldowns]:
    """What follows when a call failed, and the table after it. wait_s: of the retry policy, None where it gives up.

    key: the label of the key it was asked with, also where there is only one.
    """
    code, chain = failure.code, call.open
    if not settings.advances(code):
        return (Stop() if wait_s is None else Retry(wait_s)), table
    others = len(chain) > 1 or len(keys.all(call.model)) > 1
    left = settings.attempts - len(call.tried) - 1
    may_go_on = not others or left > 0
    asked = _asked(call) | {call.model}
    fresh = sum(model not in asked and bool(ready(keys, model, table, now)) for model in chain)
    leaves = others and (left <= fresh or _leaves(call, code, key, fresh, keys, table, now, settings))
    if wait_s is not None and may_go_on and not leaves:
        return Retry(wait_s), table
    again_s, times = failure.retry_after_s, settings.cooldowns
    table = failed(table, key, call.model, code, now, times, retry_after_s=again_s, scope=keys.scope)
    if not others and len(call.chain) < 2:
        return Stop(), table
    if may_go_on:
        other = _rotated(call, code, key, fresh, keys, table, now, settings) if left > fresh else None
        if other is not None:
            selection = Selection(model=call.model, reason="fallback", key=other, because=code)
            return Select(selection), table
        choice, table = _elsewhere(call, chain, keys, table, now, settings, because=code, me=False)
        return choice, table
    return _exhausted(call, chain, keys, table, now), table


def tries(call: CallModel, key: str | None) -> int:
    """How often the model of a call was asked with this key, now included."""
    return sum(each.key == key for each in _own(call)) + 1


def _first(call: CallModel) -> str:
    """The first of the chain, which a session that fell back goes back to."""
    return call.chain[0] if call.chain else call.model


def _asked(call: CallModel) -> set[str]:
    """The models that did not answer this call so far."""
    return set(map(name_of, call.tried))


def _own(call: CallModel) -> list[Tried]:
    """The attempts at this call that its model failed."""
    return [each for each in call.tried if name_of(each) == call.model]


def crashed(call: CallModel) -> Failure | None:
    """Why a call is not made once more: every process that made it died. None where it is made."""
    if call.deaths < STARTS_MAX:
        return None
    said = (
        f"{call.model} is not asked again: {call.deaths} processes, one after the other, were gone before it answered."
    )
    return Failure(code="crashed", message=said)


def unnoted(call: CallModel, key: str | None, keys: Keys) -> Selection | None:
    """What is to be in the log before a call asks with this key, None where nothing is to select or it is there."""
    named = keys.named(call.model, key)
    if named in (None, call.key) and (call.selected or not call.chain):
        return None
    gone = "key_gone" if call.key is not None and named not in (None, call.key) else None
    return held(call, Selection(model=call.model, reason=call.reason, key=named, because=gone))


def held(call: CallModel, selection: Selection) -> Selection:
    """A selection for a call: what takes the place of a model that a budget chose holds for the job as that did."""
    if not call.degraded:
        return selection
    reason = "fallback" if selection.reason == "primary" else selection.reason  # the first is what the budget chose
    return replace(selection, degraded=True, reason=reason)


# -- where to go --


def _alone(
    call: CallModel, keys: Keys, table: Cooldowns, now: int, settings: Failover
) -> tuple[Go | Select | Exhausted, Cooldowns]:
    """The only model that there is."""
    model = call.model
    if ready(keys, model, table, now):
        return _with_a_key(call, keys, table, now), table
    key = in_order(keys, model, table, now)[0]
    if call.reason == "probe" and call.attempt > 1:
        return Go(key), table
    windows = {each: window for each in keys.all(model) if (window := window_of(table, each, model, now)) is not None}
    reason, times = "fallback", settings.cooldowns
    if kind_of(windows[key].code) != "transient":
        reason = "probe"
        if not probe_worthy(table, key, model, None, now, times):
            provider, _, name = model.partition(":")
            unasked = [
                Tried(provider=provider, model=name, reason=window.code, key=keys.named(model, each))
                for each, window in windows.items()
                if each != key
            ]
            last = last_probe(table, key, model) or now
            again = min(windows[key].until, last + round(times.probe_every_s * 1_000_000))
            return Exhausted(tuple(unasked), -(-again // 1000), windows[key].code, keys.named(model, key)), table
        table = probed(table, key, model, now, times, scope=keys.scope)
    if call.key is not None and key != call.key and call.key in windows:
        return Select(Selection(model=model, reason=reason, key=key, because="cooldown")), table
    return Go(key), table


def _with_a_key(call: CallModel, keys: Keys, table: Cooldowns, now: int) -> Go | Select:
    """The session's own key, or another where that one cools: a change of what was selected is told."""
    key = in_order(keys, call.model, table, now, preferred=call.key)[0]
    if call.key is not None and key != call.key and call.key in keys.all(call.model):
        return Select(Selection(model=call.model, reason="fallback", key=key, because="cooldown"))
    return Go(key)


def _back(head: str, keys: Keys, table: Cooldowns, now: int, settings: Failover) -> tuple[Selection | None, Cooldowns]:
    """To the first of the chain, from a fallback."""
    well = [key for key in ready(keys, head, table, now) if is_well(table, key, head)]
    if well:
        return Selection(model=head, reason="primary", key=keys.named(head, well[0])), table
    return _probe([head], keys, table, now, settings)


def _probe(
    models: Sequence[str], keys: Keys, table: Cooldowns, now: int, settings: Failover, *, any_time: bool = False
) -> tuple[Selection | None, Cooldowns]:
    """A probe of the one of these that is first done with cooling; any_time: however far that is."""
    ends = [(soonest(table, [(key, model) for key in keys.all(model)], now), model) for model in models]
    end, model = min(ends, key=lambda each: -1 if each[0] is None else each[0])
    expiry = None if any_time else end
    key = in_order(keys, model, table, now)[0]
    if not probe_worthy(table, key, model, expiry, now, settings.cooldowns):
        return None, table
    selection = Selection(model=model, reason="probe", key=keys.named(model, key), because=None)
    return selection, probed(table, key, model, now, settings.cooldowns, scope=keys.scope)


def _elsewhere(
    call: CallModel,
    chain: Sequence[str],
    keys: Keys,
    table: Cooldowns,
    now: int,
    settings: Failover,
    *,
    because: str,
    me: bool,
) -> tuple[Select | Exhausted, Cooldowns]:
    """The next model of the chain that was not asked for this call and does not cool; else a probe; else nobody.

    me: the model of the call itself was not asked either, and may be probed.
    """
    asked = _asked(call)
    left = [model for model in chain if model not in asked and (me or model != call.model)]
    for model in left:
        usable = ready(keys, model, table, now)
        if usable and model != call.model:
            reason = "primary" if model == _first(call) else "fallback"
            chosen = Selection(model=model, reason=reason, key=keys.named(model, usable[0]), because=because)
            return Select(chosen), table
    if left:
        probe, table = _probe(left, keys, table, now, settings, any_time=True)
        if probe is not None:
            return Select(probe), table
    return _exhausted(call, chain, keys, table, now), table


def _leaves(
    call: CallModel,
    code: str,
    key: str | None,
    fresh: int,
    keys: Keys,
    table: Cooldowns,
    now: int,
    settings: Failover,
) -> bool:
    """Whether another is asked although the same could be asked again. fresh: models that were not asked and can be."""
    if call.reason == "probe":
        return True
    if code in ROTATES and _rotated(call, code, key, fresh, keys, table, now, settings) is not None:
        return True  # what is wrong with one key is nothing to wait for while another is idle
    waited = code == "timeout"  # as long as the settings say: not once more where another may answer
    if not waited and (code not in BUSY or tries(call, keys.named(call.model, key)) <= settings.retries):
        return False
    return fresh > 0


def _rotated(
    call: CallModel, code: str, key: str | None, fresh: int, keys: Keys, table: Cooldowns, now: int, settings: Failover
) -> str | None:
    """Another key of the same provider that this model was not asked with for this call. fresh: see `_leaves`."""
    if code not in ROTATES or len(keys.all(call.model)) < 2:
        return None
    mine = _own(call)
    asked = {each.key for each in mine} | {key}
    if code == "rate_limit" and fresh:
        limited = {each.key for each in mine if each.reason == code} | {key}
        if len(limited) > settings.rotations:
            return None
    return next((other for other in ready(keys, call.model, table, now) if other not in asked), None)


def _exhausted(call: CallModel, chain: Sequence[str], keys: Keys, table: Cooldowns, now: int) -> Exhausted:
    asked = _asked(call) | {call.model}
    unasked = []
    for model in chain:
        if model not in asked:
            provider, _, name = model.partition(":")
            why = "attempts" if ready(keys, model, table, now) else "cooldown"
            unasked.append(Tried(provider=provider, model=name, reason=why))
    end = soonest(table, [(key, model) for model in chain for key in keys.all(model)], now)
    return Exhausted(tuple(unasked), None if end is None else -(-end // 1000))
