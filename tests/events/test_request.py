"""Requests and their responses: what is emitted, in which order, who waits how long, and what is left behind."""

import asyncio
import gc
import threading
from typing import Any

import pytest

from reenact.events import request as requests
from reenact.events.bus import SystemBus
from reenact.events.errors import BadInput, Closed, NotFound, Refused, RequestTimeout
from reenact.events.message import Context, Live
from tests.events.words import SOON_S

pytestmark = pytest.mark.anyio


def image(data: Any, request: Any) -> dict[str, Any]:
    return {"record": {"imageId": data.image_id, "name": "My Assistant"}}


async def test_a_request_is_answered_with_what_its_responder_returns(bus: SystemBus) -> None:
    bus.on_command("image_get_request", image)

    response = await bus.request("image_get_request", {"imageId": "img_1"})

    assert response.type == "image_get_response"
    assert response.data.record.image_id == response.data["record"]["imageId"] == "img_1"
    assert response.data.error is None
    assert response.data.request_id == response.correlation


async def test_the_responder_may_be_a_coroutine_function(bus: SystemBus) -> None:
    async def slow(data: Any, request: Live) -> dict[str, Any]:
        await asyncio.sleep(0)
        return image(data, request)

    bus.on_command("image_get_request", slow)

    assert (await bus.request("image_get_request", {"imageId": "i"})).data.record.image_id == "i"


async def test_what_goes_over_the_bus_says_what_it_is(bus: SystemBus) -> None:
    heard: list[Any] = []
    bus.on_any(heard.append)
    bus.on_command("image_get_request", image)
    context = Context(container_id="c")

    await bus.request("image_get_request", {"imageId": "i", "requestId": "mine"}, context=context)

    asked, answered = heard
    assert (asked.type, asked.source, asked.category, asked.intent) == (
        "image_get_request",
        "command",
        "request",
        "request",
    )
    assert (answered.type, answered.source, answered.category, answered.intent) == (
        "image_get_response",
        "command",
        "response",
        "result",
    )
    assert asked.data == {"imageId": "i", "requestId": "mine"}
    assert answered.data["requestId"] == asked.correlation == answered.correlation == "mine"
    assert asked.context == answered.context == context
    assert asked.at > 0 and answered.at >= asked.at


async def test_the_responder_reads_the_data_and_the_request(bus: SystemBus) -> None:
    seen: list[Any] = []
    bus.on_command("image_get_request", lambda data, request: seen.append((data, request)))

    await bus.request("image_get_request", {"imageId": "i"}, context=Context(scope="acme"))

    ((data, request),) = seen
    assert data["imageId"] == "i" and request.context.scope == "acme" and request.data is data


async def test_a_refusal_is_told_to_all_and_then_to_the_asker(bus: SystemBus) -> None:
    heard: list[Any] = []
    bus.on_any(heard.append)

    def refuse(data: Any, request: Any) -> dict[str, Any]:
        bus.emit(Live("something_else", {}))
        raise NotFound("Image not found: i")

    bus.on_command("image_run_request", refuse)

    response = await bus.request("image_run_request", {"imageId": "i"}, context=Context(container_id="c"))

    assert [event.type for event in heard] == [
        "image_run_request",
        "something_else",
        "system_error",
        "image_run_response",
    ]
    assert response.data.error == "Image not found: i"
    assert response.data == {
        "requestId": response.correlation,
        "error": "Image not found: i",
        "errorCode": "not_found",
    }
    trouble = heard[2]
    assert (trouble.source, trouble.category, trouble.intent) == ("command", "error", "notification")
    assert trouble.context == Context(container_id="c")
    assert trouble.data == {
        "message": "Image not found: i",
        "requestId": response.correlation,
        "severity": "error",
        "details": {"code": "not_found", "error": "NotFound", "request": "image_run_request"},
    }


