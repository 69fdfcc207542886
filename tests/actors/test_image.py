"""An image: the versions of its definition, and its current session."""

from __future__ import annotations

import pytest

from reenact.actors.image import IMAGE
from reenact.events.container import CreateContainer
from reenact.events.errors import Conflict, NotFound
from reenact.events.image import (
    AttachSession,
    CreateImage,
    DeleteImage,
    ImageConfig,
    ImageCreated,
    ImageDeleted,
    ImageUpdated,
    SessionAttached,
    UpdateImage,
)
from reenact.events.message import Command, Context, Event
from tests.given import Given
from tests.given import given as given_any

FIRST, SECOND = ImageConfig(name="first"), ImageConfig(name="second", model="scripted:echo")
CREATE = CreateImage(
    image_id="img_1", container_id="acme", session_id="sess_1", created_at=5, config=FIRST, alias="support"
)
UPDATE = UpdateImage(config=SECOND, updated_at=9)


def given(*past: Event | Command) -> Given:
    return given_any(*past, noun=IMAGE)


def test_an_image_is_created_with_its_first_session_and_definition() -> None:
    stream = (
        given()
        .when(CREATE)
        .then(
            ImageCreated(
                image_id="img_1", container_id="acme", session_id="sess_1", created_at=5, config=FIRST, alias="support"
            )
        )
    )
    state = stream.states[0]
    assert (state.version, state.session_id, state.updated_at, state.config) == (1, "sess_1", 5, FIRST)


def test_an_image_cannot_be_created_twice() -> None:
    given(CREATE).when(CREATE).then_refused(Conflict, "img_1")


def test_an_image_that_was_deleted_cannot_be_created_again() -> None:
    given(CREATE, DeleteImage()).when(CREATE).then_refused(Conflict)


def test_every_change_of_the_definition_makes_a_new_version() -> None:
    stream = given(CREATE).when(UPDATE).then(ImageUpdated(version=2, updated_at=9, config=SECOND))
    stream.when(UpdateImage(config=FIRST, updated_at=10)).then(ImageUpdated(version=3, updated_at=10, config=FIRST))
    assert stream.states[0].created_at == 5 and stream.states[0].updated_at == 10


def test_the_same_definition_again_changes_nothing() -> None:
    given(CREATE, UPDATE).when(UPDATE).then_nothing()


def test_another_session_becomes_the_current_one() -> None:
    stream = given(CREATE).when(AttachSession(session_id="sess_2")).then(SessionAttached(session_id="sess_2"))
    stream.when(AttachSession(session_id="sess_2")).then_nothing()
    stream.when(AttachSession(session_id="sess_1")).then(SessionAttached)


def test_an_image_is_deleted_once() -> None:
    given(CREATE).when(DeleteImage()).then(ImageDeleted(image_id="img_1")).when(DeleteImage()).then_nothing()


def test_deleting_an_image_that_was_never_there_changes_nothing() -> None:
    given().when(DeleteImage()).then_nothing()


@pytest.mark.parametrize("command", [UPDATE, AttachSession(session_id="sess_2")])
def test_an_image_that_is_not_there_cannot_be_changed(command: Command) -> None:
    given().when(command).then_refused(NotFound)
    given(CREATE, DeleteImage()).when(command).then_refused(NotFound, "img_1")


def test_a_command_of_another_noun_changes_nothing() -> None:
    given(CREATE).when(CreateContainer(container_id="acme", created_at=1)).then_nothing()


def test_an_image_owes_the_world_nothing_and_its_context_names_it() -> None:
    stream = given(CREATE, UPDATE).owes()
    context = IMAGE.context(stream.states, Context())
    assert (context.container_id, context.image_id) == ("acme", "img_1")
    assert IMAGE.context(IMAGE.initial, Context()) == Context()
