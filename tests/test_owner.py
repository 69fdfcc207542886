"""One process owns a log; the others ask it, or become the owner where there is none."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from reenact.blocking import Runtime as Blocking
from reenact.events.errors import BadInput, Owned, ReenactError
from reenact.owner import request
from reenact.runtime import Runtime


def _url(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/agents.db"


def test_a_second_owner_is_refused_by_name_and_changes_nothing(tmp_path) -> None:
    async def work() -> None:
        async with Runtime(_url(tmp_path)) as first:
            await first.create_container("acme")
            before = first.log.position
            with pytest.raises(Owned, match=str(os.getpid())):
                await Runtime(_url(tmp_path)).open()
            assert first.log.position == before
            await first.create_container("other")

    asyncio.run(work())


def test_a_request_goes_to_the_owner_where_there_is_one(tmp_path) -> None:
    async def work() -> None:
        async with Runtime(_url(tmp_path)) as owner:
            heard: list[str] = []
            owner.on_any(lambda event: heard.append(event.type))
            made = await request(_url(tmp_path), "image_create_request", {"containerId": "acme"})
            assert made["record"]["containerId"] == "acme" and "image_created" in heard
            gone = await request(_url(tmp_path), "image_run_request", {"imageId": "img_no"})
            assert gone["error"] == "Image not found: img_no"
            with pytest.raises(BadInput, match="drop_everything"):
                await request(_url(tmp_path), "drop_everything", {})

    asyncio.run(work())


def test_where_nobody_owns_the_log_the_asker_does_for_the_time_of_the_request(tmp_path) -> None:
    async def work() -> None:
        await request(_url(tmp_path), "container_create_request", {"containerId": "acme"})
        listed = await request(_url(tmp_path), "container_list_request")
        assert listed["containerIds"] == ["acme"]

    asyncio.run(work())


def test_another_process_asks_and_the_owner_that_was_killed_is_no_obstacle(tmp_path) -> None:
    """The socket and the lock file that a killed owner leaves behind stop nobody."""
    code = (
        "import sys\n"
        "from reenact.blocking import Runtime\n"
        "with Runtime(sys.argv[1]):\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, _url(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert owner.stdout is not None and owner.stdout.readline() == b"open\n"
        made = asyncio.run(request(_url(tmp_path), "container_create_request", {"containerId": "acme"}))
        assert made["containerId"] == "acme"
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.communicate()
    with Blocking(_url(tmp_path)) as next_owner:
        assert next_owner.request("container_list_request").data.containerIds == ["acme"]
        assert next_owner.asynchronous.log.epoch == 2


def test_the_socket_is_for_this_user_only_and_gone_with_the_owner(tmp_path) -> None:
    async def work() -> None:
        async with Runtime(_url(tmp_path)):
            [socket] = [each for each in tmp_path.iterdir() if each.suffix == ".sock"]
            assert socket.stat().st_mode & 0o077 == 0
        assert not socket.exists()

    asyncio.run(work())


def test_an_error_of_the_owner_is_raised_at_the_asker(tmp_path) -> None:
    async def work() -> None:
        async with Runtime(_url(tmp_path)):
            with pytest.raises(ReenactError):
                await request(_url(tmp_path), "image_create_request", ["no", "object"])  # type: ignore[arg-type]

    asyncio.run(work())
