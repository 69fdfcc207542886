"""The requests of the bus, each with its response: what may be asked by name and with plain data.

Every one is a few commands to actors. What fails is told in the response's `error`; what is already so succeeds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .actors.image import State as ImageState
from .adapters.tools.acting import acting
from .catalog.agents import Awake
from .catalog.unreadable import passed_over, with_each
from .events.action import AGENT_PRINCIPALS
from .events.errors import BadInput, NotFound
from .events.message import BusEvent
from .given import checked_text, config_of, content_of
from .projections.asking import asking
from .sender import MessageOptions

if TYPE_CHECKING:
    from .runtime import Runtime

Asked = Mapping[str, Any]
Answer = dict[str, Any]


def register(runtime: Runtime) -> None:
    """Make the runtime's bus answer all of them."""
    for name, answer in _ANSWERS.items():
        runtime.bus.on_command(f"{name}_request", _responder(runtime, answer))


def _responder(
    runtime: Runtime, answer: Callable[[Runtime, Asked], Awaitable[Answer]]
) -> Callable[[Asked, BusEvent], Awaitable[Answer]]:
    async def respond(data: Asked, request: BusEvent) -> Answer:
        # On whose behalf is in the envelope, which its caller cannot write; what the data says of it is not looked at.
        whose = request.context
        agent = whose.principal.startswith(AGENT_PRINCIPALS)
        principal = runtime.principal if agent else whose.principal
        same = (whose.scope, principal) == (runtime.scope, runtime.principal)
        on_behalf = runtime if same else runtime.scoped(scope=whose.scope, principal=principal)
        if agent:  # it is answered elsewhere than where it was asked
            with acting(whose.principal):
                return await answer(on_behalf, data)
        return await answer(on_behalf, data)

    return respond


# -- containers --


async def _container_create(runtime: Runtime, data: Asked) -> Answer:
    container_id = _text(data, "containerId", None) or runtime.new_id("container")
    await runtime.create_container(container_id)
    return {"containerId": container_id}


async def _container_get(runtime: Runtime, data: Asked) -> Answer:
    container_id = _text(data, "containerId")
    state = await runtime.container_state(container_id)
    return {"containerId": container_id, "exists": state.container_id is not None}


async def _container_list(runtime: Runtime, data: Asked) -> Answer:
    return {"containerIds": await runtime.container_ids()}


# -- images --


async def _image_create(runtime: Runtime, data: Asked) -> Answer:
    container_id = _text(data, "containerId")
    state = await runtime.create_image(container_id, config_of(data.get("config"), runtime.default_agent))
    return {"record": await _record(runtime, state), "__subscriptions": [state.session_id]}


async def _image_run(runtime: Runtime, data: Asked) -> Answer:
    image_id = _text(data, "imageId")
    agent_id, reused = await runtime.wake(image_id)
    return {"imageId": image_id, "agentId": agent_id, "reused": reused}


async def _image_stop(runtime: Runtime, data: Asked) -> Answer:
    image_id = _text(data, "imageId")
    await runtime.stop_image(image_id)
    return {"imageId": image_id}


async def _image_update(runtime: Runtime, data: Asked) -> Answer:
    image_id = _text(data, "imageId")
    changes = data.get("updates")
    state = await runtime.update_image(image_id, {} if changes is None else changes)
    return {"record": await _record(runtime, state)}


async def _image_list(runtime: Runtime, data: Asked) -> Answer:
    container_id = _text(data, "containerId", None)
    states = await runtime.images(container_id)
    records = [await _record(runtime, state) for state in states]
    return {"records": records, "__subscriptions": [state.session_id for state in states]}


async def _image_get(runtime: Runtime, data: Asked) -> Answer:
    state = await runtime.find_image(_text(data, "imageId"))
    if state is None:
        return {"record": None, "__subscriptions": []}
    return {"record": await _record(runtime, state), "__subscriptions": [state.session_id]}


async def _image_delete(runtime: Runtime, data: Asked) -> Answer:
    image_id = _text(data, "imageId")
    await runtime.delete_image(image_id)
    return {"imageId": image_id}


async def _image_messages(runtime: Runtime, data: Asked) -> Answer:
    image_id = _text(data, "imageId")
    state = await runtime.image_state(image_id)
    messages = await runtime.messages(state.session_id)
    return {"imageId": image_id, "messages": [msgspec.to_builtins(message) for message in messages]}


