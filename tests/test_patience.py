"""How long a model is waited for: a silent one, one that goes on for ever, and whoever is asked then.

The waits of `Patience` itself are played on a loop whose time passes only when nothing else is left to do.
Shown to fail: without `with patience` every test of a runtime; with `timeout` among the failures that are asked again
the count of requests; without a second cancel the one that does not heed the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from reenact import Failover
from reenact.adapters.models import Models
from reenact.adapters.models.anthropic import Anthropic
from reenact.adapters.models.openai import OpenAIChat
from reenact.events.agent import ModelFailed
from reenact.events.content import Text
from reenact.events.message import Signal
from reenact.events.model import ModelAnswer, ModelFailure, ModelRequest
from reenact.events.stream import TextBlockStart, TextDelta
from reenact.models.patience import Patience
from reenact.runtime import Runtime
from tests.adapters.models.recordings import ask, plain_request
from tests.adapters.models.served import Answer, serve
from tests.providers import A, B, identical, selections
from tests.runtimes import runtime

# -- one call --


class Quick(asyncio.SelectorEventLoop):
    """Time is that of the next timer, as soon as nothing else is left to do."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        timers: Any = self
        if not timers._ready:
            self.now = max(
                self.now, min((each._when for each in timers._scheduled if not each._cancelled), default=0.0)
            )
        super()._run_once()  # type: ignore[misc]


def timed(work: Callable[[], Awaitable[None]]) -> float:
    """How long it took, in the loop's own seconds."""

    async def main() -> float:
        await work()
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=Quick) as runner:
        return runner.run(main())


def test_silence_ends_it_however_long_the_whole_may_be() -> None:
    async def work() -> None:
        with pytest.raises(TimeoutError, match="said nothing for 30 s"), Patience(600, 30):
            await asyncio.Event().wait()
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0

    assert timed(work) == 30


def test_signs_of_life_are_waited_for_until_the_whole_is_over() -> None:
    async def work() -> None:
        patience = Patience(100, 30)
        with pytest.raises(TimeoutError, match="within 100 s"), patience:
            while True:
                await asyncio.sleep(29)
                patience.heard()

    assert timed(work) == 100


def test_what_comes_in_time_ends_it_without_a_trace() -> None:
    async def work() -> None:
        patience = Patience(100, 30)
        with patience:
            await asyncio.sleep(29)
            patience.heard()
            await asyncio.sleep(29)
        await asyncio.sleep(1_000)
        assert patience.over == ""

    assert timed(work) == 1_058


def test_a_cancel_from_elsewhere_stays_one_also_when_the_time_is_up() -> None:
    async def work() -> None:
        begun = asyncio.Event()

        async def waits() -> None:
            with Patience(100, 30):
                begun.set()
                await asyncio.Event().wait()

        early, late = asyncio.create_task(waits()), asyncio.create_task(waits())
        await begun.wait()
        early.cancel()
        await asyncio.wait([early])
        asyncio.get_running_loop().call_at(30, late.cancel)
        await asyncio.wait([late])
        assert early.cancelled() and late.cancelled()

    timed(work)


def test_one_that_does_not_heed_a_cancel_is_cancelled_again() -> None:
    async def work() -> None:
        with pytest.raises(TimeoutError), Patience(100, 30):
            for _ in range(3):
                try:
                    await asyncio.sleep(1_000)
                except asyncio.CancelledError:
                    continue
            await asyncio.sleep(1_000)
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await asyncio.sleep(0)

    assert timed(work) == 33


# -- a turn --


class Silent:
    """A provider of one's own: model `a` does as `way` says, every other one answers. asked: in order."""

    def __init__(self, way: Callable[[ModelRequest], AsyncIterator[Signal | ModelAnswer]]) -> None:
        self._way = way
        self.asked: list[str] = []
        self.requests: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        self.asked.append(request.model)
        self.requests.append(request)
        if request.model == "a":
            async for item in self._way(request):
                yield item
        else:
            yield ModelAnswer(parts=(Text(text=f"I am {request.model}."),), stop_reason="end_turn")


