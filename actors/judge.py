"""What the limits of a scope say to more: whether it may be set aside, how much of it, and what is in the way. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping

from msgspec import Struct

from ..events.budget import LIMITS, NOTHING, UNCOUNTED, Amount, Breach, Budget, CallLimit, Grant, Limit
from ..events.ledger import Allot, falls_to, is_reserved
from .book import NO_SUMS, State, falls_under, rolled, settled, used
from .calendar import DAY_US, MINUTE_US

GENEROUS = 64
"""How many times what it wants a session is allotted where no limit is near: so many calls cost no further asking."""

SHARE = 16
"""Beyond what it wants, a session is allotted at most this part of what a limit leaves."""

_FINE = 1_000_000_000
"""A threshold of warning is taken in parts of so many."""

RAISABLE = ("day", "month", "total")
"""Windows of the limits that a person may be asked to raise. A minute passes by itself, and what one call may cost is a
rule, not a purse."""


def asks(budget: Budget, limit: Limit) -> bool:
    """Whether a person is asked to raise a limit of a budget; about calls of tools nobody is."""
    return budget.on_breach == "ask" and limit.window in RAISABLE and limit.of != "tools"


class Judged(Struct):
    """What limits say. breach: what forbids it. for_sure: no matter what others give back. most: of each, at most.

    spare: of each, what may be allotted on top. ahead: see `Grant`. degrade: a limit was passed that degrades; passed:
    which one.
    """

    breach: Breach | None = None
    for_sure: bool = False
    most: dict[str, int] = {}
    spare: dict[str, int] = {}
    degrade: Budget | None = None
    passed: Breach | None = None
    warned: tuple[str, ...] = ()
    ahead: tuple[tuple[str, int], ...] = ()


def judge(
    state: State,
    principal: str,
    session: str,
    want: Amount,
    least: Amount,
    *,
    priced: bool = True,
) -> Judged:
    """Hold what is wanted against every limit there is; the worst of what they say counts.

    A limit that denies is passed by what cannot be done without, and lets so much be wanted as is left; one that
    degrades is passed by all that is wanted, for nothing lowers that. Those of single calls that do not deny are held
    against each call by its session.
    """
    judged = Judged()
    by_session = not is_reserved(session)
    if state.counting:
        _deny(judged, Breach(code=UNCOUNTED, limit="ledger", of="scope"), for_sure=False)
    elif falls_to(session) in state.open:  # what it used is told in a moment: a session that asks has no other call
        _deny(judged, Breach(code=UNCOUNTED, limit="ledger", of="session"), for_sure=False)
    for standing in falls_under(state, principal, session):
        budget, of = standing.budget, standing.key[0]
        sums = rolled(state.sums.get(standing.key, NO_SUMS), state.now)
        costs = standing.costs
        if not priced and costs is not None and budget.unpriced == "deny":
            _deny(judged, Breach(code="unpriced", limit=costs, of=of), for_sure=True)
        for limit, most in standing.limits:
            if by_session and limit.window == "request" and budget.exceed_strategy != "deny":
                continue
            wanted, needed = getattr(want, limit.of), getattr(least, limit.of)
            settled, out = used(sums, limit, state.now)
            before = settled + out
            if budget.exceed_strategy == "degrade":
                # Of calls of tools a model may want some or none: those that were made count.
                needed = wanted if limit.of != "tools" else max(needed, int(before > most))
            if needed and before + needed > most:
                asked = budget.on_breach == "ask" and limit.window in RAISABLE
                breach = Breach(limit=limit.name, of=of, used=before, wanted=needed, most=most, asks=asked)
                if budget.exceed_strategy == "deny":
                    _deny(judged, breach, for_sure=settled + needed > most)
                elif budget.exceed_strategy == "degrade":
                    judged.degrade, judged.passed = judged.degrade or budget, judged.passed or breach
                judged.warned += (f"{limit.name} of the {of}",)
                judged.spare[limit.of] = 0
                continue
            if budget.exceed_strategy == "deny" or (limit.of == "tools" and budget.exceed_strategy == "degrade"):
                judged.most[limit.of] = min(judged.most.get(limit.of, wanted), max(0, most - before))
            if limit.window == "request":
                continue
            room = most * round(budget.warning_threshold * _FINE) // _FINE - before
            near = room - wanted
            if limit.of == "tools" and needed <= room:  # some are asked for ahead, perhaps for nothing
                judged.ahead += ((f"{limit.name} of the {of}", room),)
            elif near < 0:
                judged.warned += (f"{limit.name} of the {of}",)
            judged.spare[limit.of] = min(judged.spare.get(limit.of, near // SHARE), max(0, near) // SHARE)
    return judged


def _deny(judged: Judged, breach: Breach, *, for_sure: bool) -> None:
    """The first denial is told; one that nothing can lift is told before one that something might."""
    if judged.breach is None or (for_sure and not judged.for_sure):
        judged.breach, judged.for_sure = breach, for_sure


def granted(state: State, message: Allot, judged: Judged) -> Grant:
    amounts = {}
    for of in Amount.__struct_fields__:
        want = getattr(message.want, of)
        # Where calls of tools ask, the rest is what the session has left: more each time would have no end.
        more = not is_reserved(message.session_id) and (of == "tools" or not message.least.tools)
        spare = want * (GENEROUS - 1) if more else 0
        amounts[of] = judged.most.get(of, want) + max(0, min(spare, judged.spare.get(of, spare)))
    caps: dict[str, int] = {}
    whose: dict[str, str] = {}
    # An allotment is of its day: what is spent of it is settled in that day, whatever limits are set meanwhile.
    until = (state.now // DAY_US + 1) * DAY_US
    needs_price, per_job, degrade_to = False, False, None
    calls: list[CallLimit] = []
    for standing in falls_under(state, message.principal_id, message.session_id):
        budget = standing.budget
        needs_price = needs_price or (standing.costs is not None and budget.unpriced == "deny")
        per_job = per_job or standing.key[0] == "principal"
        degrade_to = degrade_to or budget.degrade_to
        for limit, most in standing.limits:
            if limit.window == "request" and budget.exceed_strategy == "deny":
                if most < caps.get(limit.of, most + 1):
                    caps[limit.of], whose[limit.of] = most, standing.key[0]
                if limit.of != "tools":
                    # So much at once is never used, and the rest would lie idle: but for the calls that follow.
                    amounts[limit.of] = min(amounts[limit.of], most * GENEROUS)
            elif limit.window == "request":
                degrades = budget.exceed_strategy == "degrade"
                calls.append(
                    CallLimit(limit=limit.name, whose=standing.key[0], of=limit.of, most=most, degrades=degrades)
                )
            elif limit.window == "minute":
                until = min(until, state.now + MINUTE_US)
    return Grant(
        amount=Amount(**amounts),
        until=until,
        tokens_per_request=caps.get("tokens"),
        cost_per_request=caps.get("cost"),
        tools_per_request=caps.get("tools"),
        needs_price=needs_price,
        per_job=per_job,
        degrade=judged.degrade is not None,
        degrade_to=(judged.degrade.degrade_to if judged.degrade else None) or degrade_to,
        warned=judged.warned,
        passed=judged.passed,
        principal=message.principal_id,
        calls=tuple(calls),
        ahead=tuple(each for each in judged.ahead if each[1] < amounts["tools"]),
        whose=tuple((of, owner) for of, owner in whose.items() if owner != "scope"),
    )


# -- who waits --


def in_the_way(state: State, message: Allot) -> Breach | None:
    """The limit that forbids what is asked for now, None where there is none."""
    free = settled(state, message.session_id, message.principal_id, message.spent, NOTHING, message.at, message.made)
    asker = message.principal_id, message.session_id
    return judge(free, *asker, message.want, message.least, priced=message.priced).breach


def may_come_back(
    state: State, message: Allot, breach: Breach, lost: Container[str], calling: Mapping[str, str]
) -> bool:
    """Whether what other sessions hold of the limit in the way may still be given back. lost: those who cannot be
    asked. calling: those that have a call under way, with the ask that pays for it. It may cost less than was set aside
    for it, but it is a request.
    """
    if breach.code == UNCOUNTED:
        return True
    of = next(limit.of for limit in LIMITS if limit.name == breach.limit)
    for name, account in state.accounts.items():
        mine = breach.of == "scope" or account.principal == message.principal_id
        if name == message.session_id or name in lost or not mine:
            continue
        if getattr(account.held, of) > (of == "requests" and calling.get(name) == account.ask):
            return True
    return False