@pytest.mark.parametrize("late", [False, True])
async def test_a_bug_in_a_responder_is_an_answer_too(bus: SystemBus, late: bool) -> None:
    async def broken_later(data: Any, request: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        raise KeyError

    def broken(data: Any, request: Any) -> dict[str, Any]:
        raise KeyError

    subscription = bus.on_command("image_run_request", broken_later if late else broken)

    response = await bus.request("image_run_request")

    assert response.data.error == "KeyError" and response.data.error_code == "internal"
    assert subscription.failures == 0, "the bus did its part"


async def test_an_error_that_cannot_even_be_printed_is_an_answer(bus: SystemBus) -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def broken(data: Any, request: Any) -> None:
        raise Nasty

    bus.on_command("a_request", broken)

    assert (await bus.request("a_request")).data.error == "Nasty"


async def test_an_answer_that_is_no_json_is_an_error_to_the_asker(bus: SystemBus) -> None:
    bus.on_command("a_request", lambda data, request: {"x": object()})
    bus.on_command("b_request", lambda data, request: "text")

    assert "no JSON form" in (await bus.request("a_request")).data.error
    assert (await bus.request("b_request")).data.error_code == "internal"


async def test_a_request_without_an_answer_times_out_and_its_late_answer_is_counted(bus: SystemBus) -> None:
    go = asyncio.Event()
    responses: list[Any] = []

    async def slow(data: Any, request: Any) -> None:
        await go.wait()

    bus.on_command("image_get_request", slow)
    with pytest.raises(RequestTimeout, match=r"^Request timeout: image_get_request$"):
        await bus.request("image_get_request", timeout_s=0.01)
    assert bus.pending_requests == 0 and bus.late_responses == 0

    answered = asyncio.Event()
    bus.on("image_get_response", lambda event: (responses.append(event), answered.set()))
    go.set()
    await asyncio.wait_for(answered.wait(), SOON_S)

    assert len(responses) == 1, "the time-out did not stop the work"
    assert bus.late_responses == 1


async def test_a_request_that_is_given_up_leaves_nothing_behind(bus: SystemBus) -> None:
    async def never(data: Any, request: Any) -> None:
        await asyncio.Event().wait()

    bus.on_command("a_request", never)
    waiting = asyncio.create_task(bus.request("a_request"))
    await asyncio.sleep(0)
    assert bus.pending_requests == 1

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert bus.pending_requests == 0


async def test_a_request_that_nobody_answers_is_refused_at_once_with_close_names(bus: SystemBus) -> None:
    bus.on_command("image_create_request", image)

    with pytest.raises(BadInput, match=r"Nobody answers 'image_creat_request'\. Did you mean image_create_request\?"):
        await bus.request("image_creat_request")
    with pytest.raises(BadInput, match="_request"):
        await bus.request("image_create")
    with pytest.raises(BadInput, match="Nobody answers"):
        bus.emit_command("nothing_request")


@pytest.mark.parametrize(
    "data",
    [{"x": object()}, {"requestId": 7}, {"requestId": ""}, [1], "text"],
    ids=["no json", "number", "empty", "array", "string"],
)
async def test_malformed_data_is_refused_before_anything_is_emitted(bus: SystemBus, data: Any) -> None:
    heard: list[Any] = []
    bus.on_any(heard.append)
    bus.on_command("a_request", image)

    with pytest.raises(BadInput):
        await bus.request("a_request", data)

    assert heard == [] and bus.pending_requests == 0


async def test_data_that_contains_itself_is_refused(bus: SystemBus) -> None:
    bus.on_command("a_request", image)
    data: dict[str, Any] = {}
    data["self"] = data

    with pytest.raises(BadInput, match="contains itself"):
        await bus.request("a_request", data)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
async def test_a_timeout_that_is_none_is_refused(bus: SystemBus, timeout_s: float) -> None:
    bus.on_command("a_request", image)
    with pytest.raises(BadInput, match="timeout_s"):
        await bus.request("a_request", timeout_s=timeout_s)


async def test_a_type_has_one_responder_until_that_one_gives_up(bus: SystemBus) -> None:
    first = bus.on_command("a_request", lambda data, request: {"by": "first"})
    with pytest.raises(BadInput, match="already"):
        bus.on_command("a_request", image)
    with pytest.raises(BadInput, match="<name>_request"):
        bus.on_command("a", image)
    with pytest.raises(BadInput, match="<name>_request"):
        bus.on_command(5, image)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="cannot be called"):
        bus.on_command("b_request", None)  # type: ignore[arg-type]

    first.unsubscribe()
    bus.on_command("a_request", lambda data, request: {"by": "second"})

    assert (await bus.request("a_request")).data.by == "second"