# -- agents --


async def _message_send(runtime: Runtime, data: Asked) -> Answer:
    image_id, session_id = await _addressed(runtime, data)
    if image_id is None:
        raise NotFound(f"Agent not found: {data.get('agentId')}")
    for name in _SETTINGS:
        if data.get(name) is not None:  # sent without it, it would run without that limit
            raise BadInput(f"A message by the bus takes no {name}: use send() for that.")
    content = content_of(data.get("content"))
    key = _text(data, "idempotencyKey", None)
    run = await runtime.send(image_id, content, session_id=session_id, key=key)
    await run.accepted()
    agent_id = _text(data, "agentId", None) if session_id is not None else await runtime.agent_of(image_id)
    return {"imageId": image_id, "agentId": agent_id, "jobId": run.job_id}


_SETTINGS = tuple(dict.fromkeys((*MessageOptions.__annotations__, "timeoutS", "approvalHandler")))
"""What `send` takes of a message, in either spelling."""


async def _agent_interrupt(runtime: Runtime, data: Asked) -> Answer:
    image_id, session_id = await _addressed(runtime, data)
    if image_id is None:
        # There is nobody to interrupt, so nothing runs any more: what was asked for is so.
        return {"agentId": data.get("agentId")}
    awake = await runtime.interrupt(image_id, session_id=session_id)
    return {"imageId": image_id, **({"agentId": awake} if awake is not None else {})}


async def _addressed(runtime: Runtime, data: Asked) -> tuple[str | None, str | None]:
    """The image that a message is for, and the session where an agent was named and no image. (None, None): nobody."""
    image_id, agent_id = _text(data, "imageId", None), _text(data, "agentId", None)
    if image_id is not None:
        return image_id, None
    if agent_id is None:
        raise BadInput("Either imageId or agentId must be provided")
    awake = await runtime.find_agent(agent_id)
    return (None, None) if awake is None else (awake.image_id, awake.session_id)


async def _agent_get(runtime: Runtime, data: Asked) -> Answer:
    agent_id = _text(data, "agentId")
    found = await runtime.find_agent(agent_id)
    return {"agentId": agent_id, "exists": False} if found is None else {**_agent(found), "exists": True}


async def _agent_list(runtime: Runtime, data: Asked) -> Answer:
    return {"agents": [_agent(awake) for awake in await runtime.agents(_text(data, "containerId"))]}


async def _agent_destroy(runtime: Runtime, data: Asked) -> Answer:
    agent_id = _text(data, "agentId")
    return {"agentId": agent_id, "success": await runtime.stop_agent(agent_id, reason="destroyed")}


async def _agent_destroy_all(runtime: Runtime, data: Asked) -> Answer:
    container_id = _text(data, "containerId")
    agents = {awake.session_id: awake.agent_id for awake in await runtime.agents(container_id)}
    await with_each(agents, lambda session_id: runtime.stop_agent(agents[session_id], reason="destroyed"))
    return {"containerId": container_id}


def _agent(awake: Awake) -> Answer:
    return {"agentId": awake.agent_id, "containerId": awake.container_id, "imageId": awake.image_id}


# -- questions to people --


async def _action_list(runtime: Runtime, data: Asked) -> Answer:
    actions = await runtime.actions(_text(data, "sessionId", None))
    return {"actions": [msgspec.to_builtins(action) for action in actions]}


async def _action_get(runtime: Runtime, data: Asked) -> Answer:
    action = await runtime.action(_text(data, "actionId"))
    return {"action": msgspec.to_builtins(action), "text": "\n".join(asking(action))}


async def _action_resolve(runtime: Runtime, data: Asked) -> Answer:
    """resolution: as `Runtime.resolve_action` takes it, all of it. No token is taken: whoever watches would see it."""
    resolution = data.get("resolution")
    if not isinstance(resolution, Mapping | bool):
        raise BadInput("resolution must be an object, or true or false.")
    plain = resolution if isinstance(resolution, bool) else msgspec.to_builtins(resolution)
    digest = _text(data, "digest", None)
    action = await runtime.resolve_action(_text(data, "actionId"), plain, digest=digest)
    return {"action": msgspec.to_builtins(action)}


