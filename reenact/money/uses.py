"""How much of each limit is used, set aside and left: for whoever owns a log, and whoever reads it."""

from __future__ import annotations

from msgspec import Struct

from ..actors import judge
from ..actors.book import State, settled, used_of
from ..actors.purse import Purse
from ..events.budget import NOTHING, dollars


class LimitUse(Struct, frozen=True, kw_only=True, rename="camel"):
    """One limit and what is used of it in its window: money in US dollars as exact decimals, the rest whole numbers.

    of: scope, principal or session; name: whose it is. used: settled, with what sessions have spent of what they hold.
    outstanding: set aside for sessions, and not spent. left: what may still be set aside. strategy: what follows when
    it would be passed: deny, degrade, warn, or ask, where a person may raise it. counting: what was used before it was
    set is being counted, and nothing is set aside until it is. uncounted: sessions of which a call was under way when
    it was set: what that uses is counted when it ends.
    """

    limit: str
    of: str
    name: str | None
    window: str
    most: str | int
    used: str | int
    outstanding: str | int
    left: str | int
    strategy: str
    counting: bool = False
    uncounted: int = 0


def uses(state: State, purses: dict[str, Purse | None], at: int) -> list[LimitUse]:
    """Every limit of a ledger with what is used of it. purses: of the sessions that hold something."""
    for session_id, account in state.accounts.items():
        purse = purses.get(session_id)
        if account.held != NOTHING and purse is not None:
            kept = account.held - (purse.spent - account.told) if purse.source == account.ask else account.held
            state = settled(state, session_id, account.principal, purse.spent, kept, at, purse.made)
    found = []
    for standing in state.budgets:
        of, name = standing.key
        for limit, most in standing.limits:
            used, out = used_of(state, standing, limit, at)
            show = dollars if limit.of == "cost" else int
            found.append(
                LimitUse(
                    limit=limit.name,
                    of=of,
                    name=name or None,
                    window=limit.window,
                    most=show(most),
                    used=show(used),
                    outstanding=show(out),
                    left=show(max(0, most - used - out)),
                    strategy="ask" if judge.asks(standing.budget, limit) else standing.budget.exceed_strategy,
                    counting=state.counting > 0,
                    uncounted=_uncounted(state, of, name),
                )
            )
    return found


def _uncounted(state: State, of: str, name: str) -> int:
    """A session that is not counted yet may be of any principal."""
    return len(state.open) if of != "session" else int(name in state.open)
