"""A person's decision from the command line: put to whoever owns the log, or recorded here where nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .actors.question import check_resolution
from .adapters.hosts.caller import own_principal
from .adapters.hosts.local import call
from .adapters.logs import open_reader, path_of
from .adapters.logs.owner import owner_of
from .asking import parts_of
from .events.errors import NotFound, Owned, Refused
from .owner import REAUTH, check_outside
from .pane import DEFAULT
from .toolbox import Needed, sources, tools_from

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
        return _plain(asyncio.run(_hand_over(url, action_id, {**data, "secret": secret}))["action"]), False
    found: list[Any] = []
    if resolution.get("arguments") is not None:
        given = list(tools)
        found = [tool for path in given for tool in tools_from(path).values()] if given else _tools(url, action_id)
    response, left = asyncio.run(_put(url, "action_resolve_request", data, _scope(url, action_id), found))
    return _plain(response["action"]), left


def put(url: str, kind: str, data: Row) -> Row:
    """Put a request about `data["actionId"]` in the same way, and give its response. Raises Refused for its error."""
    check_outside()
    return asyncio.run(_put(url, kind, data, _scope(url, data["actionId"]), []))[0]


async def _put(url: str, kind: str, data: Row, scope: str, tools: list[Any]) -> tuple[Row, bool]:
    from .runtime import Runtime

    try:
        opened = Runtime(url, recover=False, armed=False, tools=tools, scope=scope)
        opened._keeps_rules = True  # an answer changes no rules
        async with opened as runtime:
            person = runtime.scoped(principal=own_principal())
            said = _answer((await person.request(kind, data)).data)
            state = await runtime.session_state(parts_of(data["actionId"])[0])
            return said, state.running is not None or bool(state.queue)
    except Owned:
        path = path_of(url)
        owner = owner_of(path) if path is not None else None
        if owner is None or owner.socket is None:
            raise
    return _answer(await call(owner.socket, f"{kind}@{scope}", data, timeout_s=30.0)), False


async def _hand_over(url: str, action_id: str, data: Row) -> Row:
    path = path_of(url)
    owner = owner_of(path) if path is not None else None
    if owner is None or owner.socket is None:
        raise Refused(
            "No process works on this log, and a secret is kept in the memory of one that does. Nothing was answered."
            " `reenact resume` goes on at a terminal and asks there."
        )
    return _answer(await call(owner.socket, f"{REAUTH}@{_scope(url, action_id)}", data, timeout_s=30.0))


def _answer(response: Any) -> Row:
    plain = _plain(response)
    if plain.get("error") is not None:
        raise Refused(plain["error"])
    return plain


def _plain(response: Any) -> Row:
    plain: Row = msgspec.to_builtins(response)
    return plain


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
    reader = open_reader(url)
    try:
        first = reader.read(f"session-{session_id}", limit=1)
    finally:
        reader.close()
    return first[0].batch.head.context.scope if first else DEFAULT


def _tools(url: str, action_id: str) -> list[Any]:
    """The tools of an action's session, from the file that the log names."""
    session_id, _ = parts_of(action_id)
    reader = open_reader(url)
    try:
        needed = Needed(reader, session_id)
        return [tool for path in sources(reader, needed) for tool in tools_from(path).values()]
    except NotFound:
        return []
    finally:
        reader.close()