async def test_the_same_request_id_cannot_wait_twice(bus: SystemBus) -> None:
    go = asyncio.Event()

    async def slow(data: Any, request: Any) -> None:
        await go.wait()

    bus.on_command("a_request", slow)
    waiting = asyncio.create_task(bus.request("a_request", {"requestId": "r"}))
    await asyncio.sleep(0)
    with pytest.raises(BadInput, match="'r'"):
        await bus.request("a_request", {"requestId": "r"})
    go.set()

    assert (await waiting).data.request_id == "r"
    assert (await bus.request("a_request", {"requestId": "r"})).data.request_id == "r", "and later it may"


async def test_the_asker_goes_on_when_all_others_have_seen_the_response(bus: SystemBus) -> None:
    heard: list[str] = []
    bus.on_command("a_request", lambda data, request: None)
    bus.on_any(lambda event: heard.append(event.type), priority=-1_000_000)

    await bus.request("a_request")

    assert heard == ["a_request", "a_response"]


async def test_the_asker_goes_on_last_also_when_another_thread_delivers_the_response(bus: SystemBus) -> None:
    loop = asyncio.get_running_loop()
    gone_on: list[bool] = []

    def turn_of_the_loop(_: object) -> None:
        for _ in range(3):
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(SOON_S)
        gone_on.append(waiting.done())

    asked: list[Live] = []
    bus.on("a_request", asked.append)
    waiting = asyncio.create_task(bus.request("a_request"))
    await asyncio.sleep(0)
    bus.on("a_response", turn_of_the_loop, priority=-1_000_000)
    await asyncio.to_thread(bus.emit, Live("a_response", {}, correlation=asked[0].correlation))
    await asyncio.wait_for(waiting, SOON_S)

    assert gone_on == [False]


async def test_a_command_is_answered_without_anybody_waiting(bus: SystemBus) -> None:
    responses: list[Any] = []
    bus.on("a_response", responses.append)
    bus.on_command("a_request", lambda data, request: {"n": data.n + 1})

    request_id = bus.emit_command("a_request", {"n": 1})

    assert [response.data for response in responses] == [{"n": 2, "requestId": request_id}]
    assert bus.late_responses == 0, "nobody had been waiting"


async def test_a_request_emitted_by_hand_is_answered(bus: SystemBus) -> None:
    responses: list[Any] = []
    bus.on("a_response", responses.append)
    bus.on_command("a_request", lambda data, request: {"n": data.n + 1})

    bus.emit(Live("a_request", {"n": 1, "requestId": "mine"}))
    bus.emit(Live("a_request", {"n": 2}))
    bus.emit(Live("a_request", None))

    assert responses[0].data == {"n": 2, "requestId": "mine"}
    assert responses[1].data.n == 3 and responses[1].data.request_id
    assert "no field 'n'" in responses[2].data.error and responses[2].data.request_id


async def test_a_handler_that_answers_by_hand_is_an_answer(bus: SystemBus) -> None:
    def answer(request: Live) -> None:
        bus.emit(Live("a_response", {"requestId": request.data.request_id, "n": 1}))

    bus.on("a_request", answer)

    assert (await bus.request("a_request")).data["n"] == 1


async def test_an_answer_of_another_type_is_not_taken_for_this_one(bus: SystemBus) -> None:
    def answer(request: Live) -> None:
        bus.emit(Live("b_response", {"requestId": "r"}))
        bus.emit(Live("a_response", {"requestId": "r", "right": True}))

    bus.on_command("b_request", lambda data, request: None)
    await bus.request("b_request")  # from here on b_response is listened to
    bus.on("a_request", answer)

    assert (await bus.request("a_request", {"requestId": "r"})).data["right"]


async def test_a_responder_may_ask_in_turn(bus: SystemBus) -> None:
    async def outer(data: Any, request: Any) -> dict[str, Any]:
        return {"inner": (await bus.request("inner_request", {"n": data.n})).data.n}

    bus.on_command("outer_request", outer)
    bus.on_command("inner_request", lambda data, request: {"n": data.n * 2})

    assert (await bus.request("outer_request", {"n": 21})).data.inner == 42


