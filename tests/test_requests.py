"""The requests of the bus, as a program asks them by name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reenact.adapters.models import Models
from reenact.events.errors import BadInput, RequestTimeout
from reenact.events.log import MemoryStore
from reenact.requests import NAMES
from reenact.runtime import Runtime
from tests.runtimes import Gate, Heard, run


async def _image(runtime: Runtime, container: str = "acme", **config: Any) -> Any:
    response = await runtime.request("image_create_request", {"containerId": container, "config": config})
    assert response.data.error is None, response.data.error
    return response.data.record


def test_there_are_twenty_six_and_each_has_a_response_of_its_name() -> None:
    assert len(NAMES) == 26

    async def work(runtime: Runtime) -> None:
        image = await _image(runtime)
        data = {
            "containerId": "acme",
            "imageId": image.imageId,
            "agentId": "agent_x",
            "content": "hi",
            "config": {},
            "updates": {},
        }
        for name in NAMES:
            response = await runtime.request(name, data)
            assert response.type == name.replace("_request", "_response")
            assert response.data.requestId and response.category == "response" and response.intent == "result"

    run(work)


def test_the_quick_start_of_a_chat_works_as_written() -> None:
    async def work(runtime: Runtime) -> None:
        said: list[str] = []
        runtime.on("text_delta", lambda event: said.append(event.data.text))
        await runtime.request("container_create_request", {"containerId": "user-123"})
        image = await runtime.request(
            "image_create_request",
            {
                "containerId": "user-123",
                "config": {"name": "My Assistant", "systemPrompt": "You are a helpful assistant."},
            },
        )
        ended = asyncio.get_running_loop().create_future()
        runtime.once("conversation_end", ended.set_result)
        sent = await runtime.request(
            "message_send_request", {"imageId": image.data.record.imageId, "content": "Hello, how are you?"}
        )
        assert sent.data.imageId == image.data.record.image_id and sent.data.agentId
        assert (await ended).data.reason == "completed"
        assert "".join(said) == "Hello there."

    run(work)


# -- containers --


def test_creating_a_container_twice_is_fine_and_told_once() -> None:
    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        for _ in range(2):
            response = await runtime.request("container_create_request", {"containerId": "acme"})
            assert (response.data.containerId, response.data.error) == ("acme", None)
        [created] = heard.of("container_created")
        assert created.data.container_id == "acme" and created.data.created_at > 1_600_000_000_000

    run(work)


def test_a_container_without_a_name_gets_an_id() -> None:
    async def work(runtime: Runtime) -> None:
        response = await runtime.request("container_create_request", {})
        assert response.data.containerId.startswith("container_")

    run(work)


def test_an_unknown_container_does_not_exist_and_is_no_error() -> None:
    async def work(runtime: Runtime) -> None:
        response = await runtime.request("container_get_request", {"containerId": "nobody"})
        assert (response.data.exists, response.data.error) == (False, None)
        assert (await runtime.request("agent_list_request", {"containerId": "nobody"})).data.agents == []
        gone = await runtime.request("agent_destroy_all_request", {"containerId": "nobody"})
        assert (gone.data.containerId, gone.data.error) == ("nobody", None)

    run(work)


def test_containers_are_listed_after_a_restart_too() -> None:
    store = MemoryStore()

    async def create(runtime: Runtime) -> None:
        await runtime.request("container_create_request", {"containerId": "a"})
        await runtime.request("container_create_request", {"containerId": "b"})

    async def look(runtime: Runtime) -> None:
        assert (await runtime.request("container_list_request", {})).data.containerIds == ["a", "b"]
        assert (await runtime.request("container_get_request", {"containerId": "b"})).data.exists

    run(create, store=store)
    run(look, store=store)


# -- images --


def test_an_image_is_created_with_its_container_and_its_session_and_the_defaults() -> None:
    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        response = await runtime.request("image_create_request", {"containerId": "acme"})
        record = response.data.record
        assert record.name == "New Conversation" and record.systemPrompt == "Be kind." and record.online is False
        assert response.data["__subscriptions"] == [record.sessionId]
        assert heard.types[:4] == ["image_create_request", "container_created", "image_added", "image_created"]
        [created] = heard.of("session_created")
        assert (created.data.session_id, created.data.image_id, created.data.container_id) == (
            record.sessionId,
            record.imageId,
            "acme",
        )

    run(work, default_agent={"model": "scripted:any", "systemPrompt": "Be kind."})


def test_running_an_image_twice_gives_one_agent() -> None:
    async def work(runtime: Runtime) -> None:
        image = await _image(runtime)
        first = await runtime.request("image_run_request", {"imageId": image.imageId})
        second = await runtime.request("image_run_request", {"imageId": image.imageId})
        assert (first.data.reused, second.data.reused) == (False, True)
        assert first.data.agentId == second.data.agentId

    run(work)


def test_many_who_wake_an_image_at_once_make_one_agent() -> None:
    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        image = await _image(runtime)
        asked = [runtime.request("image_run_request", {"imageId": image.imageId}) for _ in range(20)]
        asked += [
            runtime.request("message_send_request", {"imageId": image.imageId, "content": "hi"}) for _ in range(20)
        ]
        agents = {response.data.agentId for response in await asyncio.gather(*asked)}
        assert len(agents) == len(heard.of("agent_registered")) == 1

    run(work)


def test_stopping_an_image_keeps_its_messages_and_the_next_message_wakes_another_agent() -> None:
    async def work(runtime: Runtime) -> None:
        image = await _image(runtime)
        heard = Heard(runtime)
        first = await runtime.request("message_send_request", {"imageId": image.imageId, "content": "hi"})
        await heard.until("job_succeeded")
        stopped = await runtime.request("image_stop_request", {"imageId": image.imageId})
        assert stopped.data.error is None
        assert (await runtime.request("image_stop_request", {"imageId": image.imageId})).data.error is None
        shown = (await runtime.request("image_get_request", {"imageId": image.imageId})).data.record
        assert shown.online is False and "agentId" not in shown
        assert len((await runtime.request("image_messages_request", {"imageId": image.imageId})).data.messages) == 2
        second = await runtime.request("message_send_request", {"imageId": image.imageId, "content": "again"})
        assert second.data.agentId != first.data.agentId

    run(work)


def test_an_image_can_be_renamed() -> None:
    async def work(runtime: Runtime) -> None:
        image = await _image(runtime)
        updates = {"name": "Taxes", "description": "For April"}
        response = await runtime.request("image_update_request", {"imageId": image.imageId, "updates": updates})
        assert (response.data.record.name, response.data.record.description) == ("Taxes", "For April")
        assert response.data.record.version == 2

    run(work)


def test_images_are_listed_by_container_with_who_is_awake() -> None:
    async def work(runtime: Runtime) -> None:
        one, two = await _image(runtime), await _image(runtime)
        other = await _image(runtime, "other")
        agent = (await runtime.request("image_run_request", {"imageId": two.imageId})).data.agentId
        listed = await runtime.request("image_list_request", {"containerId": "acme"})
        assert [(each.imageId, each.online, each.get("agentId")) for each in listed.data.records] == [
            (one.imageId, False, None),
            (two.imageId, True, agent),
        ]
        assert listed.data["__subscriptions"] == [one.sessionId, two.sessionId]
        everything = await runtime.request("image_list_request", {})
        assert {each.imageId for each in everything.data.records} == {one.imageId, two.imageId, other.imageId}

    run(work)


def test_an_unknown_image_is_null_and_deleting_it_succeeds() -> None:
    async def work(runtime: Runtime) -> None:
        got = await runtime.request("image_get_request", {"imageId": "img_no"})
        assert (got.data.record, got.data.error) == (None, None)
        gone = await runtime.request("image_delete_request", {"imageId": "img_no"})
        assert (gone.data.imageId, gone.data.error) == ("img_no", None)

    run(work)


@pytest.mark.parametrize("name", ["image_run", "image_stop", "image_update", "image_messages", "message_send"])
def test_an_unknown_image_is_an_error_by_name_for_what_needs_it(name: str) -> None:
    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        data = {"imageId": "img_no", "content": "hi", "updates": {}}
        response = await runtime.request(f"{name}_request", data)
        assert response.data.error == "Image not found: img_no"
        error, answer = heard.of("system_error", f"{name}_response")
        assert error.type == "system_error" and error.data.message == response.data.error
        assert (error.data.requestId, error.data.severity) == (answer.data.requestId, "error")
        assert (error.source, error.category, error.intent) == ("command", "error", "notification")

    run(work)


def test_a_deleted_image_is_gone_and_its_session_takes_nothing_more() -> None:
    async def work(runtime: Runtime) -> None:
        image = await _image(runtime)
        await runtime.request("image_run_request", {"imageId": image.imageId})
        assert (await runtime.request("image_delete_request", {"imageId": image.imageId})).data.error is None
        assert (await runtime.request("image_get_request", {"imageId": image.imageId})).data.record is None
        assert (await runtime.request("image_list_request", {"containerId": "acme"})).data.records == []
        assert (await runtime.request("agent_list_request", {"containerId": "acme"})).data.agents == []
        sent = await runtime.request("message_send_request", {"imageId": image.imageId, "content": "hi"})
        assert sent.data.error == f"Image not found: {image.imageId}"

    run(work)


# -- messages --


def test_a_message_needs_somebody_to_go_to() -> None:
    async def work(runtime: Runtime) -> None:
        response = await runtime.request("message_send_request", {"content": "hi"})
        assert response.data.error == "Either imageId or agentId must be provided"
        response = await runtime.request("agent_interrupt_request", {})
        assert response.data.error == "Either imageId or agentId must be provided"
        response = await runtime.request("message_send_request", {"agentId": "agent_no", "content": "hi"})
        assert response.data.error == "Agent not found: agent_no"

    run(work)


def test_a_message_may_go_to_an_agent_and_the_image_wins_where_both_are_given() -> None:
    async def work(runtime: Runtime) -> None:
        one, two = await _image(runtime), await _image(runtime)
        agent = (await runtime.request("image_run_request", {"imageId": one.imageId})).data.agentId
        sent = await runtime.request("message_send_request", {"agentId": agent, "content": "hi"})
        assert (sent.data.imageId, sent.data.agentId) == (one.imageId, agent)
        sent = await runtime.request(
            "message_send_request", {"agentId": agent, "imageId": two.imageId, "content": "hi"}
        )
        assert sent.data.imageId == two.imageId and sent.data.agentId != agent

    run(work)


def test_the_response_says_received_and_does_not_wait_for_the_answer() -> None:
    async def work(runtime: Runtime) -> None:
        image = await _image(runtime)
        heard = Heard(runtime)
        await runtime.request("message_send_request", {"imageId": image.imageId, "content": "hi"})
        assert not heard.of("conversation_end") and heard.of("conversation_queued")

    gate = Gate()
    run(work, models=Models({"scripted": gate}))


def test_a_second_message_during_a_run_is_queued_and_both_are_answered() -> None:
    async def work(runtime: Runtime) -> None:
        image = await _image(runtime)
        heard = Heard(runtime)
        for text in ("one", "two"):
            await runtime.request("message_send_request", {"imageId": image.imageId, "content": text})
        assert len(heard.of("conversation_queued")) == 2 and len(heard.of("user_message")) == 1
        gate.opened.set()
        await heard.until("conversation_end", 2)
        messages = (await runtime.request("image_messages_request", {"imageId": image.imageId})).data.messages
        assert [message.role for message in messages] == ["user", "assistant", "user", "assistant"]

    gate = Gate()
    run(work, models=Models({"scripted": gate}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "content must be"),
        (7, "content must be"),
        ("", "empty"),
        ("  \n", "empty"),
        ([], "empty"),
        ("\ud800", "cannot be read"),
        ("a\0b", "U+0000"),
        ([{"type": "video"}], "cannot be read"),
        ([{"type": "text"}], "cannot be read"),
        ("x" * (16 * 1024 * 1024 + 1), "at most"),
    ],
)
def test_content_that_is_none_is_refused_and_nothing_is_stored(content: object, words: str) -> None:
    async def work(runtime: Runtime) -> None:
        image = await _image(runtime)
        before = runtime.log.position
        try:
            response = await runtime.request("message_send_request", {"imageId": image.imageId, "content": content})
        except BadInput:  # what is no JSON is refused before it is a request
            pass
        else:
            assert words in response.data.error
        assert runtime.log.position == before

    run(work)


SETTINGS: dict[str, Any] = {
    "budget": {"max_tool_calls": 0},
    "policy": {"name": "p", "deny": ["*"]},
    "params": {"maxTokens": 5},
    "model": "scripted:other",
    "fallbacks": ["scripted:other"],
    "priority": 1,
    "timeout_s": 1,
    "timeoutS": 1,
    "key": "once",
    "credentials": {"scripted": "a key of this message"},
    "approvalHandler": "any",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_message_with_a_setting_that_the_bus_does_not_take_is_refused_and_not_sent_without_it(setting: str) -> None:
    """Given a message by the bus with a limit or another setting of `send`, when it is asked for, then nothing runs."""

    async def work(runtime: Runtime) -> None:
        image = await _image(runtime)
        before = runtime.log.position
        data = {"imageId": image.imageId, "content": "hi", setting: SETTINGS[setting]}
        response = await runtime.request("message_send_request", data)
        assert f"no {setting}:" in response.data.error
        assert runtime.log.position == before
        response = await runtime.request("message_send_request", {**data, setting: None})
        assert response.data.error is None

    run(work)


# -- agents --


def test_agents_are_found_listed_and_destroyed() -> None:
    async def work(runtime: Runtime) -> None:
        images = [await _image(runtime) for _ in range(2)]
        agents = [
            (await runtime.request("image_run_request", {"imageId": image.imageId})).data.agentId for image in images
        ]
        listed = (await runtime.request("agent_list_request", {"containerId": "acme"})).data.agents
        assert [(each.agentId, each.containerId, each.imageId) for each in listed] == [
            (agent, "acme", image.imageId) for agent, image in zip(agents, images, strict=True)
        ]
        got = (await runtime.request("agent_get_request", {"agentId": agents[0]})).data
        assert (got.exists, got.containerId, got.agentId) == (True, "acme", agents[0])
        assert (await runtime.request("agent_destroy_request", {"agentId": agents[0]})).data.success is True
        assert (await runtime.request("agent_get_request", {"agentId": agents[0]})).data.exists is False
        assert (await runtime.request("agent_destroy_request", {"agentId": agents[0]})).data.success is False
        shown = (await runtime.request("image_get_request", {"imageId": images[0].imageId})).data.record
        assert shown.online is False, "destroying an agent leaves nothing stale behind"
        await runtime.request("agent_destroy_all_request", {"containerId": "acme"})
        assert (await runtime.request("agent_list_request", {"containerId": "acme"})).data.agents == []

    run(work)


def test_interrupting_nobody_succeeds() -> None:
    async def work(runtime: Runtime) -> None:
        image = await _image(runtime)
        offline = await runtime.request("agent_interrupt_request", {"imageId": image.imageId})
        assert offline.data.error is None and "agentId" not in offline.data
        unknown = await runtime.request("agent_interrupt_request", {"agentId": "agent_no"})
        assert unknown.data.error is None
        heard = Heard(runtime)
        await runtime.request("image_run_request", {"imageId": image.imageId})
        idle = await runtime.request("agent_interrupt_request", {"imageId": image.imageId})
        assert idle.data.agentId and not heard.of("interrupted", "conversation_interrupted")

    run(work)


def test_an_interrupt_keeps_the_partial_text_and_ends_as_interrupted() -> None:
    async def work(runtime: Runtime) -> None:
        image = await _image(runtime)
        heard = Heard(runtime)
        await runtime.request("message_send_request", {"imageId": image.imageId, "content": "hi"})
        await heard.until("text_delta")
        response = await runtime.request("agent_interrupt_request", {"imageId": image.imageId})
        assert response.data.error is None and response.data.agentId
        end = await heard.until("conversation_end")
        assert end.data.reason == "interrupted"
        assert [event.data.reason for event in heard.of("conversation_interrupted")] == ["user_interrupt"]
        messages = (await runtime.request("image_messages_request", {"imageId": image.imageId})).data.messages
        assert messages[-1].content[0].text == "partial "
        gate.opened.set()
        await runtime.request("message_send_request", {"imageId": image.imageId, "content": "go on"})
        assert (await heard.until("conversation_end", 2)).data.reason == "completed"

    gate = Gate()
    run(work, models=Models({"scripted": gate}))


# -- the protocol itself --


def test_only_a_time_out_raises() -> None:
    async def work(runtime: Runtime) -> None:
        async def never(data: object, request: object) -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        runtime.bus.on_command("slow_request", never)
        with pytest.raises(RequestTimeout, match="Request timeout: slow_request"):
            await runtime.request("slow_request", {}, timeout_s=0.01)

    run(work)


def test_an_unknown_request_is_refused_at_once_with_what_was_perhaps_meant() -> None:
    async def work(runtime: Runtime) -> None:
        with pytest.raises(BadInput, match="image_get_request"):
            await runtime.request("image_gte_request", {})

    run(work)


@pytest.mark.parametrize("value", [7, "", "x" * 300, "a\nb", ["a"]])
def test_ids_that_are_no_ids_are_refused(value: object) -> None:
    async def work(runtime: Runtime) -> None:
        response = await runtime.request("image_get_request", {"imageId": value})
        assert "imageId must be" in response.data.error

    run(work)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"modle": "x"}, "no field 'modle'"),
        ({"model": "gpt-5"}, "provider:model"),
        ({"model": "nobody:x"}, "no provider"),
        ({"temperature": 3}, "temperature must be"),
        ({"temperature": "warm"}, "does not fit"),
        ({"maxTokens": 0}, "maxTokens"),
        ({"thinking": "a lot"}, "thinking must be"),
        ({"tools": ["nope"]}, "nope"),
        ("x", "must be an object"),
    ],
)
def test_a_definition_that_cannot_work_is_refused_and_nothing_is_stored(config: object, words: str) -> None:
    async def work(runtime: Runtime) -> None:
        response = await runtime.request("image_create_request", {"containerId": "acme", "config": config})
        assert words in response.data.error
        assert runtime.log.position == 0

    run(work)
