"""Clocks that jump: order, deadlines and replays do not depend on what the clock says, only what is shown does."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from reenact import Runtime, tool
from reenact.actors.clock import ManualClock
from reenact.actors.dispatch import Dispatch
from reenact.actors.verify import verify as verify_log
from reenact.adapters.models import Models, Retries, RetryPolicy
from reenact.adapters.models.scripted import Scripted
from reenact.events.log import MemoryLog, MemoryStore
from tests.conftest import LONG, Figure
from tests.faults.logs import TOOLS, three_calls
from tests.runtimes import Gate, Heard, runtime

YEARS_10_S = 10 * 365 * 86_400
SEEDS = 100 if LONG else 5


ASKS = [{"tool_calls": [{"name": "careful", "input": {}}]}, {"text": "Done."}]


@tool(approval="ask")
def careful() -> str:
    """What nobody allows."""
    return "done"


class Jumping(ManualClock):
    """Jumps before each reading. jump: what to add to where it began, in seconds, for the so-many-th reading."""

    def __init__(self, jump: Callable[[int], float], *, prefix: int = 0) -> None:
        super().__init__(prefix=prefix)
        self.readings = 0
        self._jump = jump

    def now(self) -> int:
        self.readings += 1
        return super().now() + int(self._jump(self.readings) * 1_000_000)


def anywhere(seed: int) -> Callable[[int], float]:
    rng = random.Random(seed)
    return lambda reading: rng.choice((-YEARS_10_S, YEARS_10_S, -3600, 0.001, 86_400, -0.001, 0))


JUMPS: dict[str, list[Callable[[int], float]]] = {
    "frozen": [lambda reading: 0],
    "backwards": [lambda reading: -60.0 * reading],
    "ten years back, once": [lambda reading: 0 if reading < 40 else -YEARS_10_S],
    "ten years on, once": [lambda reading: 0 if reading < 40 else YEARS_10_S],
    "anywhere": [anywhere(seed) for seed in range(SEEDS)],
}


@pytest.mark.parametrize("jumps", JUMPS)
def test_order_and_replay_do_not_depend_on_the_clock(jumps: str, figure: Figure) -> None:
    readings = sum(map(lives, JUMPS[jumps]))
    figure(f"{jumps}: {readings} readings of the clock in {len(JUMPS[jumps])} logs, order and replay as ever")


def lives(jump: Callable[[int], float]) -> int:
    """Two owners one after the other; how often they read the clock."""
    store = MemoryStore()

    async def live(turns: int, prefix: int) -> int:
        clock = Jumping(jump, prefix=prefix)
        models = Models({"scripted": Scripted(three_calls)})
        async with runtime(models=models, store=store, tools=TOOLS, clock=clock) as opened:
            bot = await opened.image("support")
            for turn in range(turns):
                assert (await bot.send(f"go {turn}")).text == "All done."
            said = [message.role for message in await bot.messages()]
            assert [role for role in said if role == "user"] == ["user"] * (3 + turns if prefix else 3)
            events = await bot.events()
            assert [event.version for event in events] == list(range(1, len(events) + 1))
            assert (await opened.replay(bot.session_id)).identical
        return clock.readings

    readings = asyncio.run(asyncio.wait_for(live(3, 0), 30))
    readings += asyncio.run(asyncio.wait_for(live(2, 10**6), 30))  # the next owner
    report = verify_log(MemoryLog(store), keys=store.keys.values())
    assert report.sound, report.violations
    return readings


def deadline(jump_s: float) -> float:
    """How long a job with 0.3 s to live lives, in true seconds, when the clock jumps right after it was accepted."""

    async def main() -> float:
        accepted = False
        clock = Jumping(lambda reading: jump_s if accepted else 0)

        def now_it_jumps(event: object) -> None:
            nonlocal accepted
            accepted = True

        async with runtime(models=Models({"scripted": Gate()}), clock=clock) as opened:
            bot = await opened.image("slow")
            opened.on("job_queued", now_it_jumps)  # told before what it owes begins
            began = time.perf_counter()
            assert (await bot.send("hurry", timeout_s=0.3)).status == "timed_out"
            return time.perf_counter() - began

    return asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("jump_s", [-YEARS_10_S, YEARS_10_S, 0])
def test_a_deadline_is_kept_whatever_the_clock_does(jump_s: float) -> None:
    assert 0.25 < deadline(jump_s) < 10


@pytest.mark.parametrize("limits", [{"budget": {"max_runtime_seconds": 1}}, {"timeout_s": 1}], ids=str)
def test_a_run_whose_clock_is_set_back_over_a_restart_has_no_more_time_than_it_was_given(limits: Any) -> None:
    store, gate = MemoryStore(), Gate()

    async def main() -> None:
        now = Jumping(lambda reading: 0)
        async with runtime(store=store, models=Models({"scripted": gate}), clock=now) as opened:
            heard = Heard(opened)
            bot = await opened.image("bot")
            await opened.send(bot.id, "hi", **limits)
            await heard.until("text_delta")
        earlier = Jumping(lambda reading: -3600, prefix=10**6)
        async with runtime(store=store, models=Models({"scripted": gate}), clock=earlier) as opened:
            await asyncio.wait_for(Heard(opened).until("job_timed_out"), 8)

    asyncio.run(asyncio.wait_for(main(), 20))


def question(jump_s: float, *, within_s: float = 20) -> float:
    """How long a question with 0.3 s to live waits, in true seconds, when the clock jumps right after it was put."""

    async def main() -> float:
        asked = False
        clock = Jumping(lambda reading: jump_s if asked else 0)

        def now_it_jumps(event: object) -> None:
            nonlocal asked
            asked = True

        async with runtime(ASKS, repeat=False, tools=[careful], clock=clock) as opened:
            bot = await opened.image("careful", approval_timeout_s=0.3)
            opened.on("action_required", now_it_jumps)
            heard = Heard(opened)
            began = time.perf_counter()
            await bot.send("go")
            await heard.until("job_succeeded")
            assert "action_expired" in heard.types and "tool_started" not in heard.types
            return time.perf_counter() - began

    return asyncio.run(asyncio.wait_for(main(), within_s))


@pytest.mark.parametrize("jump_s", [-YEARS_10_S, YEARS_10_S, 0])
def test_a_question_expires_in_its_time_whatever_the_clock_does(jump_s: float) -> None:
    assert 0.25 < question(jump_s) < 10


def test_a_build_that_reads_the_clock_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    owed = Dispatch.owed
    monkeypatch.setattr(Dispatch, "owed", lambda self, stream, effects, events: owed(self, stream, effects, ()))
    assert deadline(YEARS_10_S) < 0.25
    with pytest.raises(TimeoutError):  # it is asked to expire at once, which is refused
        question(YEARS_10_S, within_s=2)


def retried(jump_s: float, *, within_s: float) -> str:
    """What a model says at its second attempt, when the clock jumps after the first."""

    async def main() -> str:
        failed = False
        clock = Jumping(lambda reading: jump_s if failed else 0)
        policy = RetryPolicy(wait_initial_s=0.01, wait_max_s=0.01, jitter_s=0, retry_after_cap_s=0.1)
        steps: list[Any] = [{"text": "at last", "error": {"code": "overloaded", "times": 1}}]
        models = Models({"scripted": Scripted(steps)})
        agent = {"model": "scripted:any"}
        opened = Runtime(MemoryLog(), models=models, retries=Retries(policy), clock=clock, default_agent=agent)
        async with opened:
            bot = await opened.image("support")

            def jump(event: Any) -> None:
                nonlocal failed
                failed = True

            opened.on("model_failed", jump)
            return (await bot.send("go")).text

    return asyncio.run(asyncio.wait_for(main(), within_s))


@pytest.mark.parametrize("jump_s", [-YEARS_10_S, YEARS_10_S])
def test_a_wait_before_a_retry_has_an_end_whatever_the_clock_does(jump_s: float) -> None:
    assert retried(jump_s, within_s=20) == "at last"


def test_a_build_without_a_longest_wait_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Retries, "longest_s", 1e9)
    with pytest.raises(TimeoutError):
        retried(-YEARS_10_S, within_s=0.5)
