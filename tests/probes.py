"""Everything that can be done through a view of a runtime, each tried with the names of another tenant's things."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from reenact.events.errors import NotFound, ReenactError
from reenact.events.image import ImageConfig
from reenact.events.session import CancelJob
from reenact.identity.scoped import Acting
from reenact.requests import NAMES
from tests.tenants import SECRET, Theirs, busy

TURN_S = 5.0


async def _listened(view: Acting, listen: Callable[[Callable[[Any], Any]], Any]) -> list[str]:
    """What a subscription hears while the other tenant is busy; its own things it hears."""
    heard: list[Any] = []
    with listen(heard.append):
        await busy(view)
    return [event.type for event in heard if SECRET in repr(event) or event.context.scope != view.scope]


async def _streamed(view: Acting) -> list[str]:
    live = view.stream()
    await busy(view)
    await (await view.image("own")).send("mine")
    seen = []
    async for event in live:
        seen.append(event)
        if event.type == "job_succeeded":
            break
    return [event.type for event in seen if event.context.scope != view.scope]


async def _followed(view: Acting) -> list[str]:
    await busy(view)
    await (await view.image("own")).send("mine")
    seen = []
    async for recorded in view.follow():
        seen.append(recorded)
        if recorded.type == "job_succeeded":
            break
    return [recorded.type for recorded in seen if recorded.context.scope != view.scope]


async def _logged(view: Acting, theirs: Theirs) -> object:
    log = view.log
    streams = (f"session-{theirs.session}", f"image-{theirs.image}", f"container-{theirs.container}")
    return [
        [(log.read(stream), log.head(stream), log.has(stream)) for stream in streams],
        [stored for stored in log.read_all() if stored.batch.head.context.scope != view.scope],
        [log.keyed(scope, f"send:{theirs.key}") for scope in ("alice", view.scope)],
        [stream for stream in log.streams() if not log.has(stream)],
    ]


async def _images(view: Acting, theirs: Theirs) -> object:
    return [[state.image_id for state in await view.images(which)] for which in (theirs.container,)] + [
        theirs.image in [state.image_id for state in await view.images()]
    ]


Probe = Callable[[Acting, Theirs], Awaitable[object]]

PROBES: dict[str, Probe] = {
    "on": lambda view, theirs: _listened(view, lambda hear: view.on(["text_delta", "job_queued"], hear)),
    "on_any": lambda view, theirs: _listened(view, view.on_any),
    "once": lambda view, theirs: _listened(view, lambda hear: view.once("job_queued", hear)),
    "stream": lambda view, theirs: _streamed(view),
    "follow": lambda view, theirs: _followed(view),
    "log": _logged,
    "ask": lambda view, theirs: view.ask(f"session-{theirs.session}", CancelJob(job_id=theirs.job)),
    "create_container": lambda view, theirs: view.create_container(theirs.container),
    "container_state": lambda view, theirs: view.container_state(theirs.container),
    "container_ids": lambda view, theirs: view.container_ids(),
    "image": lambda view, theirs: view.image(theirs.name, container=theirs.container),
    "open_image": lambda view, theirs: view.open_image(theirs.image, theirs.session),
    "image_named": lambda view, theirs: view.image_named(theirs.name, container=theirs.container),
    "create_image": lambda view, theirs: view.create_image(
        theirs.container, ImageConfig(model="scripted:any"), alias=theirs.name
    ),
    "find_image": lambda view, theirs: view.find_image(theirs.image),
    "image_state": lambda view, theirs: view.image_state(theirs.image),
    "images": _images,
    "update_image": lambda view, theirs: view.update_image(theirs.image, {"name": "stolen"}),
    "delete_image": lambda view, theirs: view.delete_image(theirs.image),
    "new_session": lambda view, theirs: view.new_session(theirs.image, alias=theirs.alias),
    "send": lambda view, theirs: _sent(view, theirs),
    "sending": lambda view, theirs: view.sending(theirs.image, "hi", session_id=theirs.session),
    "messages": lambda view, theirs: view.messages(theirs.session),
    "events": lambda view, theirs: view.events(theirs.session, after=1),
    "wake": lambda view, theirs: view.wake(theirs.image, theirs.session),
    "session_state": lambda view, theirs: view.session_state(theirs.session),
    "resume": lambda view, theirs: view.resume(theirs.session),
    "stop_image": lambda view, theirs: view.stop_image(theirs.image),
    "stop_agent": lambda view, theirs: view.stop_agent(theirs.agent),
    "interrupt": lambda view, theirs: view.interrupt(theirs.image, session_id=theirs.session),
    "cancel": lambda view, theirs: view.cancel(theirs.session, theirs.job),
    "resolve": lambda view, theirs: view.resolve(theirs.session, theirs.call, "ok"),
    "agent_of": lambda view, theirs: view.agent_of(theirs.image),
    "agents": lambda view, theirs: view.agents(theirs.container),
    "find_agent": lambda view, theirs: view.find_agent(theirs.agent),
    "replay": lambda view, theirs: view.replay(theirs.session),
    "actions": lambda view, theirs: view.actions(theirs.session),
    "pending": lambda view, theirs: view.pending(),
    "action": lambda view, theirs: view.action(f"{theirs.session}:{theirs.action}"),
    "resolve_action": lambda view, theirs: view.resolve_action(f"{theirs.session}:{theirs.action}", True),
    "cancel_action": lambda view, theirs: view.cancel_action(f"{theirs.session}:{theirs.action}", cancel_job=True),
    "issue_token": lambda view, theirs: view.issue_token(f"{theirs.session}:{theirs.action}"),
    "grants": lambda view, theirs: view.grants(theirs.session),
    "revoke_grant": lambda view, theirs: view.revoke_grant(f"{theirs.session}:{theirs.grant}"),
    "set_policy": lambda view, theirs: view.set_policy(theirs.container, {"name": "theirs", "deny": ["*"]}),
    "policies_of": lambda view, theirs: view.policies_of(theirs.image),
    "load_tool_policy": lambda view, theirs: view.load_tool_policy(theirs.agent),
    "save_tool_policy": lambda view, theirs: view.save_tool_policy(theirs.image, {"denied_tools": ("look",)}),
    "bring_policy": lambda view, theirs: view.bring_policy(theirs.session),
    "all_actions": lambda view, theirs: view.all_actions(theirs.session),
    "action_of_token": lambda view, theirs: view.action_of_token(theirs.token),
    "session_of": lambda view, theirs: view.session_of(theirs.job),
    "set_budget": lambda view, theirs: view.set_budget({"session_id": theirs.session, "max_cost_total": "1"}),
    "remove_budget": lambda view, theirs: view.remove_budget(session_id=theirs.session),
    "budget": lambda view, theirs: view.budget(),
    "budgets": lambda view, theirs: _said(view.budgets),
    "request": lambda view, theirs: _requested(view, theirs),
}


async def _said(what: object) -> object:
    return what


async def _sent(view: Acting, theirs: Theirs) -> object:
    """From one's own image to a session that is another's, the way in that no image guards; else to another's image."""
    own = await view.image("own")
    try:
        return await (await view.send(own.id, "hi", session_id=theirs.session)).result(TURN_S)
    except NotFound:
        return await view.send(theirs.image, "hi", key=theirs.key)


