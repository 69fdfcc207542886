"""What cools down is known to the next process, in real ones that are killed."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reenact import CooldownTimes, Failover, Runtime
from reenact.adapters.models import Models
from reenact.cli.verify import verify
from reenact.events.model import Credentials
from tests.providers import B, C, Provider, identical

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


async def main(code: str, ends: str, billing_s: str, *fallbacks: str) -> None:
    """One message to a session of its own; then the end that was asked for. Prints who was asked."""
    provider = Provider(a=code) if code != "well" else Provider()
    of = Runtime(
        "sqlite:///agents.db",
        models=Models({"scripted": provider, "other": provider}),
        default_agent={"model": "scripted:a", "fallbacks": list(fallbacks)},
        credentials=lambda name, spec: [Credentials(api_key=f"the key of {name}")],
        failover=Failover(cooldowns=CooldownTimes(billing_s=float(billing_s), probe_margin_s=0, probe_every_s=0.01)),
    )
    async with of:
        bot = await of.image("x")
        result = await bot.send("go")
        await identical(of, bot.session_id)
        print(" ".join(provider.models), "->", result.text or (result.failure and result.failure.code), flush=True)
        if ends == "killed":
            os.kill(os.getpid(), signal.SIGKILL)


def play(folder: Path, *words: str) -> str:
    program = [sys.executable, "-m", "tests.faults.test_cooldowns_over_kills", *words]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent.parent)}
    done = subprocess.run(program, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == (-signal.SIGKILL if words[1] == "killed" else 0), done.stderr
    return done.stdout.strip()


def test_a_model_that_an_earlier_process_found_unpaid_is_not_asked_by_the_next_ones(tmp_path: Path) -> None:
    assert play(tmp_path, "billing", "killed", "3600", C) == "a c -> I am c."
    for ends in ("killed", "closed", "killed"):
        assert play(tmp_path, "well", ends, "3600", C) == "c -> I am c."
    assert verify(f"sqlite:///{tmp_path / 'agents.db'}").sound


def test_a_window_that_is_over_is_nothing_to_the_next_process(tmp_path: Path) -> None:
    assert play(tmp_path, "billing", "killed", "0.001", C) == "a c -> I am c."
    assert play(tmp_path, "well", "closed", "3600", C) == "a -> I am a."
    assert play(tmp_path, "well", "closed", "3600", C) == "a -> I am a."


def test_a_model_that_was_busy_for_an_earlier_process_is_left_alone_by_the_next_one(tmp_path: Path) -> None:
    assert play(tmp_path, "overloaded", "killed", "3600", B) == "a a a b -> I am b."
    assert play(tmp_path, "well", "closed", "3600", B) == "b -> I am b."


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
