"""Laws that hold for every noun, over any history: each written once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from msgspec.structs import replace

from reenact import tool
from reenact.actors import agent, decider, doubt, mind, session, turn
from reenact.actors import tool as calls
from reenact.actors.cell import NOUNS, Cell, noun_of
from reenact.actors.container import CONTAINER
from reenact.actors.conversation import CONVERSATION
from reenact.actors.decider import Circling, Decider, Noun
from reenact.actors.image import IMAGE
from reenact.actors.ledger import LEDGER
from reenact.actors.replay import replay
from reenact.events import codec
from reenact.events.agent import ToolSettled, ToolStarted, ToolUnproved
from reenact.events.budget import NOTHING, Amount, Budget
from reenact.events.container import AddImage, CreateContainer, ImageAdded, RegisterTools, RemoveImage
from reenact.events.cooldown import CooldownEnded, CooldownOpened, NoteCooldowns
from reenact.events.errors import ReenactError
from reenact.events.image import AttachSession, CreateImage, DeleteImage, ImageConfig, UpdateImage
from reenact.events.ledger import Allot, AwaitUsage, Counted, RecordCount, RemoveBudget, ReturnAllotment, SetBudget
from reenact.events.log import MemoryLog, MemoryStore, Transaction
from reenact.events.message import Asked, Command, Event, Recorded, Stamp
from reenact.events.session import JobCancelled, JobQueued, JobStarted, JobSucceeded, JobWaiting
from reenact.events.tool import ToolSpec
from tests.actors.test_conversation_machine import Conversation
from tests.chains import broken_at
from tests.events.samples import SAMPLES
from tests.histories import History, anything
from tests.runtimes import Gate, Heard, runtime

# -- any commands of a noun, in any order --

ids = st.sampled_from(["a", "b", "c"])
specs = st.builds(
    lambda name, version: ToolSpec(name=name, description="", parameters={}, version=version),
    st.sampled_from(["refund", "book"]),
    st.sampled_from(["1", "2"]),
)
configs = st.builds(
    lambda name, steps: ImageConfig(name=name, max_steps=steps), st.sampled_from(["x", "y"]), st.integers(1, 2)
)
of_a_container = st.one_of(
    st.builds(lambda at: CreateContainer(container_id="acme", created_at=at), st.integers(0, 9)),
    st.builds(lambda image, at: AddImage(container_id="acme", image_id=image, created_at=at), ids, st.integers(0, 9)),
    st.builds(lambda image: RemoveImage(image_id=image), ids),
    st.builds(
        lambda tools: RegisterTools(container_id="acme", created_at=1, tools=tuple(tools)),
        st.lists(specs, max_size=2, unique_by=lambda spec: spec.name),
    ),
)
of_an_image = st.one_of(
    st.builds(
        lambda config: CreateImage(image_id="i", container_id="acme", session_id="a", created_at=1, config=config),
        configs,
    ),
    st.builds(lambda config, at: UpdateImage(config=config, updated_at=at), configs, st.integers(0, 9)),
    st.builds(lambda session_id: AttachSession(session_id=session_id), ids),
    st.just(DeleteImage()),
)
amounts = st.builds(Amount, st.integers(0, 9), st.integers(0, 9), st.integers(0, 3), st.integers(0, 3))
budgets = st.builds(
    lambda owner, daily, strategy: Budget(
        **owner, max_tokens_daily=daily, max_requests_per_minute=5, exceed_strategy=strategy
    ),
    st.sampled_from([{}, {"principal_id": "a"}, {"session_id": "b"}]),
    st.integers(0, 40),
    st.sampled_from(["deny", "degrade", "warn"]),
)
counted = st.builds(
    lambda session, principal, used, spent, still, more: Counted(
        session_id=session,
        principal_id=principal,
        used=used,
        used_daily=used,
        spent=NOTHING if more is None else spent,
        open=still,
        whole=None if more is None else spent + more,
    ),
    ids,
    st.sampled_from("ab"),
    amounts,
    amounts,
    st.booleans(),
    st.none() | amounts,
)
of_a_ledger = st.one_of(
    st.builds(
        lambda budget, at, counts, opening: SetBudget(budget=budget, at=at, counts=counts, opening=opening),
        budgets,
        st.integers(0, 9),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(
        lambda count, entries, done: RecordCount(count=count, upto=9, at=9, entries=tuple(entries), done=done),
        st.integers(-1, 4),
        st.lists(counted, max_size=3),
        st.booleans(),
    ),
    st.builds(lambda session: AwaitUsage(session_id=session, at=9), ids),
    st.builds(
        lambda owner, at: RemoveBudget(principal_id=owner, at=at), st.sampled_from([None, "a"]), st.integers(0, 9)
    ),
    st.builds(
        lambda session, ask, spent, want, at: Allot(
            session_id=session, principal_id="a", ask=f"w{ask}", spent=spent, want=want, least=want, at=at, last=True
        ),
        ids,
        st.integers(1, 4),
        amounts,
        amounts,
        st.integers(0, 9),
    ),
    st.builds(
        lambda session, ask, spent, kept, at: ReturnAllotment(
            session_id=session, ask=f"w{ask}", spent=spent, kept=kept, at=at
        ),
        ids,
        st.integers(1, 4),
        amounts,
        amounts,
        st.integers(0, 9),
    ),
)
opened = st.builds(
    lambda model, key, whole, since: CooldownOpened(
        model=model, key=key, whole=whole, code="billing", since=since, until=since + 5, count=1
    ),
    ids,
    st.sampled_from([None, "k"]),
    st.booleans(),
    st.integers(0, 2),
)
ended = st.builds(
    lambda model, key, whole: CooldownEnded(model=model, key=key, whole=whole),
    ids,
    st.sampled_from([None, "k"]),
    st.booleans(),
)
of_cooldowns = st.builds(
    lambda opened, ended: NoteCooldowns(opened=tuple(opened), ended=tuple(ended)),
    st.lists(opened, max_size=2),
    st.lists(ended, max_size=2),
)
STREAMS = {
    "container-acme": of_a_container,
    "image-i": of_an_image,
    "ledger-default": of_a_ledger,
    "cooldown-default": of_cooldowns,
}
any_command = st.one_of(of_a_container, of_an_image, of_a_ledger, of_cooldowns)


class Told:
    """One stream in a cell, and what every command led to."""

    def __init__(self, stream: str) -> None:
        self.log = MemoryLog(MemoryStore())
        self.cell = Cell(stream)
        self.asked = 0

    def ask(self, command: Command) -> list[Recorded]:
        """The events it led to; none when it was already so, or refused."""
        self.asked += 1
        try:
            prepared = self.cell.prepare(Asked(id=f"{self.asked:032x}", at=self.asked, command=command), self.log)
        except ReenactError:
            return []
        if prepared is None:
            return []
        [[stored]] = self.log.commit([Transaction((prepared.batch,))])  # type: ignore[misc]
        return self.cell.accept(prepared, stored)


@pytest.mark.parametrize("stream", STREAMS)
@given(data=st.data())
def test_every_batch_is_what_its_recalled_command_is_decided_to(stream: str, data: st.DataObject) -> None:
    told, noun = Told(stream), noun_of(stream)
    for command in data.draw(st.lists(st.one_of(STREAMS[stream], any_command), max_size=12)):
        states, version = told.cell.states, told.cell.version
        events = told.ask(command)
        if events:
            recalled = decider.recall(noun, command.type, [recorded.data for recorded in events])
            assert recalled is not None
            again = decider.decide(noun, states, recalled, version=version, at=events[0].at, epoch=1)
            assert list(again.events) == [recorded.data for recorded in events]
    verdict = replay(stream, told.log.read(stream))
    assert verdict.identical and (verdict.states or noun.initial) == told.cell.states


@pytest.mark.parametrize("stream", STREAMS)
@given(data=st.data())
def test_asking_twice_changes_nothing_the_second_time(stream: str, data: st.DataObject) -> None:
    told = Told(stream)
    for command in data.draw(st.lists(STREAMS[stream], max_size=12)):
        told.ask(command)
        assert told.ask(command) == []


@pytest.mark.parametrize("stream", STREAMS)
@given(data=st.data())
def test_a_stream_read_again_is_the_stream_that_was(stream: str, data: st.DataObject) -> None:
    told = Told(stream)
    for command in data.draw(st.lists(STREAMS[stream], max_size=12)):
        told.ask(command)
    again = Cell(stream)
    again.load(told.log)
    assert (again.states, again.version, again.chain) == (told.cell.states, told.cell.version, told.cell.chain)
    assert broken_at(told.log.read(stream)) is None


# -- evolve cannot fail --


def evolves(noun: Noun, events: Sequence[Event]) -> tuple[Any, ...]:
    states = noun.initial
    for version, event in enumerate(events, start=1):
        states = decider.evolve(noun, states, event, Stamp(version, 1, 1, b"digest"))
        decider.owed(noun, states)
    return states


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.prefix)
@given(events=st.lists(st.sampled_from(SAMPLES), max_size=25))
def test_no_event_of_any_noun_in_any_order_makes_evolve_or_owed_fail(noun: Noun, events: list[Event]) -> None:
    evolves(noun, events)


@given(history=anything())
def test_nor_do_events_of_a_session_in_an_order_that_never_was(history: History) -> None:
    for noun in NOUNS:
        evolves(noun, history.data)


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.prefix)
def test_events_of_other_nouns_are_passed_over(noun: Noun) -> None:
    own = {type(event) for event in SAMPLES if evolves(noun, [event]) != evolves(noun, [_strange(event)])}
    assert own, "and its own are not"
    strangers = [event for other in (CONTAINER, IMAGE, LEDGER) if other is not noun for event in _of(other)]
    if noun is not CONVERSATION:
        assert evolves(noun, strangers) == noun.initial


def _strange(event: Event) -> Event:
    from reenact.events.message import Unknown

    return Unknown(name=event.type, version=99, raw=b"")


def _of(noun: Noun) -> list[Event]:
    from reenact.events import container, image, ledger

    types = {CONTAINER.prefix: container.EVENTS, IMAGE.prefix: image.EVENTS, LEDGER.prefix: ledger.EVENTS}[noun.prefix]
    return [event for event in SAMPLES if isinstance(event, types)]


def test_deciders_that_answer_each_other_for_ever_are_stopped_by_name() -> None:
    def decide(state: None, message: Command | Event) -> Sequence[Event]:
        return [ImageAdded(image_id="again")]

    noun = Noun(
        "ring-",
        (
            Decider(
                "ring", None, decide, lambda state, event, stamp: state, lambda state: (), lambda asked, events: None
            ),
        ),
        lambda states, context: context,
        lambda states: None,
    )
    with pytest.raises(Circling, match="create_container led to more than"):
        command = CreateContainer(container_id="acme", created_at=1)
        decider.decide(noun, noun.initial, command, version=0, at=1, epoch=1)


# -- causes, over the real kernel --


@tool(effect="idempotent")
def look(n: int) -> str:
    """Look something up."""
    return f"saw {n}"


@tool(effect="unsafe")
async def pay(n: int) -> str:
    """Pay, and never come back."""
    await asyncio.Event().wait()
    return "paid"


STEPS = [
    {"tool_calls": [{"name": "look", "input": {"n": 1}}, {"name": "look", "input": {"n": "bad"}}]},
    {
        "tool_calls": [{"name": "pay", "input": {"n": 1}}],
        "error": {"code": "overloaded", "retryable": True, "times": 1},
    },
    {"text": "Done."},
    {"text": "Nothing more."},
]


async def _a_life(store: MemoryStore) -> None:
    """A conversation with tools, retries, a crash in the middle of a payment, a person's word, and an interrupt."""
    async with runtime(STEPS, store=store, tools=[look, pay]) as first:
        bot = await first.image("bot")
        run = await first.send(bot.id, "go", timeout_s=3600)
        async for event in run:
            if isinstance(event.data, ToolStarted) and event.data.tool == "t3":
                break
        session_id = bot.session_id
    async with runtime(STEPS, store=store, tools=[look, pay]) as second:
        heard = Heard(second)
        await heard.until(JobWaiting.type)
        await second.resolve(session_id, "t3", "ok", "It was paid.")
        await heard.until(JobSucceeded.type)
        await (await second.send(bot.id, "and now?"))
        await second.stop_image(bot.id)