async def never(request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
    await asyncio.Event().wait()
    yield TextBlockStart()


async def half(request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
    yield TextBlockStart()
    yield TextDelta(text="half")
    await asyncio.Event().wait()


async def endless(request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
    yield TextBlockStart()
    while True:
        yield TextDelta(text=".")
        await asyncio.sleep(0.001)


async def gives_up(request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
    raise TimeoutError
    yield TextBlockStart()


async def stays(request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
    yield ModelAnswer(parts=(Text(text="All said."),), stop_reason="end_turn")
    await asyncio.Event().wait()


def play(work: Callable[[Runtime], Any], provider: Silent, **options: Any) -> Any:
    options.setdefault("default_agent", {"model": A, "fallbacks": [B]})

    async def main() -> Any:
        async with runtime(models=Models({"scripted": provider}), **options) as of:
            return await work(of)

    return asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize(
    ("way", "settings", "said", "partial"),
    [
        (never, {"silence_s": 0.05}, "The model said nothing for 0.05 s.", ""),
        (never, {"timeout_s": 0.05}, "The model had not answered within 0.05 s.", ""),
        (half, {"silence_s": 0.05}, "The model said nothing for 0.05 s.", "half"),
        (endless, {"timeout_s": 0.05}, "The model had not answered within 0.05 s.", "."),
        (gives_up, {}, "No answer in time.", ""),
    ],
)
def test_a_model_that_does_not_answer_in_time_has_failed_and_the_next_is_asked_at_once(
    way: Any, settings: dict[str, Any], said: str, partial: str
) -> None:
    provider = Silent(way)

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        done = await bot.send("hi")
        assert (done.status, done.text) == ("succeeded", "I am b.")
        events = await bot.events()
        [failed] = [event.data for event in events if isinstance(event.data, ModelFailed)]
        assert (failed.failure.code, failed.failure.message) == ("timeout", said)
        assert "".join(part.text for part in failed.partial if isinstance(part, Text)).startswith(partial)
        assert bool(failed.partial) is bool(partial)
        assert selections(events) == [(B, "fallback", "timeout")]
        assert provider.asked == ["a", "b"]
        await identical(of, bot.session_id)

    play(work, provider, failover=Failover(**settings))


def test_one_that_has_said_all_has_answered_whatever_its_connection_does() -> None:
    async def work(of: Runtime) -> None:
        assert (await (await of.image("x")).send("hi")).text == "All said."

    play(work, Silent(stays), failover=Failover(silence_s=0.05))


def test_where_nobody_else_is_the_same_is_asked_again_as_the_retry_policy_says() -> None:
    provider = Silent(never)

    async def work(of: Runtime) -> None:
        done = await (await of.image("x")).send("hi")
        assert done.status == "failed" and done.failure is not None and done.failure.code == "timeout"

    play(work, provider, failover=Failover(silence_s=0.05), default_agent={"model": A})
    assert provider.asked == ["a"] * 3


def test_the_times_are_told_to_the_adapter() -> None:
    provider = Silent(never)

    async def work(of: Runtime) -> None:
        await (await of.image("x")).send("hi")

    play(work, provider, failover=Failover(timeout_s=90, silence_s=45), default_agent={"model": B})
    assert [(each.timeout_s, each.silence_s) for each in provider.requests] == [(90, 45)]


# -- what an adapter hears --


PING = b'event: ping\ndata: {"type": "ping"}\n\n'
COMMENT = b": OPENROUTER PROCESSING\n\n"


@pytest.mark.parametrize(("adapter", "piece"), [(Anthropic, PING), (OpenAIChat, COMMENT)], ids=["ping", "comment"])
def test_a_sign_of_life_that_says_nothing_is_heard(adapter: Any, piece: bytes) -> None:
    async def run() -> int:
        heard = 0

        def hear() -> None:
            nonlocal heard
            heard += 1

        model = adapter()
        async with serve(Answer(pieces=[piece] * 4)) as served:
            request = msgspec.structs.replace(plain_request(served.url), heard=hear)
            outcome = await ask(model, request)
            await model.aclose()
        assert isinstance(outcome.failure, ModelFailure) and outcome.failure.failure.code == "stream_cut"
        assert outcome.signals == []
        return heard

    assert asyncio.run(run()) >= 2


@pytest.mark.parametrize("adapter", [Anthropic, OpenAIChat])
def test_a_request_may_allow_a_shorter_silence_than_the_adapter(adapter: Any) -> None:
    async def run() -> str:
        model = adapter()
        async with serve(Answer(pieces=[COMMENT], then="silence")) as served:
            request = msgspec.structs.replace(plain_request(served.url), silence_s=0.1)
            outcome = await ask(model, request)
            await model.aclose()
        assert outcome.failure is not None
        return outcome.failure.failure.code

    assert asyncio.run(run()) == "timeout"
