"""The owner's socket: what is asked is answered, what is garbage is said to be, and nobody else gets in."""

import asyncio
import json
import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.adapters.hosts import local
from reenact.adapters.hosts.local import Lines, LocalServer, call, serve, socket_path
from reenact.events.errors import (
    BadInput,
    Busy,
    Conflict,
    NoOwner,
    NotFound,
    ReenactError,
    RequestTimeout,
    StoreError,
    UnknownOutcome,
)

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs local sockets")


async def answer(type: str, data: Any, caller: Any) -> Any:
    match type:
        case "echo":
            return data
        case "conflict":
            raise Conflict("It moved on.")
        case "bug":
            raise ZeroDivisionError("a secret of the handler")
        case "unsayable":
            return object()
        case "long":
            return "x" * (local.MESSAGE_BYTES_MAX + 1)
        case "wait":
            await asyncio.Event().wait()
    raise NotFound(f"no such thing: {type}")


@pytest.fixture
def path() -> Iterator[str]:
    # Not tmp_path: its name can be too long for a socket.
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield os.path.join(folder, "log.db.sock")


def serving(path: str, action: Callable[[], Coroutine[Any, Any, Any]], handler: local.Handler = answer) -> Any:
    async def run() -> Any:
        server = await serve(path, handler)
        try:
            return await asyncio.wait_for(action(), 30)
        finally:
            await server.close()

    return asyncio.run(run())


def test_what_is_asked_is_answered(path: str) -> None:
    values: list[Any] = [None, 1, "ä\0☃", [1, {"a": [None, True, 1.5]}], {}, "x" * 1_000_000]

    async def ask() -> list[Any]:
        return [await call(path, "echo", value) for value in values]

    assert serving(path, ask) == values


def test_many_ask_at_once(path: str) -> None:
    async def ask() -> Any:
        return await asyncio.gather(*(call(path, "echo", n) for n in range(50)))

    assert serving(path, ask) == list(range(50))