def causes(log: MemoryLog) -> dict[str, Recorded]:
    """Every event of a log by id, after walking each back to a command that nothing caused."""
    known: dict[str, Recorded] = {}
    for stored in log.read_all(limit=100_000):
        events = codec.unpack(stored)
        head = stored.batch.head
        if head.cause is not None:
            cause = known.get(head.cause)
            assert cause is not None, f"{head.asked} was caused by {head.cause}, which is not before it in the log"
            assert head.correlation == cause.head.correlation, "what follows belongs to the same asking"
        steps, at = 0, events[0]
        while at.head.cause is not None:
            at, steps = known[at.head.cause], steps + 1
            assert steps <= len(known), "causes run in a circle"
        known.update((recorded.id, recorded) for recorded in events)
    return known


def test_every_event_can_be_walked_back_to_a_command_that_somebody_asked() -> None:
    store = MemoryStore()
    asyncio.run(asyncio.wait_for(_a_life(store), 20))
    known = causes(MemoryLog(store))
    caused = {recorded.head.asked for recorded in known.values() if recorded.head.cause is not None}
    assert {"answer_model", "settle_tool", "fail_model"} <= caused
    roots = {recorded.head.asked for recorded in known.values() if recorded.head.cause is None}
    assert {"send", "resolve_tool", "add_image"} <= roots <= {*_ASKED_OUTSIDE, "recover_effect"}
    settled = [recorded for recorded in known.values() if isinstance(recorded.data, ToolSettled)]
    assert len(settled) == 3
    run = known[settled[0].head.cause or ""]
    assert "answer_model" in (run.head.asked, settled[0].head.asked)
    for stream in {recorded.stream for recorded in known.values()}:
        assert replay(stream, MemoryLog(store).read(stream)).identical


