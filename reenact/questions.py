"""Questions to people, as a program answers them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from .events.action import Grant
from .people.asking import Asking, answer_of
from .projections.actions import Action
from .secrets.discretion import discreet


@discreet
class Questions:
    """The part of `Runtime` that is about questions."""

    _asking: Asking
    _peek: Callable[[str], Coroutine[Any, Any, tuple[Any, ...]]]

    async def actions(self, session_id: str | None = None) -> list[Action]:
        """The questions that wait for a person, oldest first: of one session, or of all."""
        return await self._asking.pending(session_id)

    pending = actions

    async def action(self, action_id: str) -> Action:
        """One question and how it stands. action_id: `<session>:<action>`. Raises NotFound."""
        return await self._asking.action(action_id)

    async def resolve_action(
        self,
        action_id: str,
        resolution: Mapping[str, Any] | bool,
        *,
        comment: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        always: str | None = None,
        digest: str | None = None,
        token: str | None = None,
    ) -> Action:
        """Answer a question, once; what waits for it goes on. Returns it as it stands then.

        resolution: what fits its kind; True and False stand for `{"approved": ...}`. comment: told to the model where a
        call is denied. arguments: of an approval, those to run instead. always: `exact` or `class`, leave for calls to
        come. digest: of what you were shown; refused where it is another by now. token: one that was issued for it.

        Raises NotFound, ActionOver, ActionLate (it is recorded as expired), BadResolution, ActionChanged, ClockBehind,
        and NotAPerson where an agent or a tool asks.
        """
        given = answer_of(resolution, comment=comment, arguments=arguments, always=always)
        return await self._asking.resolve(action_id, given, shown=digest, token=token)

    async def all_actions(self, session_id: str | None = None) -> list[Action]:
        """Every question that was ever put, over or not, oldest first: of one session, or of all. Reads the log."""
        return await self._asking.everything(session_id)

    async def action_of_token(self, token: str) -> Action:
        """The pending question that a token is for. Raises NotFound, whatever is wrong with the token."""
        return await self._asking.of_token(token)

    async def session_of(self, job_id: str) -> str:
        """The session in which a job runs now. Raises NotFound."""
        return await self._asking.session_of(job_id)

    async def cancel_action(self, action_id: str, *, reason: str = "cancelled", cancel_job: bool = False) -> Action:
        """Take a question back; a call that waits for it is not run. cancel_job: the job ends too. Returns it as it
        stands then: one that was over already is as it was, and what was approved runs.

        Raises NotAPerson where an agent or a tool takes back what another's session asks.
        """
        return await self._asking.cancel(action_id, reason=reason, cancel_job=cancel_job)

    async def issue_token(self, action_id: str) -> str:
        """A token that resolves this question once, for whoever should. It is stored nowhere: only its digest is.

        One that was issued before is worth nothing then. Raises NotAPerson where an agent or a tool asks.
        """
        return await self._asking.issue_token(action_id)

    async def grants(self, session_id: str) -> list[Grant]:
        """The leaves for calls to come that people gave in a session."""
        return list((await self._peek(f"session-{session_id}"))[1].consent.grants)

    async def revoke_grant(self, action_id: str) -> None:
        """Take back the leave for calls to come that was given in this action. Already so: fine."""
        await self._asking.revoke(action_id)
