"""The ends of effects, brought to the log: what happened in the world must not be lost to a passing fault."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from ..actors.clock import Clock
from ..actors.dispatch import Origin
from ..actors.system import Reply
from ..events.agent import RecoverEffect
from ..events.bus import SystemBus
from ..events.errors import (
    BadInput,
    Busy,
    Closed,
    Conflict,
    Corrupt,
    DiskFull,
    Fenced,
    Full,
    ReenactError,
    StoreError,
    StoreFailed,
    UnknownOutcome,
    Unrevealed,
)
from ..events.message import Asked, Command, Context, Live
from ..events.payload import Payload
from ..events.purse import ReleaseAllotment

RETELL_MAX_S = 5.0
"""The longest wait before a log that had no room for something is given it again."""

NOBODY = ""
"""The scope of what is no tenant's."""

_log = logging.getLogger("reenact")


def retell_s(tries: int) -> float:
    """Seconds until a log that had no room for something is given it again. tries: how often it was given it again."""
    return min(RETELL_MAX_S, 0.05 * 2.0 ** min(tries, 10))


class Post(Protocol):
    """Puts a command into a stream's mailbox. own: the runtime's own, for whoever it is about."""

    def __call__(self, stream: str, asked: Asked, told: Callable[[Reply], object], *, own: bool) -> None: ...


class Ends:
    """Tells a stream how an effect of it ended, until that is stored, or the log takes no more.

    asked(command): in its envelope, from the runtime itself. stopped(error): tells whoever waits that the log takes no
    more. called_back: sessions, by stream, and the allotment that their ledger calls back.
    """

    def __init__(
        self,
        *,
        post: Post,
        asked: Callable[[Command], Asked],
        stopped: Callable[[ReenactError], None],
        bus: SystemBus,
        clock: Clock,
        called_back: Mapping[str, str],
    ) -> None:
        self._post = post
        self._asked = asked
        self._stopped = stopped
        self._bus = bus
        self._clock = clock
        self._called_back = called_back
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def close(self) -> None:
        """No end is told any more: what is owed stays owed."""
        self._closed = True

    def tell(
        self,
        stream: str,
        command: Command,
        origin: Origin | None,
        otherwise: Callable[[], Command] | None = None,
        tries: int = 0,
    ) -> None:
        """The end of an effect, on behalf of whoever caused it. otherwise: gives what to tell where it cannot be
        stored."""
        if self._closed:
            return
        if type(command) is RecoverEffect and stream in self._called_back:
            # What an earlier owner left goes on with money of the limits of now.
            self.tell(stream, ReleaseAllotment(ask=self._called_back[stream]), origin)
        if origin is None:
            asked = self._asked(command)
        else:
            asked = Asked(
                id=self._clock.new_id(),
                at=self._clock.now(),
                command=command,
                scope=origin.scope,
                principal=origin.principal,
                cause=origin.cause,
                correlation=origin.correlation,
                trace=origin.trace,
            )
        ended = partial(self._ended, stream, command, origin, otherwise, tries)
        try:
            self._post(stream, asked, ended, own=True)
        except (BadInput, Unrevealed) as error:
            ended(Reply(error=error))

    def _ended(
        self,
        stream: str,
        command: Command,
        origin: Origin | None,
        otherwise: Callable[[], Command] | None,
        tries: int,
        reply: Reply,
    ) -> None:
        """Whether an effect's end is stored. What happened in the world must not be lost to a passing fault."""
        error = reply.error
        if error is None:
            return
        log = _log.debug if tries else _log.error
        log("%s did not take %s: %s", stream, command.type, error)
        if not tries:
            self._complain(stream, command, error, origin)
        if isinstance(error, DiskFull | Busy | Conflict | Full):
            # Nothing was written, and there may be room soon.
            self._loop.call_later(retell_s(tries), self.tell, stream, command, origin, otherwise, tries + 1)
        elif isinstance(error, Fenced | StoreFailed | UnknownOutcome | Corrupt):
            self._stopped(error)
        elif otherwise is not None and not isinstance(error, Closed | StoreError):
            self.tell(stream, otherwise(), origin)

    def _complain(self, stream: str, command: Command, error: Exception, origin: Origin | None) -> None:
        details = {"stream": stream, "command": command.type, "code": getattr(error, "code", "internal")}
        data = Payload({"message": str(error), "severity": "error", "details": details})
        # Where nobody knows whose it is, it is nobody's: only who has the whole bus hears of it.
        whose = Context(NOBODY) if origin is None else Context(origin.scope, origin.principal)
        trouble = Live("system_error", data, at=self._clock.now(), context=whose, source="command", category="error")
        self._bus.emit(trouble)
