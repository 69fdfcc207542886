"""The floor: the least that the same durable turn can cost here, in msgspec and sqlite3 alone.

No tools, no actors, no watchers, no rendering: eight events a turn in four commits, each synced, and a state folded
from them. What keeps the same promises of durability cannot be faster: our figures are given as a share of it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from .harness import ANSWER, ARGUMENTS, OUTPUT, USER, Digest, main, peak_mb, scratch, size_of, sync_ms, turns


class Fact(msgspec.Struct, frozen=True):
    """An event with its envelope, as it is encoded."""

    id: str
    stream: str
    version: int
    type: str
    at: float
    by: str
    data: dict[str, Any]
    cause: str | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Fact).decode

_CALL = {"id": "c1", "name": "weather", "args": ARGUMENTS}
TURN: tuple[tuple[tuple[str, dict[str, Any]], ...], ...] = (
    (("said", {"role": "user", "content": USER}), ("model_asked", {"model": "bench"})),
    (("answered", {"role": "assistant", "calls": [_CALL]}), ("tool_asked", _CALL)),
    (("tool_done", {"role": "tool", "id": "c1", "content": OUTPUT}), ("model_asked", {"model": "bench"})),
    (("answered", {"role": "assistant", "content": ANSWER}), ("turn_done", {"in": 40, "out": 20})),
)
"""One turn: its commits, and the events of each."""

_SAID = frozenset({"said", "answered", "tool_done"})
_INSERT = "INSERT INTO log (stream, version, type, data) VALUES (?, ?, ?, ?)"


class Session:
    """What a session is folded to: its version, the last event's id, the messages."""

    def __init__(self, name: str) -> None:
        self.name, self.version, self.last = name, 0, None
        self.messages: list[dict[str, Any]] = []

    def take(self, fact: Fact) -> None:
        self.version, self.last = fact.version, fact.id
        if fact.type in _SAID:
            self.messages.append(fact.data)

    def rows(self, step: tuple[tuple[str, dict[str, Any]], ...]) -> list[tuple[Any, ...]]:
        out = []
        for kind, data in step:
            version = self.version + 1
            fact = Fact(f"{self.name}-{version}", self.name, version, kind, time.time(), "bench", data, self.last)
            self.take(fact)
            out.append((self.name, version, kind, _encode(fact)))
        return out


def _open(folder: Path) -> sqlite3.Connection:
    db = sqlite3.connect(folder / "floor.db", isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(
        "CREATE TABLE IF NOT EXISTS log (position INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL,"
        " version INTEGER NOT NULL, type TEXT NOT NULL, data BLOB NOT NULL, UNIQUE (stream, version))"
    )
    return db


def _commit(db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    db.execute("BEGIN IMMEDIATE")
    db.executemany(_INSERT, rows)
    db.execute("COMMIT")


def _read(db: sqlite3.Connection, name: str) -> Session:
    session = Session(name)
    for (data,) in db.execute("SELECT data FROM log WHERE stream = ? ORDER BY version", (name,)):
        session.take(_decode(data))
    return session


def durable(*, turns: int) -> dict[str, Any]:
    """One session; the four commits of a turn one after the other."""
    took = []
    with scratch() as folder:
        synced_ms = sync_ms(folder)
        db, session = _open(folder), Session("s")
        for _ in range(turns):
            began = time.perf_counter()
            for step in TURN:
                _commit(db, session.rows(step))
            took.append(time.perf_counter() - began)
        digest = _digest(db, [session])
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        disk = size_of(folder)
    return {**_turns(took), "bytes_turn": disk / turns, "disk": disk, "sync_ms": synced_ms, "digest": digest}


_turns = turns


def handed_over(*, turns: int) -> dict[str, Any]:
    """As `durable`, but an event loop hands each commit to a thread and is told when it is done: what it costs that a
    loop with other sessions on it does not stand still for a disk. Nothing else is added."""
    return asyncio.run(_handed_over(turns))


async def _handed_over(turns: int) -> dict[str, Any]:
    took = []
    with scratch() as folder:
        synced_ms = sync_ms(folder)
        db, session, loop = _open(folder), Session("s"), asyncio.get_running_loop()
        bell, queued = threading.Lock(), list[tuple[list[tuple[Any, ...]], asyncio.Future[None]]]()
        bell.acquire()

        def write() -> None:
            while True:
                bell.acquire()
                if not queued:
                    return
                rows, waiter = queued.pop()
                _commit(db, rows)
                loop.call_soon_threadsafe(waiter.set_result, None)

        writer = threading.Thread(target=write)
        writer.start()
        for _ in range(turns):
            began = time.perf_counter()
            for step in TURN:
                waiter: asyncio.Future[None] = loop.create_future()
                queued.append((session.rows(step), waiter))
                bell.release()
                await waiter
            took.append(time.perf_counter() - began)
        bell.release()
        writer.join()
        digest = _digest(db, [session])
        db.close()
    return {**_turns(took), "sync_ms": synced_ms, "digest": digest}


def many(*, sessions: int, turns: int = 3) -> dict[str, Any]:
    """Many sessions, one thread that commits whatever is queued; each step waits for its commit."""
    return asyncio.run(_many(sessions, turns))


async def _many(sessions: int, turns: int) -> dict[str, Any]:
    with scratch() as folder:
        synced_ms = sync_ms(folder)
        db, loop = _open(folder), asyncio.get_running_loop()
        queued: list[tuple[list[tuple[Any, ...]], asyncio.Future[None]]] = []
        bell, over = threading.Condition(), False

        def resolve(waiters: list[asyncio.Future[None]]) -> None:
            for waiter in waiters:
                waiter.set_result(None)

        def write() -> None:
            nonlocal queued
            while True:
                with bell:
                    while not queued and not over:
                        bell.wait()
                    group, queued = queued, []
                if not group:
                    return
                _commit(db, [row for rows, _ in group for row in rows])
                loop.call_soon_threadsafe(resolve, [waiter for _, waiter in group])

        async def talk(session: Session) -> None:
            for _ in range(turns):
                for step in TURN:
                    waiter: asyncio.Future[None] = loop.create_future()
                    rows = session.rows(step)
                    with bell:
                        queued.append((rows, waiter))
                        bell.notify()
                    await waiter

        writer = threading.Thread(target=write)
        writer.start()
        all_of_them = [Session(f"s{number}") for number in range(sessions)]
        began = time.perf_counter()
        await asyncio.gather(*map(talk, all_of_them))
        took = time.perf_counter() - began
        with bell:
            over = True
            bell.notify()
        writer.join()
        digest = _digest(db, all_of_them[:: max(1, sessions // 20)])
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        disk = size_of(folder)
    count = sessions * turns
    return {
        "turns": count,
        "turns_s": count / took,
        "bytes_turn": disk / count,
        "peak_mb": peak_mb(),
        "sync_ms": synced_ms,
        "digest": digest,
    }


def _digest(db: sqlite3.Connection, sessions: list[Session]) -> str:
    digest = Digest()
    for session in sessions:
        again = _read(db, session.name)
        assert (again.version, again.messages) == (session.version, session.messages)
        digest.add(again.version, again.messages)
    return str(digest)


CASES = {"durable": durable, "handed_over": handed_over, "many": many}

if __name__ == "__main__":
    main(CASES)
