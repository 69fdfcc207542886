"""What is seen live of an answer, without its secrets: a secret may come in any number of pieces.

The end of a text is held back while it may be the beginning of a secret, and no longer. Nothing is stored here.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..events.message import Signal
from ..events.stream import (
    Connected,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    TextBlockStart,
    TextBlockStop,
    TextDelta,
    ThinkingDelta,
    ThinkingStart,
    ThinkingStop,
    ToolUseStop,
)
from .texts import WORDS
from .vault import Vault

HELD_MAX = 64 * 1024
"""Most characters that are held back. A text that goes on looking like one secret beyond it is not shown to its end."""

BEHIND = 16
"""Characters that were shown before and are still looked at: a key begins where a word begins."""

_DELTAS: dict[type[Signal], str] = {TextDelta: "text", ThinkingDelta: "text", InputJsonDelta: "partial_json"}
_WORDLESS = {TextBlockStart, ThinkingStart, MessageDelta, Connected}
_STOPS: dict[type[Signal], tuple[type[Signal], ...]] = {
    TextBlockStop: (TextDelta,),
    ThinkingStop: (ThinkingDelta,),
    ToolUseStop: (InputJsonDelta,),
    MessageStop: (TextDelta, ThinkingDelta, InputJsonDelta),
    MessageStart: (TextDelta, ThinkingDelta, InputJsonDelta),
}


class Veil:
    """One session's live signals, as they come, each with what may be shown of it."""

    __slots__ = ("_before", "_blind", "_held", "_scope", "_vault")

    def __init__(self, vault: Vault, scope: str = "default") -> None:
        self._vault = vault
        self._scope = scope
        self._held: dict[type[Signal], str] = {}
        self._before: dict[type[Signal], str] = {}  # the end of what was shown, for patterns look behind
        self._blind: set[type[Signal]] = set()

    def show(self, signal: Signal) -> tuple[Signal, ...]:
        """What may be shown now: of a delta its safe part, before a stop what was held back."""
        kind = type(signal)
        field = _DELTAS.get(kind)
        if field is None:
            ended = _STOPS.get(kind)
            hidden = signal if _is_wordless(signal, kind) else self._vault.hidden(signal, self._scope)
            if ended is None or not self._before:
                return (hidden,)
            return (*self._let_go(ended), hidden)
        text: str = getattr(signal, field)
        held, before, vault = self._held.get(kind, ""), self._before.get(kind, ""), self._vault
        if not (held or self._blind) and vault.is_plain(text, before, self._scope):
            self._before[kind] = (before + text)[-BEHIND:]
            return (signal,)
        shown = self._shown(kind, before, held + text)
        return (_delta(kind, shown),) if shown else ()

    def rest(self) -> tuple[Signal, ...]:
        """The answer is over, or cut off: what was held back."""
        return tuple(self._let_go(tuple(_DELTAS)))

    def _shown(self, kind: type[Signal], before: str, text: str) -> str:
        if kind in self._blind:
            return ""
        start, whole = len(before), before + text
        at = self._vault.begins(whole, start, self._scope)
        if at is None or len(whole) - at > HELD_MAX:
            if at is not None:
                self._blind.add(kind)
            at = len(whole)
        self._held[kind] = whole[at:]
        shown = self._vault.text(whole[:at], start, self._scope)[start:]
        if at > start:
            self._before[kind] = (before + shown)[-BEHIND:]
        return shown

    def _let_go(self, kinds: tuple[type[Signal], ...]) -> Iterator[Signal]:
        for kind in kinds:
            held, before = self._held.pop(kind, ""), self._before.pop(kind, "")
            self._blind.discard(kind)
            if held:
                yield _delta(kind, self._vault.text(before + held, len(before), self._scope)[len(before) :])


def _is_wordless(signal: Signal, kind: type[Signal]) -> bool:
    """Whether there is no text in it that somebody wrote."""
    if kind in _WORDLESS:
        return True
    if kind is MessageStop:
        return signal.stop_sequence is None and signal.stop_reason in WORDS  # type: ignore[attr-defined]
    if kind is TextBlockStop or kind is ToolUseStop:
        return signal.extra is None  # type: ignore[attr-defined]
    return False


def _delta(kind: type[Signal], text: str) -> Signal:
    return kind(**{_DELTAS[kind]: text})
