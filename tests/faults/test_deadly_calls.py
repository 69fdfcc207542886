"""A call of a model that kills every process which makes it, in real processes: how often it is made, and what then."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reenact import Runtime
from reenact.actors.failover import STARTS_MAX
from reenact.adapters.models import Models
from reenact.events.message import Signal
from reenact.events.model import ModelAnswer, ModelRequest
from tests.providers import A, B, Provider, identical, selections

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


def note(model: str) -> None:
    with Path("asked").open("a") as file:
        file.write(f"{model}\n")


class Deadly(Provider):
    """Its model `a` kills the process that asks it. Every request is a line of the file `asked`."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        note(request.model)
        if request.model == "a":
            os.kill(os.getpid(), signal.SIGKILL)
        async for item in super().stream(request):
            yield item


async def main(*fallbacks: str) -> None:
    agent = {"model": A, "fallbacks": list(fallbacks)}
    async with Runtime("sqlite:///agents.db", models=Models({"scripted": Deadly()}), default_agent=agent) as of:
        bot = await of.image("x")
        result = await bot.send("go", key="once")
        await identical(of, bot.session_id)
        print(result.text, result.failure and result.failure.code, selections(await bot.events()))


@pytest.mark.parametrize("fallbacks", [(B,), ()], ids=["a fallback", "nobody else"])
def test_a_call_that_kills_each_process_that_makes_it_is_made_so_often_and_then_counts_as_failed(
    tmp_path: Path, fallbacks: tuple[str, ...]
) -> None:
    program = [sys.executable, "-m", "tests.faults.test_deadly_calls", *fallbacks]
    root = Path(__file__).resolve().parent.parent.parent
    for number in range(STARTS_MAX + 1):
        done = subprocess.run(
            program,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode == 0) == (number == STARTS_MAX), done.stderr

    asked = (tmp_path / "asked").read_text().split()
    if fallbacks:
        assert asked == ["a"] * STARTS_MAX + ["b"]
        assert done.stdout.split("\n")[0] == f"I am b. None {[(B, 'fallback', 'crashed')]}"
    else:
        assert asked == ["a"] * STARTS_MAX and " crashed []" in done.stdout


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