async def _requested(view: Acting, theirs: Theirs) -> object:
    return [(await view.request(name, _asked(name, theirs))).data for name in sorted(NAMES)]


LISTENING = {"on", "on_any", "once", "stream", "follow"}
"""These give what they heard of others."""

NEITHER_READ_NOR_COMMAND = {
    # Who acts, and how the view begins and ends.
    *("as_", "scoped", "authenticate", "open", "close", "dispose", "context", "scope", "principal", "acting_as", "bus"),
    # The program's own, the same for every tenant.
    *("tools", "default_agent", "base_path", "clock", "new_id"),
    # Of the view's own scope, by its nature: see the test of secrets.
    "secret",
}


def _asked(name: str, theirs: Theirs) -> dict[str, Any]:
    """The data of a request that names another's things wherever it can."""
    return {
        "containerId": theirs.container,
        **({} if name == "container_create_request" else {"imageId": theirs.image}),
        **({"agentId": theirs.agent} if name.startswith("agent_") else {}),
        "content": "hi",
        "updates": {"name": "stolen"},
        "config": {"model": "scripted:any"},
        "idempotencyKey": theirs.key,
        "requestId": f"req {name}",
        "actionId": f"{theirs.session}:{theirs.action}",
        "sessionId": theirs.session,
        "resolution": {"approved": True},
    }


async def outcome(view: Acting, probe: Probe, theirs: Theirs) -> str:
    """What a caller learns, without the names that it used itself and the ids that are made anew each time."""
    try:
        said: object = await asyncio.wait_for(_awaited(probe(view, theirs)), 10)
    except ReenactError as error:
        said = f"{type(error).__name__}: {error}"
    text = repr(said)
    for field in Theirs.__struct_fields__:
        text = re.sub(rf"\b{re.escape(getattr(theirs, field))}\b", f"<{field}>", text)
    return _MADE.sub("<made>", text)


async def _awaited(work: Awaitable[object]) -> object:
    return await work


_MADE = re.compile(r"(?:img|sess|agent|job|container)_[0-9a-f]{32}|\b[0-9a-f]{32}\b|\b1\d{12,15}\b|0x[0-9a-f]+")
