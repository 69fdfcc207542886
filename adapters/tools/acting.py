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

_acting: ContextVar[acting | None] = ContextVar("reenact_acting", default=None)


def acting_as() -> str | None:
    """The principal that this code runs as, None where no tool runs here."""
    acting = _acting.get()
    return None if acting is None else acting.principal


def within() -> Within | None:
    """The rules that hold for whatever job this code sends: none where no tool runs here. None: nobody knows them."""
    acting = _acting.get()
    if acting is None:
        return ()
    return None if acting.within is None else acting.within()


def origin(scope: str) -> str:
    """The principal for whom a job counts that this code sends in this scope: that of the job whose tool runs here.
    Empty where none does, or it is another scope's: then it counts for whoever sends it."""
    acting = _acting.get()
    return acting.origin[1] if acting is not None and acting.origin[0] == scope else ""


class acting:
    """Run what is within as this principal. within(): the rules that hold for the jobs it sends, asked for when it
    sends one; where they are not known, it sends none. origin: the scope and the principal for whom those count. A
    class: a generator would cost thrice that.
    """

    __slots__ = ("_token", "origin", "principal", "within")

    def __init__(
        self, principal: str, within: Callable[[], Within] | None = None, origin: tuple[str, str] = ("", "")
    ) -> None:
        self.principal = principal
        self.within = within
        self.origin = origin

    def __enter__(self) -> None:
        self._token: Token[acting | None] = _acting.set(self)

    def __exit__(self, *_: object) -> None:
        _acting.reset(self._token)