def test_an_error_of_the_owner_is_raised_at_the_caller(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        with pytest.raises(Conflict, match=r"It moved on\."):
            await call(path, "conflict")
        with pytest.raises(NotFound, match="no such thing: nothing"):
            await call(path, "nothing")
        with caplog.at_level(logging.CRITICAL), pytest.raises(ReenactError, match="ZeroDivisionError") as raised:
            await call(path, "bug")
        assert "secret" not in str(raised.value)
        with pytest.raises(ReenactError, match="no JSON"):
            await call(path, "unsayable")
        with pytest.raises(BadInput, match="too long"):
            await call(path, "long")
        assert await call(path, "echo", "still here") == "still here"

    serving(path, ask)


def test_where_nobody_listens_there_is_no_owner(path: str) -> None:
    with pytest.raises(NoOwner, match="Nothing was asked"):
        asyncio.run(call(path, "echo"))
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    with pytest.raises(NoOwner, match="refused"):
        asyncio.run(call(path, "echo"))
    Path(path).unlink()
    Path(path).write_text("no socket")
    with pytest.raises(NoOwner):
        asyncio.run(call(path, "echo"))


def test_the_socket_that_a_killed_owner_left_is_taken_over(path: str) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    assert serving(path, lambda: call(path, "echo", 1)) == 1
    assert not os.path.exists(path), "it is removed at the end"


def test_a_late_answer_is_a_timeout_and_a_lost_one_unknown(path: str) -> None:
    async def late() -> None:
        with pytest.raises(RequestTimeout, match="may still do"):
            await call(path, "wait", timeout_s=0.05)

    serving(path, late)

    async def lost() -> None:
        asked = asyncio.Event()

        async def slow(type: str, data: Any, caller: Any) -> Any:
            asked.set()
            await asyncio.Event().wait()

        server = await serve(path, slow)
        asking = asyncio.create_task(call(path, "echo"))
        await asked.wait()
        await server.close()
        with pytest.raises(UnknownOutcome, match="may or may not"):
            await asking

    asyncio.run(lost())


def test_data_that_is_no_json_is_refused_before_anything_is_asked(path: str) -> None:
    for data in (object(), "\ud800", {1: {2, 3}, "a": object()}):
        with pytest.raises(BadInput):
            asyncio.run(call(path, "echo", data))
    with pytest.raises(BadInput, match="above"):
        asyncio.run(call(path, "echo", "x" * (local.MESSAGE_BYTES_MAX + 1)))


GARBAGE = [
    b"",
    b"hello",
    b"{",
    b"[]",
    b"null",
    b'{"id": 1}',
    b'{"type": 7}',
    b'{"id": {}, "type": "echo"}',
    b'{"type": "echo", "data": NaN}',
    b'{"type": "echo", "data": 1e999}',
    b'{"type": "echo", "data": "\\ud800"}',
    b'{"type": "echo", "data": "\xff"}',
    b'{"type": "echo", "data": ' + b"[" * 100_000 + b"}",
    b"\0" * 1000,
    b"\r",
    b"GET / HTTP/1.1\r",
]


def test_garbage_is_answered_with_an_error_and_the_connection_stays(path: str) -> None:
    async def ask() -> None:
        reader, writer = await asyncio.open_unix_connection(path, limit=2**26)
        for garbage in GARBAGE:
            writer.write(garbage + b'\n{"id": "after", "type": "echo", "data": 1}\n')
            said = json.loads(await reader.readline())
            if said.get("id") != "after":
                assert said["error"]["code"] in ("bad_input", "not_found"), said
                said = json.loads(await reader.readline())
            assert said == {"id": "after", "data": 1}, garbage[:50]
        writer.close()

    serving(path, ask)


def test_a_line_that_is_too_long_is_dropped_to_its_end(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MESSAGE_BYTES_MAX", 100_000)

    async def ask() -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        for _ in range(3):
            writer.write(b"x" * 300_000 + b'\n{"id": 2, "type": "echo"}\n')
            await writer.drain()
            assert json.loads(await reader.readline())["error"]["code"] == "bad_input"
            assert json.loads(await reader.readline()) == {"id": 2}
        writer.close()

    serving(path, ask)


@given(st.lists(st.one_of(st.binary(max_size=30), st.just(b"\n"), st.just(b"x" * 120))))
def test_lines_are_the_same_however_the_stream_is_cut(chunks: list[bytes]) -> None:
    limit, local.MESSAGE_BYTES_MAX = local.MESSAGE_BYTES_MAX, 100
    try:
        lines = Lines()
        got = [line for chunk in chunks for line in lines.feed(chunk)]
        whole = b"".join(chunks).split(b"\n")[:-1]
        assert got == [line if len(line) <= 100 else None for line in whole if line]
        assert sum(len(part) for part in lines._parts) <= 100
    finally:
        local.MESSAGE_BYTES_MAX = limit


def test_requests_of_one_connection_are_answered_in_order(path: str) -> None:
    async def ask() -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"".join(b'{"id": %d, "type": "echo", "data": %d}\n' % (n, n) for n in range(500)))
        assert [json.loads(await reader.readline())["data"] for _ in range(500)] == list(range(500))
        writer.close()

    serving(path, ask)


def test_one_connection_more_than_there_may_be_is_told_so(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "CONNECTIONS_MAX", 3)

    async def ask() -> None:
        held = [await asyncio.open_unix_connection(path) for _ in range(3)]
        for reader, writer in held:
            writer.write(b'{"type": "echo", "data": 1}\n')
            await reader.readline()
        with pytest.raises(Busy, match="too many connections"):
            await call(path, "echo", 1)
        held.pop()[1].close()
        for _ in range(1000):  # Until the owner has noticed.
            try:
                assert await call(path, "echo", 1) == 1
                break
            except Busy:
                await asyncio.sleep(0)
        else:
            raise AssertionError("the place was not given back")
        for _, writer in held:
            writer.close()

    serving(path, ask)


def test_a_client_that_goes_away_in_the_middle_harms_nobody(path: str) -> None:
    async def ask() -> Any:
        for said in (b"", b'{"type": "ec', b'{"type": "echo"}\n', b'{"type": "wait"}\n'):
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(said)
            writer.transport.abort()
        return await call(path, "echo", 1)

    assert serving(path, ask) == 1


def test_only_this_user_may_connect(path: str) -> None:
    async def look() -> int:
        return stat.S_IMODE(os.stat(path).st_mode)

    old = os.umask(0)
    try:
        assert serving(path, look) == 0o600
    finally:
        os.umask(old)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names the peer")
def test_the_peer_is_the_user_that_the_kernel_names(path: str) -> None:
    class Peer:
        def __init__(self, uid: int) -> None:
            self.uid = uid

        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option) == (socket.SOL_SOCKET, socket.SO_PEERCRED)
            return struct.pack("3i", 1, self.uid, 1)

    assert local._same_user(Peer(os.geteuid())) and local._same_user(Peer(0))
    assert not local._same_user(Peer(os.geteuid() + 4711))
    if os.geteuid() == 0:  # Rights do not stop root's socket from being opened up by hand; the kernel's word does.
        assert serving(path, lambda: _as_another_user(path)) == b""


async def _as_another_user(path: str) -> bytes:
    os.chmod(os.path.dirname(path), 0o755)
    os.chmod(path, 0o666)
    program = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        's.sendall(b\'{"type": "echo", "data": 1}\\n\'); sys.stdout.buffer.write(s.recv(1000))'
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    return (await child.communicate())[0]


def test_a_name_too_long_for_a_socket_gets_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert socket_path("/var/agents.db") == "/var/agents.db.sock"
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    path = socket_path(str(deep / "agents.db"))
    assert len(path) <= 100 and path == socket_path(str(deep / "agents.db")) != socket_path(str(deep / "other.db"))
    assert serving(path, lambda: call(path, "echo", 1)) == 1
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700


def test_a_folder_that_others_may_enter_is_not_used(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.path.dirname(path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    inside = socket_path("/" + "x" * 200)
    assert inside.startswith(folder)
    os.mkdir(os.path.dirname(inside), 0o777)
    os.chmod(os.path.dirname(inside), 0o777)
    with pytest.raises(StoreError, match="not a folder of this user's alone"):
        serving(inside, lambda: call(inside, "echo", 1))


def test_where_it_cannot_listen_it_says_so(path: str) -> None:
    with pytest.raises(StoreError, match="cannot listen"):
        serving(os.path.join(os.path.dirname(path), "nowhere", "x.sock"), lambda: call(path, "echo"))


def test_closing_twice_is_closing_once(path: str) -> None:
    async def run() -> LocalServer:
        server = await serve(path, answer)
        await server.close()
        await server.close()
        return server

    assert asyncio.run(run()).path == path


def test_a_slow_handler_of_one_connection_does_not_hold_up_another(path: str) -> None:
    async def ask() -> None:
        waiting = asyncio.create_task(call(path, "wait"))
        assert [await call(path, "echo", n) for n in range(5)] == list(range(5))
        waiting.cancel()

    serving(path, ask)
