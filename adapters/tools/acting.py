"""On whose behalf code runs: set around every call of a tool, so that what a tool asks of its runtime it asks as its
agent. It holds for the tool's tasks and for the thread it runs in; code that a tool hands to threads of its own must
carry it along (`contextvars.copy_context().run`).

Tools are programs of this process, trusted as such. What this guards is that none is talked into deciding, in a
person's name, what only a person may decide.
"""

from __future__ import annotations

from contextvars import ContextVar, Token

_acting: ContextVar[str | None] = ContextVar("reenact_principal", default=None)


def acting_as() -> str | None:
    """The principal that this code runs as, None where no tool runs here."""
    return _acting.get()


class acting:
    """Run what is within as this principal. A class: a generator would cost thrice that."""

    __slots__ = ("_principal", "_token")

    def __init__(self, principal: str) -> None:
        self._principal = principal

    def __enter__(self) -> None:
        self._token: Token[str | None] = _acting.set(self._principal)

    def __exit__(self, *_: object) -> None:
        _acting.reset(self._token)
