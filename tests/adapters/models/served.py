"""A small honest HTTP server on this machine: it plays what a test hands it and keeps what it was asked.

Answers are bytes on a real connection, so that what breaks, breaks as it does outside.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

FIXTURES = Path(__file__).parent / "fixtures"
SSE = {"content-type": "text/event-stream; charset=utf-8"}
JSON = {"content-type": "application/json"}


class Asked(msgspec.Struct):
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: Any


class Answer(msgspec.Struct, kw_only=True):
    """What to answer. pieces: written one by one. then: how it ends, `end`, `cut` (the connection drops inside the
    body) or `silence` (nothing more comes until the client leaves)."""

    pieces: Sequence[bytes]
    status: int = 200
    headers: dict[str, str] = msgspec.field(default_factory=lambda: SSE)
    then: str = "end"


class Served:
    """url: where it is. asked: every request so far. left: how many clients went away while an answer was due."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.connections = 0
        self.left = asyncio.Event()
        self._answers = list(answers)

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin1").strip().split("\r\n")
                headers = {
                    name.strip().lower(): value.strip() for name, _, value in (li.partition(":") for li in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.asked.append(Asked(first.split()[1], headers, json.loads(body) if body else None))
                if not await self._play(self._answers.pop(0), reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # The client has left, or the loop is closing: either way nobody listens.
        finally:
            writer.close()

    async def _play(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        headers = {**answer.headers, "transfer-encoding": "chunked"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {answer.status} Status\r\n{lines}\r\n".encode("latin1"))
        for piece in answer.pieces:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            # The next piece arrives as one of its own.
            await asyncio.sleep(0)
        if answer.then == "cut":
            return False
        if answer.then == "silence":
            await reader.read(1)
            self.left.set()
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


@asynccontextmanager
async def serve(*answers: Answer) -> AsyncIterator[Served]:
    """A server that gives these answers, one a request, in order."""
    served = Served(answers)
    server = await asyncio.start_server(served.client, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    served.url = f"http://{host}:{port}"
    try:
        yield served
    finally:
        server.close()


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def streamed(body: bytes, *, size: int | None = None, **rest: Any) -> Answer:
    """A stream in pieces of `size` bytes, or an event a piece."""
    if size is None:
        pieces = [event + b"\n\n" for event in body.split(b"\n\n") if event.strip()]
    else:
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return Answer(pieces=pieces, **rest)


def whole(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """A JSON body in one piece."""
    return Answer(pieces=[json.dumps(value).encode()], status=status, headers={**JSON, **(headers or {})})
