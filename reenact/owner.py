"""Asking whoever owns a log: another process over its local socket; where nobody does, this process meanwhile.

One process at a time owns a log file and takes commands. `answer` is what an owner does with what comes in; `request`
is how anybody asks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .adapters.hosts.caller import MARK, Caller, marked, own_principal
from .adapters.hosts.local import LocalServer, call, serve, socket_path
from .adapters.logs import path_of
from .adapters.logs.owner import owner_of
from .events.errors import AskedInside, BadInput, Owned
from .events.log import Log
from .events.request import TIMEOUT_S
from .requests import NAMES

if TYPE_CHECKING:
    from .runtime import Runtime


DECIDING = frozenset(
    f"{name}_request"
    for name in (
        "action_resolve",
        "action_cancel",
        "grant_revoke",
        "budget_set",
        "budget_remove",
        "image_update",
        "image_delete",
    )
)
"""What only a person and the program may ask: answers, leaves for calls to come, limits, and rules."""

INSIDE_NEVER = DECIDING | {"message_send_request"}
"""What is not taken from a process that a tool may have begun: what decides, and jobs, for nobody knows whose they are
and under which rules."""


REAUTH = "action_reauth"
"""Asked of an owner alone, and never put on the bus, where whoever listens would see the secret in it."""


async def answer(runtime: Runtime, log: Log) -> LocalServer | None:
    """Let other processes of this user put the bus's requests to this owner. None for a log that is no file.

    Whoever can open the socket may open the file, and so owns all that is in it: `<name>_request@<scope>` is asked in
    that scope. What decides is not taken from this process's own tree, where a tool could be asking, and no job is.
    """
    path, announce = getattr(log, "path", None), getattr(log, "announce", None)
    if path is None or announce is None:
        return None

    async def ask(wanted: str, data: Any, caller: Caller) -> Any:
        kind, at, scope = wanted.partition("@")
        if kind not in NAMES and kind != REAUTH:
            raise BadInput(f"The owner of a log answers {', '.join(NAMES)}; not {kind!r}.")
        if data is not None and not isinstance(data, Mapping):
            raise BadInput("The data of a request is an object.")
        scope = scope if at else runtime.scope
        decides = kind in DECIDING or kind == REAUTH
        if (decides or kind in INSIDE_NEVER) and await asyncio.to_thread(caller.inside_of, os.getpid()):
            raise AskedInside
        if decides:
            asked: Runtime = runtime.scoped(scope=scope, principal=caller.principal)
        else:
            asked = runtime.scoped(scope=scope) if at else runtime
        if kind == REAUTH:
            return await _reauth(asked, data or {})
        return msgspec.to_builtins((await asked.request(kind, data)).data)

    server = await serve(socket_path(path), ask)
    announce(server.path)
    return server


async def _reauth(runtime: Runtime, data: Mapping[str, Any]) -> dict[str, Any]:
    action_id, secret, resolution = data.get("actionId"), data.get("secret"), data.get("resolution") or {}
    if not isinstance(action_id, str) or not isinstance(secret, str) or not isinstance(resolution, Mapping):
        raise BadInput("A reauth has an actionId, a secret, both texts, and a resolution, an object.")
    action = await runtime._asking.hand_over(action_id, secret, resolution)
    return {"action": msgspec.to_builtins(action)}


def check_outside(environ: Mapping[str, str] = os.environ) -> None:
    """Raises AskedInside where this process was begun by a call of a tool, as its environment says."""
    call = marked(environ)
    if call not in (None, _own_mark()):
        raise AskedInside(
            f"{' '.join((AskedInside.__doc__ or '').split())} (This process was begun by {str(call)[:200]}.)"
        )


def mark_children() -> None:
    """Whatever this process begins from now on was begun by a tool of its runtime, also where it outlives its parents.
    Only for a program whose every child is one."""
    os.environ.setdefault(MARK, _own_mark())


def _own_mark() -> str:
    return f"process {os.getpid()}"


async def request(
    url: str,
    kind: str,
    data: Mapping[str, Any] | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
    scope: str | None = None,
    look: Callable[[Runtime], Awaitable[object]] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Put one of the bus's requests to the owner of the log at `url`, and give the response's data, `error` included.

    Where another process owns it, that one answers, with its tools and models. Where none does, this process becomes
    the owner for the time of the request, without taking up what is owed. scope: in which it is asked, else in the
    owner's own. options: of `Runtime`, for that case; look(runtime) is awaited before it is closed again.
    Raises RequestTimeout, and what opening a log or reaching its owner raises; AskedInside where what decides, or a
    job, is asked for from within a call of a tool.
    """
    from .runtime import Runtime

    if kind in INSIDE_NEVER:
        check_outside()
    try:
        if scope is not None:
            options["scope"] = scope
        opened = Runtime(url, recover=False, **options)
        opened._keeps_rules = "policy" not in options  # what is asked changes none
        async with opened as runtime:
            asked = runtime.scoped(principal=own_principal()) if kind in DECIDING else runtime
            said = dict(msgspec.to_builtins((await asked.request(kind, data, timeout_s=timeout_s)).data))
            if look is not None:
                await look(runtime)
            return said
    except Owned:
        socket = socket_of(url)
        if socket is None:
            raise
    return dict(await call(socket, kind if scope is None else f"{kind}@{scope}", data, timeout_s=timeout_s))


def socket_of(url: str) -> str | None:
    """Where the owner of a log takes commands, None where nobody does."""
    path = path_of(url)
    owner = None if path is None else owner_of(path)
    return None if owner is None else owner.socket
