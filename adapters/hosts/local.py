"""The owner's local socket: how other processes on this machine hand it their commands.

One JSON object a line, `{"id", "type", "data"}` there and `{"id", "data"}` or `{"id", "error": {"code", "message"}}`
back, in order. Only the same user gets in: the socket has his permissions and, on Linux, the kernel names the peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct

from ...events import errors
from ...events.errors import BadInput, Busy, NoOwner, ReenactError, RequestTimeout, StoreError, UnknownOutcome
from ...events.failpoint import failpoint
from ...events.shape import json_decoder
from .caller import Caller, caller_of

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""The longest line, either way."""

CONNECTIONS_MAX = 64
"""One more is told that the owner is busy."""

TIMEOUT_S = 30.0

Handler = Callable[[str, Any, Caller], Awaitable[Any]]
"""Does what is asked: (type, data, who) -> data, plain JSON values. A `ReenactError` it raises is raised at the caller.
"""

PATH_BYTES_MAX = 100
"""Bytes of the name of a socket. Linux has room for 107, macOS for 103."""

_CHUNK_BYTES = 65536

_logger = logging.getLogger(__name__)


class Request(Struct):
    type: str
    id: str | int | None = None
    data: Any = None


class Failure(Struct):
    code: str
    message: str


class Response(Struct, omit_defaults=True):
    id: str | int | None = None
    data: Any = None
    error: Failure | None = None


def socket_path(log_path: str) -> str:
    """Where the owner of a log listens: beside it, or in a folder of this user's own when that name is too long."""
    log_path = os.path.realpath(log_path)
    beside = log_path + ".sock"
    if len(os.fsencode(beside)) <= PATH_BYTES_MAX:
        return beside
    name = hashlib.sha256(os.fsencode(log_path)).hexdigest()[:24]
    for folder in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        path = os.path.join(folder or "", _folder_name(), name)
        if folder and len(os.fsencode(path)) <= PATH_BYTES_MAX:
            return path
    raise StoreError(f"{beside}: too long for the name of a socket. Move the log to a folder with a shorter name.")


def _folder_name() -> str:
    return f"reenact-{os.getuid()}"


class LocalServer:
    """Listening from `serve()` until `close()`."""

    def __init__(self, path: str, handler: Handler) -> None:
        self.path = path
        self._handler = handler
        self._talks: set[asyncio.Task[None]] = set()

    async def _start(self) -> None:
        folder = os.path.dirname(self.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if os.path.basename(folder) == _folder_name():
                _private_folder(folder)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)  # A killed owner left it: this one holds the lock.
            # Permissions before the first connection: nobody can reach a socket that does not listen yet.
            listener.bind(self.path)
            os.chmod(self.path, 0o600)
            self._server = await asyncio.start_unix_server(self._accept, sock=listener, backlog=CONNECTIONS_MAX)
        except OSError as error:
            listener.close()
            raise StoreError(f"{self.path}: {error.strerror or error}. The owner cannot listen there.") from error
        except BaseException:
            listener.close()
            raise

    async def close(self) -> None:
        """Stop listening, cut the connections and remove the socket. Idempotent."""
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        talks = list(self._talks)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        try:
            peer = writer.get_extra_info("socket")
            if not _same_user(peer):
                return
            if len(self._talks) > CONNECTIONS_MAX:
                await _say(writer, Response(error=_failure(Busy("The owner has too many connections. Try again."))))
                return
            await self._talk(reader, writer, caller_of(peer))
        except (OSError, asyncio.CancelledError):
            pass  # They left, or we close.
        finally:
            self._talks.discard(talk)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller) -> None:
        lines = Lines()
        while chunk := await reader.read(_CHUNK_BYTES):
            for line in lines.feed(chunk):
                await _say(writer, await self._answer(line, caller))

    async def _answer(self, line: bytes | None, caller: Caller) -> Response:
        if line is None:
            return Response(error=_failure(BadInput(f"A message is longer than {MESSAGE_BYTES_MAX} bytes.")))
        try:
            request = json_decoder(Request)(line)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            return Response(error=_failure(BadInput(f"A message is a JSON object with id, type and data: {error}.")))
        try:
            failpoint("socket.request")
            response = Response(request.id, await self._handler(request.type, request.data, caller))
            failpoint("socket.answer")
            return response
        except Exception as error:
            if not isinstance(error, ReenactError):
                _logger.exception("%s failed", request.type)
            return Response(request.id, error=_failure(error))


