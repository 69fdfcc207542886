"""How much memory do idle actors take: sessions that have nothing to do, and answer when they are asked?

Awake means: a mailbox and a lane, and the state loaded. Beyond `AWAKE_MAX` a runtime puts the streams asked longest ago
to sleep, and reads them again when they are asked; measured both so, and with every one of them kept awake.
"""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

from reenact.actors.clock import SystemClock
from reenact.actors.system import AWAKE_MAX, ActorSystem, Ask, Peek
from reenact.adapters.logs import open_log
from reenact.events.message import Asked
from reenact.events.session import CreateSession

from .harness import Digest, main, memory_mb, peak_mb, scratch


def idle(*, actors: int, awake: int = AWAKE_MAX) -> dict[str, Any]:
    """Each is created through its mailbox and group commit, in a SQLite log; then none has anything to do.

    awake: at most so many are kept awake.
    """
    clock, digest = SystemClock(), Digest()
    with scratch() as folder:
        log = open_log(f"sqlite:///{folder}/log.db")
        done = threading.Semaphore(0)
        refused: list[Any] = []

        def publish(group: list[Any]) -> None:
            for committed in group:
                if committed.told is not None:
                    committed.told(committed.reply)

        def told(reply: Any) -> None:
            if reply.error is not None:
                refused.append(reply.error)
            done.release()

        system = ActorSystem(log, publish, awake_max=awake)
        gc.collect()
        before_mb, began = memory_mb(), time.perf_counter()
        for number in range(actors):
            session = f"sess_{number:032x}"
            command = CreateSession(
                session_id=session, image_id="img_1", container_id="default", created_at=clock.now() // 1000
            )
            system.put(f"session-{session}", Ask(Asked(id=clock.new_id(), at=clock.now(), command=command), told))
            if number % 1000 == 999:  # so that what is measured is actors, not queued commands
                for _ in range(1000):
                    done.acquire()
        for _ in range(actors % 1000):
            done.acquire()
        took = time.perf_counter() - began
        gc.collect()
        after_mb = memory_mb()
        assert not refused and system.awake == min(actors, awake), (refused[:1], system.awake)
        states: list[Any] = []
        for number in range(0, actors, max(1, actors // 10)):
            system.put(f"session-sess_{number:032x}", Peek(lambda reply: (states.append(reply.states), done.release())))
            done.acquire()
            digest.add(states[-1][0].session_id)
        threads = threading.active_count()
        system.close()
        log.close()
    return {
        "actors": actors,
        "awake": min(actors, awake),
        "memory_mb": after_mb,
        "peak_mb": peak_mb(),
        "bytes_actor": (after_mb - before_mb) * 2**20 / actors,
        "actors_s": actors / took,
        "threads": threads,
        "digest": str(digest),
    }


CASES = {"idle": idle}

if __name__ == "__main__":
    main(CASES)
