"""Lanes: mailboxes that live on pooled pykka actors, one message at a time each. **Home of pykka.**

An idle lane is one small object: no thread, no event, no place in any queue. A few worker threads share one run queue.
Imports pykka and `events.errors`. It never looks into a message and never waits for the world.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, final

import pykka
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from ..events.errors import Closed

if TYPE_CHECKING:
    from pykka._actor import ActorInbox

__all__ = ["Pool", "Lane", "Behaviour", "BATCH_MAX", "IDLE_EVERY"]

BATCH_MAX: Final = 64
"""Messages one lane may handle in a row before the lanes behind it get their turn."""

IDLE_EVERY: Final = 16
"""Lanes a worker runs, at most, between two calls of `on_idle`."""

# Shared by all lanes: a lock of its own would be the largest thing a lane has. They are held for a few instructions,
# and nobody ever holds two.
_locks = cycle([threading.Lock() for _ in range(64)])

# The life of a lane. IDLE: nothing to do. READY: on the run queue. RUNNING: a worker is in it. PARKED: its last message
# is not finished, so the next waits for unpark(). CLOSED: for ever; one may still be met on the run queue.
_IDLE, _READY, _RUNNING, _PARKED, _CLOSED = range(5)

_logger = logging.getLogger(__name__)


class Behaviour(Protocol):
    """What a lane does with a message."""

    def receive(self, message: object, /) -> bool:
        """Handle one message on a worker thread, never two at a time in one lane.

        Return True to park the lane: no further message is handed over until `Lane.unpark`. Return False to go on.
        Whatever it raises goes to `on_crash`, and the lane goes on with its next message.
        """
        ...


class Pool:
    """The worker threads, the run queue they share, and the directory of lanes. One a runtime.

    `on_idle` is called by a worker that finds no ready lane, before it sleeps, and after every `IDLE_EVERY` lanes it
    ran, so nothing that waits for it starves under load. Returning True means "I did something": the worker then looks
    at the run queue again, and calls it again before it sleeps. Several workers may be in it at once; where it turns
    one away because another is busy, the busy one must return True, or what the first had brought waits for the next
    message.

    `on_crash(key, error)` hears what a behaviour raised; the key is "on_idle" for what `on_idle` raised. Without one,
    errors are logged. No worker is hurt by what either hook raises.

    `on_ready(behaviour)` is asked when a message made a lane ready, on the thread that brought it. True: that thread
    will call `step` soon, so no worker is woken for it. Any worker that is awake may be quicker.
    """

    on_ready: Callable[[Any], bool] | None = None

    def __init__(
        self,
        *,
        threads: int | None = None,
        on_crash: Callable[[str, BaseException], None] | None = None,
        on_idle: Callable[[], bool | None] | None = None,
    ) -> None:
        count = min(2, os.cpu_count() or 1) if threads is None else threads
        if count < 1:
            raise ValueError(f"a pool needs at least one thread, not {count}")
        self._on_crash = on_crash
        self._on_idle = on_idle
        # Our own directory. pykka's ActorRegistry is one list for the whole process: finding and stopping are O(n) in
        # it (8.5 ms a stop at 100,000 actors), and anyone's `ActorRegistry.stop_all()` would end our lanes behind our
        # back. So lanes are never registered there, and never come up in another user's `get_all` or `broadcast`.
        self._lanes: dict[str, Lane] = {}
        # The run queue: a deque, and a stack of sleepers with a lock each to sleep on. While somebody is awake, making
        # a lane ready is one append; a wake-up wakes one thread, the one that slept last. SimpleQueue was measured
        # beside it: with 4 sleepers, each get() wakes a second one for nothing (28 us to the worker, here 19).
        self._ready: deque[Lane] = deque()
        self._guard = threading.Lock()  # over _asleep, _waking, _closing and changes of _lanes
        self._asleep: list[_Worker] = []
        self._waking = False  # somebody was taken off _asleep and has not looked at the run queue yet
        self._closing = False
        self._workers = [_Worker(self, f"lanes-{n}") for n in range(count)]
        for worker in self._workers:
            worker.thread.start()

    def spawn(self, key: str, behaviour: Behaviour) -> Lane:
        """Make an idle lane and enter it in the directory. No thread hears of it before its first message.

        Raises ValueError if the key is taken, `Closed` if the pool is.
        """
        lane = Lane(self, key, behaviour)
        with self._guard:
            if self._closing:
                raise Closed(f"No lane {key!r} can be made: the pool is closed.")
            if self._lanes.setdefault(key, lane) is not lane:
                raise ValueError(f"there is a lane {key!r} already: remove it first")
        return lane

    def get(self, key: str) -> Lane | None:
        with self._guard:  # `use` has it out of the directory for a moment
            return self._lanes.get(key)

    def remove(self, key: str) -> list[object]:
        """Close a lane and forget it, in O(1). Returns the messages it never handed over, oldest first.

        A message being handled is finished, and nobody waits for that: until then a new lane of the same key runs
        beside it. May be called from the lane itself. A key that is not there gives an empty list.
        """
        with self._guard:
            lane = self._lanes.pop(key, None)
        return [] if lane is None else lane._close()

    def use(self, key: str) -> Lane | None:
        """The lane of this key, from now on the one that was used last."""
        with self._guard:
            lane = self._lanes.pop(key, None)
            if lane is not None:
                self._lanes[key] = lane
        return lane

    def retire(self, count: int, may: Callable[[Any], bool]) -> list[str]:
        """Remove up to so many lanes that are at rest, those used longest ago first. Gives their keys.

        At rest: nothing queued, nothing in hand, not parked, and `may(behaviour)`.
        """
        retired: list[str] = []
        if count > 0:
            with self._guard:
                for key, lane in self._lanes.items():
                    if may(lane._behaviour) and lane._rest():
                        retired.append(key)
                        if len(retired) == count:
                            break
                for key in retired:
                    del self._lanes[key]
        return retired

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def threads(self) -> int:
        return len(self._workers)

    @property
    def idle_workers(self) -> int:
        """Workers asleep now."""
        return len(self._asleep)

    @property
    def ready(self) -> int:
        """Lanes on the run queue now, counting removed ones that no worker has met yet."""
        return len(self._ready)

    def close(self, *, timeout_s: float = 5.0) -> dict[str, list[object]]:
        """Finish what is being handled, call `on_idle` a last time on each worker, join them, close every lane.

        Returns the messages never handed over, by key, oldest first; each is returned once, so closing again gives {}.
        A worker that does not end within `timeout_s` (all together) is left behind, and told to `on_crash` as a
        TimeoutError under the key of its lane. Called from a worker, it waits for the others only.
        """
        with self._guard:
            self._closing = True
            asleep, self._asleep = self._asleep, []
        for worker in asleep:
            worker.parker.release()
        deadline = time.monotonic() + timeout_s
        for worker in self._workers:
            if worker.thread is threading.current_thread():
                continue
            worker.thread.join(max(0.0, deadline - time.monotonic()))
            if worker.thread.is_alive():
                lane = worker.lane
                self._crashed(lane.key if lane else "on_idle", TimeoutError(f"not done {timeout_s} s after close()"))
        # Lanes close last: a handler that is just finishing may still tell others, and what it told is returned.
        with self._guard:
            lanes, self._lanes = self._lanes, {}
        left = {key: messages for key, lane in lanes.items() if (messages := lane._close())}
        self._ready.clear()
        return left

    # -- the run queue, as lanes use it -------------------------------------------------------------------------------

    def _submit(self, lane: Lane) -> None:
        self._ready.append(lane)
        if self.on_ready is not None and self.on_ready(lane._behaviour):
            return
        self.hand_over()

    def hand_over(self) -> None:
        """Have the workers look at the run queue."""
        if self._asleep and not self._waking:
            self._wake()

    def step(self) -> None:
        """Do what a worker would, once, on this thread: run one ready lane, then `on_idle`. What else is ready is the
        workers'."""
        try:
            lane = self._ready.popleft()
        except IndexError:
            return
        self._run(lane)
        self._idle()
        if self._ready:
            self.hand_over()

    def _wake(self) -> None:
        """Wake one sleeper, unless one is on its way: that one will see what was appended before, and wake the next."""
        with self._guard:
            if self._waking or not self._asleep:
                return
            worker = self._asleep.pop()
            self._waking = True
        worker.parker.release()

    def _forget(self, lane: Lane) -> list[object]:
        with self._guard:
            if self._lanes.get(lane.key) is lane:
                del self._lanes[lane.key]
        return lane._close()

    # -- the life of a worker -----------------------------------------------------------------------------------------

    def _work(self, worker: _Worker) -> None:
        ready, runs = self._ready, 0
        while not self._closing:
            try:
                lane = worker.lane = ready.popleft()
            except IndexError:
                runs = 0
                if not self._idle():
                    self._sleep(worker)
                continue
            # More than this worker can take: bring in the next one, so that a slow handler delays no other lane.
            if ready and self._asleep and not self._waking:
                self._wake()
            self._run(lane)
            del lane
            worker.lane = None  # a sleeping worker keeps no removed lane alive
            runs += 1
            if runs == IDLE_EVERY:
                runs = 0
                self._idle()
        while self._idle():
            pass

    def _run(self, lane: Lane) -> None:
        try:
            lane._run()
        except _Pause:
            pass
        except BaseException as error:  # pykka's loop itself gave way
            self._crashed(lane.key, error)
            lane._recover()

    def _idle(self) -> bool:
        if self._on_idle is None:
            return False
        try:
            return self._on_idle() is True
        except BaseException as error:
            self._crashed("on_idle", error)
            return False

    def _sleep(self, worker: _Worker) -> None:
        with self._guard:
            if self._closing:
                return
            self._asleep.append(worker)
            # No lost wake-up: _submit appends and then looks for sleepers; here we enter as a sleeper and then look at
            # the run queue. One of the two sees the other.
            if self._ready:
                self._asleep.pop()
                return
        worker.parker.acquire()
        with self._guard:
            self._waking = False  # before looking at the run queue, never after

    def _crashed(self, key: str, error: BaseException) -> None:
        try:
            if self._on_crash is not None:
                self._on_crash(key, error)
                return
        except BaseException:
            _logger.exception("on_crash raised for %s", key)
        _logger.error("crash in %s", key, exc_info=error)