_ASKED_OUTSIDE = {"add_image", "create_image", "create_session", "register_tools", "send", "resolve_tool", "stop_agent"}


def test_a_cause_that_is_missing_would_be_noticed() -> None:
    store = MemoryStore()
    asyncio.run(asyncio.wait_for(_a_life(store), 20))
    at = next(n for n, stored in enumerate(store.all) if stored.batch.head.asked == "answer_model")
    del store.all[at - 1]
    with pytest.raises(AssertionError, match="not before it in the log"):
        causes(MemoryLog(store))


# -- the machine of the conversation can fail --


def _settles_anything(state: mind.State, message: Any) -> Sequence[Event]:
    return [ToolSettled(tool=message.tool, outcome=message.outcome, output=message.output)]


def _recovers_everything(state: mind.State, message: Any) -> Sequence[Event]:
    known = mind.tool_of(state, message.effect)
    if known is None or known.status != "started" or known.attempt != message.attempt or state.stopping is not None:
        return ()
    return [calls.run(known)]


def _never_asks_a_person(state: mind.State, message: Any) -> Sequence[Event]:
    events = doubt.recover(state, message)
    return [event for event in events if not isinstance(event, ToolUnproved)]


BROKEN: dict[str, Any] = {
    "a tool may be settled twice": lambda patch: patch.setitem(agent._DECIDE, agent.SettleTool, _settles_anything),
    "an unsafe call runs again after a crash": lambda patch: patch.setitem(
        agent._DECIDE, agent.RecoverEffect, _recovers_everything
    ),
    "a doubt is never put to a person": lambda patch: patch.setitem(
        agent._DECIDE, agent.RecoverEffect, _never_asks_a_person
    ),
    "an answer is taken twice": lambda patch: patch.setitem(
        agent._EVOLVE,
        agent.ModelAnswered,
        lambda state, event, stamp: replace(turn.on_answered(state, event, stamp), call=state.call),
    ),
    "a stop is forgotten by the agent": lambda patch: patch.delitem(agent._EVOLVE, agent.JobStopping),
    "the lane forgets who runs": lambda patch: patch.setitem(
        session._DECIDE,
        JobQueued,
        lambda state, message: [JobStarted(job_id=state.queue[0].job_id)] if state.awake else (),
    ),
    "priorities are ignored": lambda patch: patch.setattr(session, "sorted", lambda queue, key: queue, raising=False),
    "an old failure counts": lambda patch: patch.setitem(
        agent._DECIDE, agent.FailModel, lambda state, message: turn.fail(state, replace(message, attempt=0))
    ),
    "a cancelled job ends twice": lambda patch: patch.setattr(session, "_without", lambda state, job_id: state.queue),
}


@pytest.mark.parametrize("build", BROKEN)
def test_the_machine_finds_what_is_broken(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN[build](monkeypatch)
    with pytest.raises(Exception):  # noqa: B017  a failed law, a decider that raised, or a model that did
        run_state_machine_as_test(
            Conversation,
            settings=settings(
                max_examples=500, stateful_step_count=60, phases=[Phase.generate], database=None, print_blob=False
            ),
        )


def test_cancelled_jobs_and_gates_are_honest() -> None:
    """An interrupted turn ends as cancelled over the real kernel, and its events have causes too."""
    store = MemoryStore()

    async def life() -> None:
        from reenact.adapters.models import Models

        gate = Gate()
        async with runtime(store=store, models=Models({"scripted": gate})) as opened:
            bot = await opened.image("bot")
            run = await opened.send(bot.id, "go")
            heard = Heard(opened)
            async for event in run:
                if event.type == "text_delta":
                    await opened.interrupt(bot.id)
                    break
            await heard.until(JobCancelled.type)

    asyncio.run(asyncio.wait_for(life(), 20))
    assert any(isinstance(recorded.data, JobCancelled) for recorded in causes(MemoryLog(store)).values())
