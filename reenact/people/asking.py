"""Questions to people, as a program sees them: what waits, answering it, taking it back, tokens.

Nothing is kept here. What a question is and how it stands is in its session's stream; this finds it and asks.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ..actors.action import Asked
from ..actors.action import State as ActionState
from ..actors.mind import State as AgentState
from ..actors.question import check_resolution
from ..adapters.hosts.caller import PERSON
from ..catalog.unreadable import passed_over, view_of
from ..events.action import (
    AGENT,
    ActionExpired,
    ActionResolved,
    CancelAction,
    ExpireAction,
    IssueToken,
    ResolveAction,
    RevokeGrant,
)
from ..events.errors import ActionLate, BadInput, BadResolution, NotFound
from ..events.frozen import frozen, thawed
from ..events.secret import Secret
from ..given import check_json
from ..identity.access import NO_DECISIONS, check_no_name
from ..projections.actions import Action, Actions, AskedCall

if TYPE_CHECKING:
    from ..actors.system import Reply
    from ..runtime import Runtime


class Asking:
    """The questions of one scope of a runtime's log."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    # -- what waits --

    async def pending(self, session_id: str | None = None) -> list[Action]:
        """Those that wait, oldest first."""
        if session_id is not None:
            return await self._pending(session_id)
        # Every question has an end in time, so every session in which one waits owes something.
        streams = await asyncio.to_thread(self._runtime._reads.streams, "session-", owing=True)
        found = []
        for stream in streams:
            with passed_over(stream):
                found += await self._pending(stream.removeprefix("session-"))
        return sorted(found, key=lambda action: action.asked_at)

    async def _pending(self, session_id: str) -> list[Action]:
        agent, asking = await self._states(session_id)
        return [_own(_shown(session_id, asked, agent)) for asked in asking.pending]

    async def action(self, action_id: str) -> Action:
        """One of them, over or not."""
        session_id, action = parts_of(action_id)
        agent, asking = await self._states(session_id)
        for asked in asking.pending:
            if asked.id == action:
                return _own(_shown(session_id, asked, agent))
        board = Actions()
        for recorded in await self._runtime.events(session_id):
            board.apply(recorded)
        found = board.get(action_id)
        if found is None:
            raise NotFound(f"There is no action {action} in session {session_id}.")
        return _own(found)

    async def everything(self, session_id: str | None) -> list[Action]:
        """Those that wait and those that are over."""
        if session_id is None:
            return [_own(action) for action in await asyncio.to_thread(all_asked, self._runtime.log)]
        board = Actions()
        for recorded in await self._runtime.events(session_id):
            board.apply(recorded)
        return [_own(action) for action in board]

    async def session_of(self, job_id: str) -> str:
        """The session in which a job runs."""
        for stream in await asyncio.to_thread(self._runtime._reads.streams, "session-", owing=True):
            with passed_over(stream):
                running = (await self._runtime._peek(stream))[0].running
                if running is not None and running.job_id == job_id:
                    return stream.removeprefix("session-")
        raise NotFound(f"No job {job_id} runs.")

    async def of_token(self, token: str) -> Action:
        """The pending one that a token is for. Raises NotFound, whatever is wrong with the token."""
        wanted = token_digest(token)
        for stream in await asyncio.to_thread(self._runtime._reads.streams, "session-", owing=True):
            session_id = stream.removeprefix("session-")
            with passed_over(stream):
                agent, asking = await self._states(session_id)
                for asked in asking.pending:
                    if asked.token is not None and secrets.compare_digest(asked.token, wanted):
                        return _own(_shown(session_id, asked, agent))
        raise NotFound("There is no pending action for this token.")

    async def resolve(
        self,
        action_id: str,
        resolution: Mapping[str, Any],
        *,
        shown: str | None = None,
        token: str | None = None,
        by: str | None = None,
        secret: Secret | None = None,
    ) -> Action:
        """Answer one. by: who says so, if not whoever acts now. secret: what a reauth asks for, which tools have from
        when this answer is the one that counts. Raises what refuses it.
        """
        given = frozen(dict(resolution))  # whoever brought it cannot change it while it is looked at
        if shown is not None and not isinstance(shown, str):
            raise BadInput(f"A digest is a text, as the question has it, not {ascii(shown)[:60]}.")
        session_id, action = parts_of(action_id)
        agent, asking = await self._states(session_id)
        asked = next((each for each in asking.pending if each.id == action), None)
        check_json(given, "resolution", BadResolution)
        if asked is not None and given.get("arguments") is not None and asked.kind == "approval":
            check_resolution(asked.kind, asked.payload, given, of_call=asked.digest is not None)
            self._check_arguments(agent, action, given["arguments"])
        if asked is not None and asked.kind == "reauth" and secret is None:
            self._check_handed(asked.payload, given)
        command = ResolveAction(
            action=action,
            resolution=given,
            at=self._runtime.clock.now(),
            by=by or self._runtime.acting_as,
            digest=shown,
            token=None if token is None else token_digest(token),
            bound=given.get("always") is not None,
            switched=given.get("always") is not None,
        )
        # Who answers at a terminal is told of in the answer; what follows from it is done for whom it was begun.
        behalf = self._runtime
        if command.by.startswith(PERSON):
            behalf = behalf._root._of_scope(behalf.scope)
        behalf._access.check_person(NO_DECISIONS)
        await behalf.bring_policy(session_id)
        told = None if secret is None else partial(self._hand, secret)
        reply = await behalf._access.ask(f"session-{session_id}", command, told=told)
        if any(isinstance(recorded.data, ActionExpired) for recorded in reply.events):
            raise ActionLate
        return await self.action(action_id)

    def _hand(self, secret: Secret, reply: Reply) -> None:
        """Tools have a secret from now on, where its answer was recorded and the program has none of that name."""
        vault, scope, name = self._runtime._vault, self._runtime.scope, secret.name or ""
        said = any(isinstance(recorded.data, ActionResolved) for recorded in reply.events)
        if said and (vault.get(name, scope=scope) is None or vault.is_handed(name, scope=scope)):
            vault.hand(name, secret.reveal(), scope=scope)

    def _check_handed(self, payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Raises BadResolution where a secret is said to be given that nobody handed over."""
        name = payload.get("secret")
        if name is None or given.get("authenticated") is not True or given.get("secret", name) != name:
            return
        if self._runtime._vault.get(name, scope=self._runtime.scope) is None:
            raise BadResolution(
                f"This question asks for the secret {name!r}, and none of that name was handed over. At a terminal:"
                " `reenact approvals answer ID --secret`."
            )

    def check_own(self, name: str) -> None:
        """Raises BadInput where a secret is the program's own, which no answer of a person's takes the place of."""
        vault, scope = self._runtime._vault, self._runtime.scope
        if vault.get(name, scope=scope) is not None and not vault.is_handed(name, scope=scope):
            raise BadInput(f"The secret {name!r} is the program's own, and given by it: ask under another name.")

    def _check_arguments(self, agent: AgentState, action: str, arguments: dict[str, Any]) -> None:
        """Raises BadResolution where a call cannot run with arguments that a person wrote."""
        call = next((tool for tool in agent.open if tool.approval is not None and tool.approval.action == action), None)
        if call is None:
            return
        if self._runtime._vault.hidden(arguments, self._runtime.scope) is not arguments:
            raise BadResolution(
                "There is a secret in these arguments. What is recorded is without it, so the call would run with"
                " something else than you wrote. Have the tool take it by its name: ToolContext.secret."
            )
        if call.name not in self._runtime.tools:
            raise BadResolution(f"The tool {call.name!r} is not here, so other arguments for it cannot be checked.")
        problem = self._runtime.tools.check(call.name, arguments).problem
        if problem is not None:
            raise BadResolution(f"With these arguments the call cannot run: {problem}")

    async def hand_over(self, action_id: str, secret: str, resolution: Mapping[str, Any]) -> Action:
        """Answer a reauth with the secret that it asks for: tools have it by its name from now on, for as long as this
        runtime lives. Recorded is that it was given, under which name and by whom. Raises what refuses it.
        """
        action = await self.action(action_id)
        name = action.payload.get("secret")
        if action.type != "reauth" or not isinstance(name, str):
            raise BadResolution("This question asks for no secret; none was taken.")
        check_no_name(secret, self._runtime._access.who)
        handed = Secret(secret, name=name)
        if action.status == "pending":
            self.check_own(name)
            self._runtime._vault.hide(name, handed, scope=self._runtime.scope)
        return await self.resolve(action_id, {**resolution, "authenticated": True, "secret": name}, secret=handed)

    async def cancel(self, action_id: str, *, reason: str, cancel_job: bool) -> Action:
        """Take one back. Returns it as it stands then."""
        session_id, action = parts_of(action_id)
        await self._check_own(session_id)
        command = CancelAction(action=action, by=self._runtime.acting_as, reason=reason, cancel_job=cancel_job)
        await self._runtime._access.ask(f"session-{session_id}", command)
        return await self.action(action_id)

    async def expire(self, action_id: str) -> None:
        """Nobody waits for the answer any more."""
        session_id, action = parts_of(action_id)
        await self._check_own(session_id)
        await self._runtime._access.ask(f"session-{session_id}", ExpireAction(action=action))

    async def issue_token(self, action_id: str) -> str:
        """A new token for one that waits."""
        session_id, action = parts_of(action_id)
        self._runtime._access.check_person(
            "Tokens are given out by people and programs, never by an agent or its tools."
        )
        token = new_token()
        await self._runtime._access.ask(f"session-{session_id}", IssueToken(action=action, token=token_digest(token)))
        self._runtime._vault.lend(action_id, token)
        return token

    async def revoke(self, action_id: str) -> None:
        """Take back a leave for calls to come."""
        session_id, action = parts_of(action_id)
        await self._check_own(session_id)
        await self._runtime._access.ask(f"session-{session_id}", RevokeGrant(action=action, by=self._runtime.acting_as))

    async def _check_own(self, session_id: str) -> None:
        """Raises NotAPerson where an agent or a tool ends what is asked in another's session."""
        agent, _ = await self._states(session_id)
        if self._runtime.acting_as != f"{AGENT}{agent.agent_id}":
            self._runtime._access.check_person("An agent or a tool takes back what its own session asks, and no more.")

    async def _states(self, session_id: str) -> tuple[AgentState, ActionState]:
        session, agent, asking = await self._runtime._peek(f"session-{session_id}")
        if session.session_id is None:
            raise NotFound(f"Session not found: {session_id}")
        return agent, asking


def all_asked(log: Any) -> list[Action]:
    """Every question of a log, oldest first. Those of a session that cannot be read are left out: see `passed_over`."""
    board, lost = view_of(log, Actions)
    if not lost:
        return list(board)
    found = [action for action in board if f"session-{action.session_id}" not in lost]
    return sorted(found, key=lambda action: action.asked_at)


def answer_of(resolution: Mapping[str, Any] | bool, **said: Any) -> dict[str, Any]:
    """An answer as it is recorded, with what else was said of it. Raises BadResolution for what is none."""
    if not isinstance(resolution, bool | Mapping):
        raise BadResolution(f"An answer is True, False or an object, not {ascii(resolution)[:60]}.")
    given: dict[str, Any] = {"approved": resolution} if isinstance(resolution, bool) else dict(resolution)
    for name, value in said.items():
        if value is not None:
            given[name] = dict(value) if isinstance(value, Mapping) else value
    return given


def parts_of(action_id: str) -> tuple[str, str]:
    """The session and the action of an id `<session>:<action>`. Raises BadInput."""
    session_id, colon, action = action_id.rpartition(":") if isinstance(action_id, str) else ("", "", "")
    if not (colon and session_id and action):
        raise BadInput(f"An action is named <session>:<action>, not {ascii(action_id)[:60]}.")
    return session_id, action


def new_token() -> str:
    """256 bits of chance, as text that fits anywhere."""
    return secrets.token_urlsafe(32)


def token_digest(token: str) -> str:
    """What the log has of a token. Raises BadInput for what is no text."""
    if not isinstance(token, str):
        raise BadInput(f"A token is a text, not a value of type {type(token).__name__}.")
    return "sha256:" + hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _own(action: Action) -> Action:
    """The same with plain dicts of its own: who is handed it may do with them what they like."""
    call = action.call
    if call is not None:
        call = replace(call, arguments=thawed(call.arguments), env=thawed(call.env))
    return replace(
        action,
        payload=thawed(action.payload),
        metadata=thawed(action.metadata),
        resolution=thawed(action.resolution),
        call=call,
    )


def _shown(session_id: str, asked: Asked, agent: AgentState) -> Action:
    call = None
    for tool in agent.open:
        if tool.approval is not None and tool.approval.action == asked.id:
            call = AskedCall(
                tool=tool.id,
                name=tool.name,
                version=tool.version,
                arguments=tool.input,
                effect=tool.effect,
                timeout_s=tool.timeout_s,
                cwd=tool.approval.place.cwd,
                env=tool.approval.place.env,
                sandbox=tool.approval.place.sandbox,
            )
    return Action(
        id=f"{session_id}:{asked.id}",
        session_id=session_id,
        type=asked.kind,
        status=asked.status,
        payload=asked.payload,
        asked_at=asked.asked_at // 1000,
        expires_at=asked.expires_at // 1000,
        job_id=asked.job_id,
        tool=asked.tool,
        reason=asked.reason,
        metadata=asked.metadata,
        digest=asked.digest,
        call=call,
        resolution=asked.resolution,
        by=asked.by,
        ended_at=None if asked.ended_at is None else asked.ended_at // 1000,
    )
