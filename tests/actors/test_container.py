"""A container: its images and the tools it knows."""

from __future__ import annotations

from reenact.actors.container import CONTAINER
from reenact.events.container import (
    AddImage,
    ContainerCreated,
    CreateContainer,
    ImageAdded,
    ImageRemoved,
    RegisterTools,
    RemoveImage,
    ToolRegistered,
)
from reenact.events.image import DeleteImage
from reenact.events.message import Command, Context, Event
from reenact.events.tool import ToolSpec
from tests.given import Given
from tests.given import given as given_any


def given(*past: Event | Command) -> Given:
    return given_any(*past, noun=CONTAINER)


def tool(name: str, version: str = "1") -> ToolSpec:
    return ToolSpec(name=name, description=f"does {name}", parameters={"type": "object"}, version=version)


def add(image: str) -> AddImage:
    return AddImage(container_id="acme", image_id=image, created_at=2)


def register(*tools: ToolSpec) -> RegisterTools:
    return RegisterTools(container_id="acme", created_at=3, tools=tools)


CREATE = CreateContainer(container_id="acme", created_at=1)


def test_a_container_is_created_once() -> None:
    given().when(CREATE).then(ContainerCreated(container_id="acme", created_at=1)).when(CREATE).then_nothing()


def test_a_container_that_is_there_keeps_its_birthday() -> None:
    later = CreateContainer(container_id="acme", created_at=99)
    stream = given(CREATE).when(later).then_nothing()
    assert stream.states[0].created_at == 1


def test_the_first_image_creates_the_container_with_it() -> None:
    given().when(add("img_1")).then(ContainerCreated(container_id="acme", created_at=2), ImageAdded(image_id="img_1"))


def test_an_image_is_added_once_and_in_order() -> None:
    stream = given(CREATE, add("img_2")).when(add("img_1")).then(ImageAdded(image_id="img_1"))
    stream.when(add("img_2")).then_nothing()
    assert list(stream.states[0].images) == ["img_2", "img_1"]


def test_an_image_is_removed_once() -> None:
    stream = given(add("img_1"), add("img_2")).when(RemoveImage(image_id="img_1"))
    stream.then(ImageRemoved(image_id="img_1")).when(RemoveImage(image_id="img_1")).then_nothing()
    assert list(stream.states[0].images) == ["img_2"]


def test_an_image_that_was_never_there_is_removed_in_silence() -> None:
    given().when(RemoveImage(image_id="img_1")).then_nothing()


def test_an_image_that_was_removed_can_come_back() -> None:
    given(add("img_1"), RemoveImage(image_id="img_1")).when(add("img_1")).then(ImageAdded)


def test_tools_are_registered_once_a_version() -> None:
    stream = given(CREATE).when(register(tool("refund"), tool("book"))).then(ToolRegistered, ToolRegistered)
    stream.when(register(tool("refund"), tool("book"))).then_nothing()
    stream.when(register(tool("refund", "2"), tool("book"))).then(ToolRegistered(tool=tool("refund", "2")))
    assert dict(stream.states[0].tools) == {"refund": "2", "book": "1"}


def test_a_tool_can_go_back_to_an_earlier_version() -> None:
    given(register(tool("refund")), register(tool("refund", "2"))).when(register(tool("refund"))).then(ToolRegistered)


def test_registering_a_tool_creates_the_container() -> None:
    given().when(register(tool("refund"))).then(ContainerCreated(container_id="acme", created_at=3), ToolRegistered)


def test_registering_no_tools_creates_nothing() -> None:
    given().when(register()).then_nothing()


def test_one_tool_named_twice_in_one_command_is_registered_as_said() -> None:
    stream = given(CREATE).when(register(tool("refund", "1"), tool("refund", "2")))
    assert dict(stream.states[0].tools) == {"refund": "2"}


def test_a_command_of_another_noun_changes_nothing() -> None:
    given(CREATE).when(DeleteImage()).then_nothing()


def test_a_container_owes_the_world_nothing_and_its_context_names_it() -> None:
    stream = given(CREATE, add("img_1"), register(tool("refund"))).owes()
    assert CONTAINER.context(stream.states, Context()).container_id == "acme"
    assert CONTAINER.job(stream.states) is None