class _Worker:
    """One thread of a pool, the lock it sleeps on, and the lane it is in."""

    __slots__ = ("lane", "parker", "thread")

    def __init__(self, pool: Pool, name: str) -> None:
        self.lane: Lane | None = None
        self.parker = threading.Lock()
        self.parker.acquire()
        # A daemon: a program that forgets close() still ends. What was not committed is then gone, as after a kill.
        self.thread = threading.Thread(target=pool._work, args=(self,), name=name, daemon=True)


class _Pause(BaseException):
    """Raised by a lane's inbox to leave pykka's loop and give the worker back. No handler is on the stack then."""


class _Escaped(Exception):
    """Carries what is no Exception out of a handler, past pykka."""


@final
class Lane(pykka.Actor):
    """A handle to one mailbox and its reader. Made by `Pool.spawn`; `tell` and `unpark` are for any thread.

    One object is pykka's actor, its inbox and its stop flag: a lane costs 0.3 KB, and as nothing in it points back at
    itself, a removed one is freed at once, without the garbage collector.
    """

    __slots__ = ("_behaviour", "_lock", "_park", "_pool", "_queue", "_quota", "_state", "_unparked", "key")

    def __init__(self, pool: Pool, key: str, behaviour: Behaviour) -> None:
        # Not pykka's __init__: its uuid, threading.Event and ActorRef are 1.5 KB that an idle lane has no use for.
        self.key = key
        self._pool = pool
        self._behaviour = behaviour
        self._lock = next(_locks)  # over _state, _queue and _unparked
        self._queue: deque[Envelope[Any]] | None = None  # only while it holds something: an empty deque is 0.6 KB
        self._state = _IDLE
        self._quota = 0
        self._park = False  # the message just handled asked to park; only the running worker touches it
        self._unparked = False  # unpark() came while that message was still being handled

    def tell(self, message: object) -> None:
        """Queue a message, first in first out for each sender. Never waits. Raises `Closed` after remove or close."""
        self.put(Envelope(message))

    def unpark(self) -> None:
        """Say that the message in hand is finished, so the next may be handed over.

        May come while `receive` still runs: its True then parks nothing. A lane that handles nothing and is not parked
        ignores it, so twice is as good as once; but one that comes as late as during the next message counts for that.
        """
        with self._lock:
            if self._state == _RUNNING:
                self._unparked = True
                return
            if self._state != _PARKED:
                return
            if not self._queue:
                self._queue = None
                self._state = _IDLE
                return
            self._state = _READY
        self._pool._submit(self)

    @property
    def depth(self) -> int:
        """Messages queued, without the one being handled."""
        queue = self._queue
        return 0 if queue is None else len(queue)

    def __repr__(self) -> str:
        return f"<Lane {self.key!r}>"

    # -- called by the pool -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Run pykka's own loop until the lane is empty, parked, closed, or has had its turn."""
        self._quota = BATCH_MAX
        # The loop calls inbox.get() outside its try block, so the _Pause of get() comes straight through to the worker.
        self._actor_loop_running()

    def _recover(self) -> None:
        """Something else came out of pykka's loop (an asker's future was already set, say): go on after it."""
        with self._lock:
            if self._state != _RUNNING:
                return
            self._park = False
            self._state = _READY
        self._pool._submit(self)

    def _rest(self) -> bool:
        """Close it, but only if it is idle; whoever tells it something meanwhile hears `Closed`."""
        with self._lock:
            if self._state != _IDLE:
                return False
            self._state = _CLOSED
            self._queue = None
        return True

    def _close(self) -> list[object]:
        with self._lock:
            self._state = _CLOSED
            queue, self._queue = self._queue, None
        left: list[object] = []
        for envelope in queue or ():
            if isinstance(envelope.message, _ActorStop):
                if envelope.reply_to is not None:
                    envelope.reply_to.set(None)
            elif envelope.reply_to is None:
                left.append(envelope.message)
            else:  # asked through an ActorRef: pykka's own answer
                dead = pykka.ActorDeadError(f"{self} stopped before handling the message")
                envelope.reply_to.set_exception((pykka.ActorDeadError, dead, None))
        return left

    # -- called by pykka: the inbox and the stop flag -----------------------------------------------------------------

    def put(self, envelope: Envelope[Any], /) -> None:
        with self._lock:
            if self._state == _CLOSED:
                raise Closed(f"Lane {self.key!r} is closed and did not take the message.")
            if self._queue is None:
                self._queue = deque()
            self._queue.append(envelope)
            if self._state != _IDLE:
                return
            self._state = _READY
        self._pool._submit(self)

    def get(self) -> Envelope[Any]:
        """The next message, or `_Pause` to give the worker back. Only the running worker calls it."""
        with self._lock:
            spent = False
            if self._state == _CLOSED:
                pass
            elif self._park and not self._unparked:
                self._state = _PARKED
            elif not self._queue:
                self._queue = None
                self._state = _IDLE
            elif self._quota:
                self._quota -= 1
                self._park = self._unparked = False
                self._state = _RUNNING
                return self._queue.popleft()
            else:
                self._state = _READY
                spent = True
            self._park = False
        # From here on the lane may be in other hands: its state must not be read again.
        if spent:
            self._pool._submit(self)
        raise _Pause

    def empty(self) -> bool:
        return not self._queue

    def is_set(self) -> bool:
        return self._state == _CLOSED

    # -- called by pykka: the actor -----------------------------------------------------------------------------------

    @property
    def actor_inbox(self) -> ActorInbox:  # type: ignore[override]
        return self

    @property
    def actor_stopped(self) -> Any:  # type: ignore[override]
        return self

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        return f"urn:lane:{self.key}"

    @property
    def actor_ref(self) -> pykka.ActorRef[Lane]:
        """pykka's own handle, made anew each time: tell, ask and stop work on it. A lane must never ask another."""
        return pykka.ActorRef(self)

    @staticmethod
    def _create_actor_inbox() -> NoReturn:
        raise TypeError("a lane is its own inbox")

    @staticmethod
    def _create_future() -> pykka.Future[Any]:
        return pykka.ThreadingFuture()

    def _start_actor_loop(self) -> NoReturn:
        raise TypeError("a lane is made by Pool.spawn and runs on its first message")

    def on_receive(self, message: Any) -> None:
        try:
            self._park = self._behaviour.receive(message)
        except Exception:
            raise  # pykka gives it to whoever asked, or else to _handle_failure
        except BaseException as error:
            # pykka would stop every actor of the process for it.
            raise _Escaped(f"{type(error).__name__} in lane {self.key!r}") from error

    def _handle_failure(self, exception_type: Any, exception_value: BaseException | None, traceback: Any) -> None:
        """Where pykka stops the actor. A lane lives on: one bad message takes none behind it along."""
        error = exception_value.__cause__ if isinstance(exception_value, _Escaped) else exception_value
        assert error is not None
        self._pool._crashed(self.key, error)

    def _stop(self) -> None:
        """`stop` was called on the actor or its ref: as `Pool.remove`, but nobody is there to take what is left."""
        left = self._pool._forget(self)
        if left:
            self._pool._crashed(self.key, Closed(f"Lane {self.key!r} was stopped with {len(left)} messages queued."))
