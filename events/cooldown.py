"""The words of cooldowns: which models are left alone for a while, with which key. Stream `cooldown-<scope>`."""

from __future__ import annotations

from typing import ClassVar

from .message import Command, Event

# -- true of models that failed. These names and fields are the storage format: add, never change --


class CooldownOpened(Event, frozen=True, kw_only=True):
    """A model is left alone with this key, as it failed.

    key: the label of the key, or of the address where the server there needs none; None where there is neither. whole:
    all models of the key are left alone. code: of the failure. since, until: microseconds UTC. count: windows of this
    kind in a row, this one included.
    """

    type: ClassVar[str] = "cooldown_opened"
    source: ClassVar[str] = "system"
    category: ClassVar[str] = "error"
    model: str
    key: str | None
    whole: bool
    code: str
    since: int
    until: int
    count: int


class CooldownEnded(Event, frozen=True, kw_only=True):
    """It answered: what it failed with before counts no more."""

    type: ClassVar[str] = "cooldown_ended"
    source: ClassVar[str] = "system"
    category: ClassVar[str] = "state"
    model: str
    key: str | None
    whole: bool


# -- asked of them --


class NoteCooldowns(Command, frozen=True, kw_only=True):
    """Have in the log what changed of them, for those who come after this process. So already: nothing happens."""

    type: ClassVar[str] = "note_cooldowns"
    opened: tuple[CooldownOpened, ...] = ()
    ended: tuple[CooldownEnded, ...] = ()


COMMANDS = (NoteCooldowns,)
EVENTS = (CooldownOpened, CooldownEnded)
