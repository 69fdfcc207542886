"""A person's decision from the command line: put to whoever owns the log, or recorded here where nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from .adapters.hosts.caller import own_principal
from .adapters.hosts.local import call
from .adapters.logs import open_reader, path_of
from .adapters.logs.owner import owner_of
from .asking import parts_of
from .events.errors import NotFound, Owned, Refused
from .owner import check_outside
from .pane import DEFAULT
from .toolbox import Needed, sources, tools_from

Row = dict[str, Any]


def decide(url: str, action_id: str, resolution: Mapping[str, Any], digest: str | None) -> tuple[Row, bool]:
    """Answer a question. Returns it as it stands then, and whether another process owns the log and goes on with it.

    Where nobody owns it, it is opened disarmed: what is said is recorded, and nothing is run. Arguments that a person
    wrote are checked there with the file of tools that the session was run with. Raises what refuses it.
    """
    check_outside()
    data = {"actionId": action_id, "resolution": dict(resolution), "digest": digest}
    return asyncio.run(_decide(url, action_id, data))


async def _decide(url: str, action_id: str, data: Row) -> tuple[Row, bool]:
    from .runtime import Runtime

    scope = _scope(url, action_id)
    tools = _tools(url, action_id) if data["resolution"].get("arguments") is not None else []
    try:
        async with Runtime(url, recover=False, armed=False, tools=tools, scope=scope) as runtime:
            person = runtime.scoped(principal=own_principal())
            response = (await person.request("action_resolve_request", data)).data
            return _answer(response), False
    except Owned:
        path = path_of(url)
        owner = owner_of(path) if path is not None else None
        if owner is None or owner.socket is None:
            raise
    return _answer(await call(owner.socket, f"action_resolve_request@{scope}", data, timeout_s=30.0)), True


def _answer(response: Any) -> Row:
    import msgspec

    plain: Row = msgspec.to_builtins(response)
    if plain.get("error") is not None:
        raise Refused(plain["error"])
    action: Row = plain["action"]
    return action


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