async def test_an_answer_may_come_from_another_thread(bus: SystemBus) -> None:
    def answer(request: Live) -> None:
        response = Live("a_response", {}, correlation=request.correlation)
        threading.Thread(target=bus.emit, args=(response,)).start()

    bus.on("a_request", answer)

    assert (await asyncio.wait_for(bus.request("a_request"), SOON_S)).type == "a_response"


async def test_a_thousand_requests_wait_without_a_thread_and_get_their_own_answers(bus: SystemBus) -> None:
    asked: list[Live] = []
    bus.on("a_request", asked.append)
    threads = threading.active_count()

    waiting = [asyncio.create_task(bus.request("a_request", {"n": n})) for n in range(1000)]
    await asyncio.sleep(0)
    assert bus.pending_requests == 1000 and threading.active_count() == threads
    for request in reversed(asked):
        bus.emit(Live("a_response", {"n": request.data["n"]}, correlation=request.correlation))
    responses = await asyncio.gather(*waiting)

    assert [response.data["n"] for response in responses] == list(range(1000))
    assert bus.pending_requests == 0 and bus.subscriptions == 1


async def test_too_many_requests_at_a_time_are_refused(bus: SystemBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "PENDING_LIMIT", 2)
    bus.on("a_request", lambda _: None)
    waiting = [asyncio.create_task(bus.request("a_request")) for _ in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(Refused, match="2 requests"):
        await bus.request("a_request")
    for task in waiting:
        task.cancel()


async def test_a_responder_that_cannot_begin_answers_with_an_error(bus: SystemBus) -> None:
    async def slow(data: Any, request: Any) -> None:
        await asyncio.Event().wait()

    subscription = bus.on_command("a_request", slow)
    subscription.tasks_limit = 0

    response = await bus.request("a_request")

    assert "running already" in response.data.error and subscription.failures == 1


async def test_a_responder_that_is_cancelled_answers_with_an_error(bus: SystemBus) -> None:
    async def stopped(data: Any, request: Any) -> None:
        raise asyncio.CancelledError

    bus.on_command("a_request", stopped)

    assert (await bus.request("a_request")).data.error_code == "closed"


async def test_requests_that_wait_end_with_the_bus(bus: SystemBus) -> None:
    async def never(data: Any, request: Any) -> None:
        await asyncio.Event().wait()

    bus.on_command("a_request", never)
    waiting = [asyncio.create_task(bus.request("a_request")) for _ in range(3)]
    await asyncio.sleep(0)
    bus.dispose()

    for ended in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(ended, Closed)
    with pytest.raises(Closed):
        await bus.request("a_request")
    assert bus.pending_requests == 0


async def test_the_bus_gives_ids_and_times_it_was_given() -> None:
    bus = SystemBus(now=lambda: 1_700_000_000_000_000, new_id=iter(["one", "two"]).__next__)
    bus.on_command("a_request", lambda data, request: None)

    response = await bus.request("a_request")

    assert response.data.request_id == "one" and response.timestamp == 1_700_000_000_000


def test_an_interrupt_in_a_responder_reaches_the_asker_and_leaves_nothing(bus: SystemBus) -> None:
    def interrupt(data: Any, request: Any) -> None:
        raise KeyboardInterrupt

    bus.on_command("a_request", interrupt)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(bus.request("a_request"))
    gc.collect()
    assert bus.pending_requests == 0


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same thread", "another thread"])
def test_an_asker_whose_loop_was_closed_under_it_keeps_nobody_from_ending(bus: SystemBus, elsewhere: bool) -> None:
    bus.on("a_request", lambda _: None)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(bus.request("a_request"))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    if elsewhere:
        thread = threading.Thread(target=bus.dispose)
        thread.start()
        thread.join(SOON_S)
    else:
        bus.dispose()

    assert bus.disposed and bus.pending_requests == 0
    waiting._log_destroy_pending = False  # type: ignore[attr-defined] # it was abandoned on purpose
