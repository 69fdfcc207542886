"""The live view: what one watcher has not read yet, as an async iterator with a bound that says when it drops.

Imports msgspec and asyncio only. It never waits on the producer's side, and it is no way to miss nothing: whoever must
not lose events reads the log by position (`SystemBus.past` wakes it).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, Protocol, Self

from .errors import BadInput
from .message import BusEvent, Live
from .payload import Payload

OnFull = Literal["drop_oldest", "drop_newest", "close"]
"""What a full view does with the next event: lets go of the oldest unread one, or of this one, or ends."""

LIMIT = 1000
"""Events a live view holds unread unless told otherwise."""


class Unsubscribe(Protocol):
    def unsubscribe(self) -> None: ...


class LiveView:
    """What came since it was made, in bus order, for one reader: `async for event in view`.

    It holds at most `limit` unread events. When full it lets go as `on_full` says and puts, in the place of what is
    missing, one `events_dropped` event with data {count}; `dropped` is the total. Events that `keep` names are never
    let go: they may take the view to twice its limit, past which it ends. A view that ends because it is full
    (`on_full="close"`, or too many kept events) gives all it holds, then an `events_dropped` with data
    {count, closed: True}, then stops.

    Closing it, the end of a `with` block, or letting it go unreferenced unsubscribes. After `close()` and after the
    bus is disposed it gives what it still holds and stops. Events arrive from any thread; it is read on one loop.
    """

    __slots__ = ("__weakref__", "_unread")

    def __init__(self, unread: Unread) -> None:
        self._unread = unread

    @property
    def dropped(self) -> int:
        """Events let go so far."""
        return self._unread.dropped

    @property
    def overflowed(self) -> bool:
        """True once it ended because it was full."""
        return self._unread.overflowed

    def __len__(self) -> int:
        """Unread events."""
        return self._unread.size

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BusEvent:
        unread = self._unread
        while True:
            event = unread.take()
            if event is not None:
                return event
            if unread.closed:
                raise StopAsyncIteration
            await unread.wait()

    def close(self) -> None:
        """End it, as often as you like."""
        self._unread.close()

    async def aclose(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The bus holds the queue, not the view: a reader that left its loop by `break` is noticed here. Collection may
        # strike in the middle of anything, so no lock is taken: the next event finds the mark and unsubscribes.
        self._unread.closed = True


class _Gap:
    """Stands in the queue where events are missing."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 1


class Unread:
    """The queue behind a view. `push` is called by the bus, one call at a time; all else by the reader's thread.

    Both ends work lock-free on the deque's two ends while there is room; whoever removes in the middle holds the lock,
    and so does the reader, who could otherwise take what is being removed.
    """

    __slots__ = (
        "_gaps",
        "_keep",
        "_limit",
        "_lock",
        "_loop",
        "_now",
        "_on_full",
        "_queue",
        "_skip",
        "_thread",
        "_waiter",
        "closed",
        "dropped",
        "overflowed",
        "subscription",
    )

    def __init__(
        self, *, limit: int, on_full: OnFull, keep: Callable[[Any], object] | None, now: Callable[[], int]
    ) -> None:
        if limit < 1:
            raise BadInput(f"limit must be at least 1, not {limit}.")
        if on_full not in ("drop_oldest", "drop_newest", "close"):
            raise BadInput(f"on_full must be drop_oldest, drop_newest or close, not {on_full!r}.")
        self._queue: deque[BusEvent | _Gap] = deque()
        self._lock = threading.Lock()
        self._limit = limit
        self._on_full = on_full
        self._keep = keep
        self._now = now
        self._gaps = 0  # entries that are gaps
        self._skip = 0  # leading entries known to be gaps or kept, so that no drop scans them again
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False
        self.dropped = 0
        self.overflowed = False
        self.subscription: Unsubscribe | None = None

    @property
    def size(self) -> int:
        return len(self._queue) - self._gaps

    def push(self, event: BusEvent) -> None:
        """Take one event in, or let one go."""
        if self.closed:
            self._unsubscribe()  # the view was let go of without being closed
            return
        # A reader in another thread can only make this length too large, which sends us to look again under the lock.
        if len(self._queue) - self._gaps < self._limit:
            self._queue.append(event)
        else:
            with self._lock:
                self._push_full(event)
            if self.closed:
                self._unsubscribe()
        if self._waiter is not None:
            self._wake()

    def take(self) -> BusEvent | None:
        """The oldest unread event, or None. A gap comes out as an `events_dropped`."""
        with self._lock:
            if not self._queue:
                return None
            entry = self._queue.popleft()
            if self._skip:
                self._skip -= 1
            if not isinstance(entry, _Gap):
                return entry
            self._gaps -= 1
        fields: dict[str, Any] = {"count": entry.count}
        if self.overflowed and not self._queue:
            fields["closed"] = True
        return Live("events_dropped", Payload(fields), at=self._now())

    async def wait(self) -> None:
        """Until something is unread or the view is closed. At most one reader."""
        if self._waiter is not None:
            raise BadInput("This view is already being read; give every reader a view of its own.")
        loop = asyncio.get_running_loop()
        self._loop, self._thread = loop, threading.get_ident()
        waiter = self._waiter = loop.create_future()
        try:
            # Looked at again after the waiter is in place: what came before that woke nobody.
            if not self._queue and not self.closed:
                await waiter
        finally:
            if self._waiter is waiter:
                self._waiter = None

    def close(self) -> None:
        self.closed = True
        self._unsubscribe()
        if self._waiter is not None:
            self._wake()

    def _push_full(self, event: BusEvent) -> None:
        queue, keep = self._queue, self._keep
        if len(queue) - self._gaps < self._limit:  # the reader was quicker
            queue.append(event)
        elif self._on_full == "close":
            self._overflow()
        elif self._on_full == "drop_oldest" and (index := self._oldest_to_drop()) is not None:
            self._drop(index)
            queue.append(event)
        elif keep is None or not keep(event):
            self._drop_this()
        elif len(queue) - self._gaps < 2 * self._limit:
            queue.append(event)
        else:
            self._overflow()

    def _oldest_to_drop(self) -> int | None:
        queue, keep = self._queue, self._keep
        for index in range(self._skip, len(queue)):
            entry = queue[index]
            if not isinstance(entry, _Gap) and (keep is None or not keep(entry)):
                self._skip = index
                return index
        self._skip = len(queue)
        return None

    def _drop(self, index: int) -> None:
        self.dropped += 1
        queue = self._queue
        before = queue[index - 1] if index else None
        if isinstance(before, _Gap):
            before.count += 1
            del queue[index]
        else:
            queue[index] = _Gap()
            self._gaps += 1
            self._skip = index + 1

    def _drop_this(self) -> None:
        self.dropped += 1
        last = self._queue[-1] if self._queue else None
        if isinstance(last, _Gap):
            last.count += 1
        else:
            self._queue.append(_Gap())
            self._gaps += 1

    def _overflow(self) -> None:
        self._drop_this()
        self.overflowed = self.closed = True

    def _unsubscribe(self) -> None:
        if self.subscription is not None:
            self.subscription.unsubscribe()

    def _wake(self) -> None:
        """One wake-up however many events came since the reader went to sleep."""
        waiter, loop, self._waiter = self._waiter, self._loop, None
        if waiter is None or loop is None:
            return
        try:
            if threading.get_ident() == self._thread:
                _set(waiter)
            else:
                loop.call_soon_threadsafe(_set, waiter)
        except RuntimeError:  # the reader's loop is closed: nobody reads this any more
            self.closed = True


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
