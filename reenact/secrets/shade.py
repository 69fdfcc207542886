"""A shade over what the process tells of itself: messages of errors and lines of logs, without any vault's secrets.

One for the process, drawn while at least one vault is open.
"""

from __future__ import annotations

import logging
import weakref
from typing import Protocol

from ..events.errors import hide

_CARRIERS = (
    *("openai", "openai._base_client", "openai._response", "openai._legacy_response"),
    *("anthropic", "anthropic._base_client", "anthropic._response"),
    *("httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.http2", "httpcore2.proxy", "httpcore2.socks"),
)
_OURS = (
    *("reenact.bus", "reenact.dispatch", "reenact.actors", "reenact.actors.threads", "reenact.adapters.hosts.local"),
    *("reenact.adapters.tools.runner",),
)


class Hides(Protocol):
    """A vault, as far as this room knows it."""

    def log_line(self, text: str) -> str:
        """A line of a log, without the secrets of any scope."""
        ...

    def message(self, text: str) -> str:
        """An error's message, for whoever it is, without its secrets."""
        ...


def draw(vault: Hides) -> None:
    """Hide what this vault knows too, until `lift`, or until nobody holds it: one that was dropped leaves nothing."""
    if not _OPEN:
        for name in shaded():
            logging.getLogger(name).addFilter(_SHADE)
    _OPEN.add(vault)


def lift(vault: Hides) -> None:
    """Leave alone again what this vault knows."""
    _OPEN.discard(vault)
    if not _OPEN:
        for name in shaded():
            logging.getLogger(name).removeFilter(_SHADE)


def shaded() -> list[str]:
    """The loggers that it is for: ours, and those of the libraries that carry keys and answers."""
    ours = (name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "reenact")
    return [*dict.fromkeys(("reenact", *_OURS, *ours, *_CARRIERS))]


class Shade(logging.Filter):
    """Takes the secrets of all open vaults out of what loggers write, tracebacks included. One for the process."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record through, without secrets; one that holds none is not touched."""
        try:
            said = record.getMessage()
        except Exception:  # the handler will say that it cannot be formatted
            said = str(record.msg)
        hidden = _line(said)
        if hidden != said:
            record.msg, record.args = hidden, None
        if record.exc_info and not record.exc_text:
            trace = logging.Formatter().formatException(record.exc_info)
            shown = _line(trace)
            if shown != trace:
                # The exception itself still holds it, and some handlers would show it.
                record.exc_text, record.exc_info = shown, None
        return True


def _line(text: str) -> str:
    for vault in tuple(_OPEN):
        text = vault.log_line(text)
    return text


def _message(text: str) -> str:
    for vault in tuple(_OPEN):
        text = vault.message(text)
    return text


_OPEN: weakref.WeakSet[Hides] = weakref.WeakSet()
_SHADE = Shade()
hide(_message)
