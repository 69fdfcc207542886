"""On whose behalf code runs: set around every call of a tool, so that what a tool asks of its runtime it asks as its
agent. It holds for the tool's tasks and for the thread it runs in; code that a tool hands to threads of its own must
carry it along (`contextvars.copy_context().run`).

Tools are programs of this process, trusted as such. What this guards is that none is talked into deciding, in a
person's name, what only a person may decide.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token

from ...events.policy import Policy

Within = tuple[Policy, ...]

_acting: ContextVar[tuple[str, Callable[[], Within] | None] | None] = ContextVar("reenact_acting", default=None)


def acting_as() -> str | None:
    """The principal that this code runs as, None where no tool runs here."""
    acting = _acting.get()
    return None if acting is None else acting[0]


def within() -> Within | None:
    """The rules that hold for whatever job this code sends: none where no tool runs here. None: nobody knows them."""
    acting = _acting.get()
    if acting is None:
        return ()
    return None if acting[1] is None else acting[1]()


class acting:
    """Run what is within as this principal. within(): the rules that hold for the jobs it sends, asked for when it
    sends one; where they are not known, it sends none. A class: a generator would cost thrice that.
    """

    __slots__ = ("_acting", "_token")

    def __init__(self, principal: str, within: Callable[[], Within] | None = None) -> None:
        self._acting = (principal, within)

    def __enter__(self) -> None:
        self._token: Token[tuple[str, Callable[[], Within] | None] | None] = _acting.set(self._acting)

    def __exit__(self, *_: object) -> None:
        _acting.reset(self._token)