async def _action_cancel(runtime: Runtime, data: Asked) -> Answer:
    action_id, reason = _text(data, "actionId"), _text(data, "reason", None) or "cancelled"
    action = await runtime.cancel_action(action_id, reason=reason, cancel_job=data.get("cancelJob") is True)
    return {"actionId": action_id, "action": msgspec.to_builtins(action)}


async def _grant_list(runtime: Runtime, data: Asked) -> Answer:
    return {"grants": [msgspec.to_builtins(grant) for grant in await runtime.grants(_text(data, "sessionId"))]}


async def _grant_revoke(runtime: Runtime, data: Asked) -> Answer:
    """actionId: the one in which the leave was given. Already taken back: fine."""
    action_id = _text(data, "actionId")
    await runtime.revoke_grant(action_id)
    return {"actionId": action_id}


# -- budgets --


async def _budget_set(runtime: Runtime, data: Asked) -> Answer:
    """budget: what stands now; replaced: what stood until then, null where nothing did. limits: what is used of it,
    with what was used before it was set."""
    stood = {(each.principal_id, each.session_id): each for each in runtime.budgets}
    made = await runtime.set_budget(data.get("budget"))
    replaced = stood.get((made.principal_id, made.session_id))
    whose = "session" if made.session_id else "principal" if made.principal_id else "scope"
    every = [use for use in await runtime.budget() if use.of == whose]
    limits = [msgspec.to_builtins(use) for use in every if use.name in (None, made.session_id, made.principal_id)]
    return {"budget": msgspec.to_builtins(made), "replaced": msgspec.to_builtins(replaced), "limits": limits}


async def _budget_remove(runtime: Runtime, data: Asked) -> Answer:
    principal, session = _text(data, "principalId", None), _text(data, "sessionId", None)
    return {"removed": await runtime.remove_budget(principal_id=principal, session_id=session)}


async def _budget_get(runtime: Runtime, data: Asked) -> Answer:
    limits = [msgspec.to_builtins(use) for use in await runtime.budget()]
    return {"budgets": [msgspec.to_builtins(budget) for budget in runtime.budgets], "limits": limits}


_ANSWERS: dict[str, Callable[[Runtime, Asked], Awaitable[Answer]]] = {
    "container_create": _container_create,
    "container_get": _container_get,
    "container_list": _container_list,
    "image_create": _image_create,
    "image_run": _image_run,
    "image_stop": _image_stop,
    "image_update": _image_update,
    "image_list": _image_list,
    "image_get": _image_get,
    "image_delete": _image_delete,
    "image_messages": _image_messages,
    "message_send": _message_send,
    "agent_interrupt": _agent_interrupt,
    "agent_get": _agent_get,
    "agent_list": _agent_list,
    "agent_destroy": _agent_destroy,
    "agent_destroy_all": _agent_destroy_all,
    "action_list": _action_list,
    "action_get": _action_get,
    "action_resolve": _action_resolve,
    "action_cancel": _action_cancel,
    "grant_list": _grant_list,
    "grant_revoke": _grant_revoke,
    "budget_set": _budget_set,
    "budget_remove": _budget_remove,
    "budget_get": _budget_get,
}

NAMES = tuple(f"{name}_request" for name in _ANSWERS)


async def _record(runtime: Runtime, state: ImageState) -> Answer:
    """An image as the bus shows it: ids, definition, whether an agent is awake, and which."""
    agent_id = None
    with passed_over(f"session-{state.session_id}"):
        agent_id = await runtime.agent_of(state.image_id or "")
    config = msgspec.to_builtins(state.config)
    record = {
        "imageId": state.image_id,
        "containerId": state.container_id,
        "sessionId": state.session_id,
        "createdAt": state.created_at,
        "updatedAt": state.updated_at,
        "version": state.version,
        **config,
        "online": agent_id is not None,
    }
    return record | ({"agentId": agent_id} if agent_id is not None else {})


_REQUIRED = "required"


def _text(data: Asked, name: str, default: str | None = _REQUIRED) -> Any:
    value = data.get(name)
    if value is None:
        if default is _REQUIRED:
            raise BadInput(f"{name} is missing.")
        return default
    return checked_text(value, name)


__all__ = ["NAMES", "register"]
