"""Images: found by name, made, changed, deleted; the definition of each moment is what the log names."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact import Runtime
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.errors import BadInput
from reenact.events.log import MemoryStore
from reenact.events.model import ModelRequest
from tests.runtimes import CALL, run, weather


def test_an_image_is_opened_by_its_name_and_made_where_there_is_none() -> None:
    async def work(runtime: Runtime) -> None:
        first = await runtime.image("support", container="acme", instructions="Be kind.")
        again = await runtime.image("support", container="acme")
        other = await runtime.image("support", container="other")
        assert first.id == again.id != other.id
        state = await runtime.image_state(first.id)
        assert (state.config.name, state.config.system_prompt, state.version) == ("support", "Be kind.", 1)
        changed = await runtime.image("support", container="acme", temperature=0.5)
        assert changed.id == first.id
        assert (await runtime.image_state(first.id)).config.params.temperature == 0.5

    run(work)


def test_a_name_taken_by_many_at_once_is_one_image() -> None:
    async def work(runtime: Runtime) -> None:
        images = await asyncio.gather(*(runtime.image("support") for _ in range(20)))
        assert len({image.id for image in images}) == 1

    run(work)


def test_the_name_of_a_deleted_image_can_be_used_again() -> None:
    async def work(runtime: Runtime) -> None:
        first = await runtime.image("support")
        await runtime.delete_image(first.id)
        second = await runtime.image("support")
        assert second.id != first.id and (await runtime.image("support")).id == second.id

    run(work)


NAMES = st.sampled_from(["a", "a/a", "a#2", "a#3"])


@given(st.lists(st.tuples(NAMES, NAMES, st.booleans()), max_size=6))
def test_a_name_means_one_image_in_one_container_whatever_others_are_called(
    wanted: list[tuple[str, str, bool]],
) -> None:
    """A slash or a number sign in a name makes it no other name, also where images were deleted meanwhile."""

    async def work(runtime: Runtime) -> None:
        there: dict[tuple[str, str], str] = {}
        for container, name, gone in wanted:
            image = await runtime.image(name, container=container)
            state = await runtime.image_state(image.id)
            assert (state.container_id, state.alias) == (container, name)
            assert there.get((container, name), image.id) == image.id
            assert image.id not in {known for other, known in there.items() if other != (container, name)}
            there[container, name] = image.id
            if gone:
                await runtime.delete_image(there.pop((container, name)))

    run(work)


def test_images_and_their_conversations_are_there_after_a_restart() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> str:
        bot = await runtime.image("support")
        assert (await bot.send("hi")).text == "Hello there."
        return bot.session_id

    async def after(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        assert bot.session_id == session_id
        assert [message.role for message in await bot.messages()] == ["user", "assistant"]
        assert (await bot.send("again")).status == "succeeded"
        assert len(await bot.messages()) == 4
        assert (await runtime.replay(session_id)).identical

    session_id = run(before, store=store)
    run(after, store=store)


def test_two_changes_of_a_definition_at_once_both_count() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        changes = [{"name": "N"}, {"description": "D"}, {"temperature": 0.5}]
        await asyncio.gather(*(runtime.update_image(bot.id, change) for change in changes))
        config = (await runtime.image_state(bot.id)).config
        assert (config.name, config.description, config.params.temperature) == ("N", "D", 0.5)

    run(work)


def test_a_setting_of_a_model_that_nobody_knows_is_refused_by_name_wherever_it_stands() -> None:
    """Given a setting with a typo, in `params` or beside it, when an image is made or changed, then it is refused."""

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support", params={"max_tokens": 5, "toolChoice": "none"})
        before = runtime.log.position
        for wrong in ({"params": {"max_token": 5}}, {"max_token": 5}):
            with pytest.raises(BadInput, match="'max_token'"):
                await runtime.update_image(bot.id, wrong)
            with pytest.raises(BadInput, match="'max_token'"):
                await runtime.image("another", config=wrong)
        assert runtime.log.position == before
        params = (await runtime.image_state(bot.id)).config.params
        assert (params.max_tokens, params.tool_choice) == (5, "none")

    run(work)


def test_what_the_model_is_called_with_is_what_the_log_names() -> None:
    """Fails where the image of the moment is used: the log would name a version that the model never saw."""
    saw: list[str] = []
    script = Scripted(CALL, repeat=True)

    class Watched:
        def stream(self, request: ModelRequest) -> Any:
            saw.append(request.system)
            return script.stream(request)

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support", instructions="v1")
        updated = asyncio.Event()

        async def update(event: Any) -> None:
            await runtime.update_image(bot.id, {"systemPrompt": "v2"})
            updated.set()

        runtime.once("tool_started", update)
        await bot.send("go")
        await updated.wait()
        await bot.send("go")
        versions = [each.data.image_version for each in await bot.events() if each.type == "model_called"]
        assert saw == [f"v{version}" for version in versions] and versions[:2] == [1, 1] and versions[-1] == 2

    run(work, models=Models({"scripted": Watched()}), tools=[weather])
