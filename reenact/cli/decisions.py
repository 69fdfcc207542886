"""A person's decision from the command line: put to whoever owns the log, or recorded here where nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..actors.question import check_resolution
from ..adapters.hosts.local import call
from ..adapters.logs import open_reader
from ..events.errors import NotFound, Refused
from ..identity.pane import DEFAULT
from ..owner import REAUTH, check_outside, request, socket_of
from ..people.asking import parts_of
from ..tools.toolbox import Needed, sources, tools_from

if TYPE_CHECKING:
    from ..runtime import Runtime

Row = dict[str, Any]


def decide(
    url: str,
    action_id: str,
    resolution: Mapping[str, Any],
    digest: str | None,
    *,
    tools: Iterable[str] = (),
    secret: str | None = None,
) -> tuple[Row, bool]:
    """Answer a question. Returns it as it stands then, and whether work of its session is left that no process does.

    Where nobody owns it, it is opened disarmed: what is said is recorded, and nothing is run. Arguments that a person
    wrote are checked there with `tools`, files of Python, or with the file that the session was run with. secret: what
    a reauth asks for; the owner's memory is the one place it goes to, so there must be one. Raises what refuses it,
    BadResolution for what is no answer to this question before anybody is asked.
    """
    check_outside()
    _check(url, action_id, resolution)
    data: Row = {"actionId": action_id, "resolution": dict(resolution), "digest": digest}
    if secret is not None:
        return asyncio.run(_hand_over(url, action_id, {**data, "secret": secret}))["action"], False
    found: list[Any] = []
    if resolution.get("arguments") is not None:
        given = list(tools)
        found = [tool for path in given for tool in tools_from(path).values()] if given else _tools(url, action_id)
    left = False

    async def look(runtime: Runtime) -> None:
        nonlocal left
        state = await runtime.session_state(parts_of(action_id)[0])
        left = state.running is not None or bool(state.queue)

    return put(url, "action_resolve_request", data, look=look, tools=found)["action"], left


def put(url: str, kind: str, data: Row, **options: Any) -> Row:
    """Put a request about `data["actionId"]` in the same way, and give its response. Raises Refused for its error.
    options: see `owner.request`."""
    check_outside()
    scope = _scope(url, data["actionId"])
    return _answer(asyncio.run(request(url, kind, data, scope=scope, armed=False, **options)))


async def _hand_over(url: str, action_id: str, data: Row) -> Row:
    socket = socket_of(url)
    if socket is None:
        raise Refused(
            "No process works on this log, and a secret is kept in the memory of one that does. Nothing was answered."
            " `reenact resume` goes on at a terminal and asks there."
        )
    return _answer(await call(socket, f"{REAUTH}@{_scope(url, action_id)}", data))


def _answer(response: Row) -> Row:
    if response.get("error") is not None:
        raise Refused(response["error"])
    return response


def _check(url: str, action_id: str, resolution: Mapping[str, Any]) -> None:
    """Whether it is an answer to this question at all, while that waits: the owner's word on it is a text alone."""
    from .reading import Reading

    with Reading(url) as reading:
        row, _ = reading.action(action_id)
    if row["status"] == "pending":
        of_call = row["digest"] is not None and row["tool"] is not None
        check_resolution(row["type"], row["payload"], resolution, of_call=of_call)


def _scope(url: str, action_id: str) -> str:
    """Whose question it is: whoever has the file decides for all scopes in it."""
    session_id, _ = parts_of(action_id)
    with closing(open_reader(url)) as reader:
        first = reader.read(f"session-{session_id}", limit=1)
    return first[0].batch.head.context.scope if first else DEFAULT


def _tools(url: str, action_id: str) -> list[Any]:
    """The tools of an action's session, from the file that the log names."""
    session_id, _ = parts_of(action_id)
    with closing(open_reader(url)) as reader:
        try:
            needed = Needed(reader, session_id)
            return [tool for path in sources(reader, needed) for tool in tools_from(path).values()]
        except NotFound:
            return []
