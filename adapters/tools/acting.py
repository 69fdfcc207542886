"""On whose behalf code runs: set around every call of a tool, so that what a tool asks of its runtime it asks as its
agent. It holds for the tool's tasks and for the thread it runs in; code that a tool hands to threads of its own must
carry it along (`contextvars.copy_context().run`).

Tools are programs of this process, trusted as such. What this guards is that none is talked into deciding, in a
person's name, what only a person may decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_acting: ContextVar[str | None] = ContextVar("reenact_principal", default=None)


def acting_as() -> str | None:
    """The principal that this code runs as, None where no tool runs here."""
    return _acting.get()


@contextmanager
def acting(principal: str) -> Iterator[None]:
    """Run what is within as this principal."""
    token = _acting.set(principal)
    try:
        yield
    finally:
        _acting.reset(token)