async def serve(path: str, handler: Handler) -> LocalServer:
    """Listen at `path` and answer with `handler`, one request at a time for each connection.

    What another owner left there is removed, so hold the lock of the log first. Raises `StoreError` when it cannot
    listen there, as where the system has no such sockets.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise StoreError(f"{path}: this system has no local sockets; other processes cannot send commands.")
    server = LocalServer(path, handler)
    await server._start()
    return server


async def call(path: str, type: str, data: Any = None, *, timeout_s: float = TIMEOUT_S) -> Any:
    """Ask the owner that listens at `path`, and return the data of its answer.

    Raises `NoOwner` when nobody answers there (nothing was asked), the error the owner answered with,
    `RequestTimeout`, `UnknownOutcome` when it went away after it was asked, `BadInput` for data that is no JSON.
    """
    line = _request(type, data)
    try:
        async with asyncio.timeout(timeout_s):
            try:
                reader, writer = await asyncio.open_unix_connection(path)
            except OSError as error:
                raise _nobody(path, error) from error
            try:
                writer.write(line)
                await writer.drain()
                lines = Lines()
                while chunk := await reader.read(_CHUNK_BYTES):
                    for answer in lines.feed(chunk):
                        return _data(answer)
            except OSError as error:
                raise _gone(path) from error
            finally:
                writer.close()
    except TimeoutError:
        raise _late(path, timeout_s) from None
    raise _gone(path)


class Lines:
    """Cuts a stream of bytes into lines. A line above `MESSAGE_BYTES_MAX` is dropped to its end and given as None."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._dropping = False

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """The lines that end in this chunk, without their line feeds; empty ones are left out."""
        lines: list[bytes | None] = []
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._add(end)
            if self._dropping:
                lines.append(None)
            elif self._size:
                lines.append(b"".join(self._parts))
            self._parts, self._size, self._dropping = [], 0, False
        self._add(rest)
        return lines

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > MESSAGE_BYTES_MAX:
            self._parts, self._dropping = [], True
        elif part and not self._dropping:
            self._parts.append(part)


def _private_folder(folder: str) -> None:
    """Make the folder of this user's sockets, for this user alone. Raises `StoreError` when it is somebody else's."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StoreError(f"{folder} is not a folder of this user's alone. Remove it, or set XDG_RUNTIME_DIR.")


_encode = msgspec.json.Encoder().encode
_KINDS = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ReenactError)
}


async def _say(writer: asyncio.StreamWriter, response: Response) -> None:
    try:
        line = _encode(response)
    except (TypeError, ValueError) as error:
        line = _encode(Response(response.id, error=_failure(ReenactError(f"The answer is no JSON: {error}."))))
    if len(line) > MESSAGE_BYTES_MAX:
        line = _encode(Response(response.id, error=_failure(BadInput("The answer is too long. Ask for less."))))
    writer.write(line + b"\n")
    await writer.drain()


def _request(type: str, data: Any) -> bytes:
    try:
        line = _encode(Request(type, 1, data))
    except (TypeError, ValueError) as error:
        raise BadInput(f"The data of {type!r} is no JSON: {error}.") from error
    if len(line) > MESSAGE_BYTES_MAX:
        raise BadInput(f"The data of {type!r} is above {MESSAGE_BYTES_MAX} bytes.")
    return line + b"\n"


def _data(line: bytes | None) -> Any:
    if line is None:
        raise UnknownOutcome("The owner's answer is too long to be read.")
    try:
        response = json_decoder(Response)(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UnknownOutcome(f"The owner's answer cannot be read: {error}.") from error
    if response.error is not None:
        raise _KINDS.get(response.error.code, ReenactError)(response.error.message)
    return response.data


def _failure(error: Exception) -> Failure:
    if isinstance(error, ReenactError):
        return Failure(error.code, str(error))
    return Failure(ReenactError.code, f"The owner failed: {type(error).__name__}.")


def _nobody(path: str, error: OSError) -> NoOwner:
    return NoOwner(f"Nobody answers at {path} ({error.strerror or error}). Nothing was asked.")


def _gone(path: str) -> UnknownOutcome:
    return UnknownOutcome(f"The owner at {path} went away after it was asked. What was asked may or may not be done.")


def _late(path: str, timeout_s: float) -> RequestTimeout:
    return RequestTimeout(f"The owner at {path} did not answer within {timeout_s:g} s. It may still do what was asked.")


def _same_user(peer: Any) -> bool:
    if sys.platform != "linux":
        return True  # The permissions of the socket and of its folder stand alone there.
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return uid in (os.geteuid(), 0)
