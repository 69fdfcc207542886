"""The rules that a session was last run under, as far as whoever ran it gave them: what holds until others are given.

They are in the session's own events, so that no file has to be found again, and none that was changed is taken up.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..actors.container import in_force
from ..actors.profiles import resolve
from ..catalog.lookup import Reads
from ..events import codec
from ..events.agent import AgentConfigured
from ..events.container import PolicySet
from ..events.errors import BadInput
from ..events.image import ImageCreated, ImageUpdated
from ..events.message import Event, Recorded
from ..events.policy import Policy
from ..events.session import SessionCreated
from ..identity.pane import container_stream
from ..projections.projection import PAGE


def given_of(log: Reads, session_id: str) -> tuple[Policy, ...]:
    """The layers around those of the container and the image, outermost first, written out; none where none were.

    What cannot be told from a layer that was given is taken for one: it only narrows.
    """
    layers: tuple[Policy, ...] = ()
    image_id, container, before = "", "", 0
    for recorded in _events(log, f"session-{session_id}", SessionCreated, AgentConfigured):
        match recorded.data:
            case SessionCreated() as created:
                image_id, container = created.image_id, container_stream(recorded.context.scope, created.container_id)
            case AgentConfigured(definition=definition):
                layers, before = definition.policy, recorded.position
    if not layers:
        return ()
    inner = _of_container(log, container, before), _of_image(log, image_id, before)
    own = len(layers)
    for policy in reversed(inner):
        if policy is not None and own and layers[own - 1] == _written(layers[: own - 1], policy):
            own -= 1
    return layers[:own]


def _of_container(log: Reads, stream: str, before: int) -> Policy | None:
    policy = None
    for recorded in _events(log, stream, PolicySet):
        if isinstance(recorded.data, PolicySet) and recorded.position < before:
            policy = in_force(recorded.data.policy, recorded.data.version)
    return policy


def _of_image(log: Reads, image_id: str, before: int) -> Policy | None:
    policy = None
    for recorded in _events(log, f"image-{image_id}", ImageCreated, ImageUpdated):
        if isinstance(recorded.data, ImageCreated | ImageUpdated) and recorded.position < before:
            policy = recorded.data.config.policy
    return policy


def _written(outer: tuple[Policy, ...], policy: Policy) -> Policy | None:
    """A layer as it is recorded under those around it; None where it cannot be."""
    try:
        return resolve((*outer, policy))[-1]
    except BadInput:
        return None


def _events(log: Reads, stream: str, *kinds: type[Event]) -> Iterator[Recorded]:
    """What was recorded with one of these kinds, oldest first; nothing else is unpacked."""
    names, at = {kind.type for kind in kinds}, 0
    while page := log.read(stream, after=at, limit=PAGE):
        for stored in page:
            if any(row.type in names for row in stored.batch.rows):
                yield from codec.unpack(stored, digests=False)
        at = page[-1].batch.last
