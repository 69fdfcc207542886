"""What the terminal is handed: everything it can do, each part loaded when it is first done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    from ..secrets.vault import Vault
    from .demo import Demo
    from .reading import Reading
    from .working import Working

Row = dict[str, Any]


class Commands:
    """See `adapters.cli.front.Front`. marks: this process is all ours, so that everything it begins may be marked."""

    release = __version__

    def __init__(self, *, marks: bool = False) -> None:
        self._marks = marks
        self._vault: Vault | None = None

    @contextmanager
    def discreet(self) -> Iterator[Callable[[Any], Any]]:
        """What takes the secrets of the environment out of a text or a row that is shown. From its first use on, until
        the end, lines of logs are without them too."""
        try:
            yield lambda value: self._known().hidden(value)
        finally:
            if self._vault is not None:
                self._vault.close()
                self._vault = None

    def _known(self) -> Vault:
        """The secrets of the environment. Made when it is needed: most commands tell no error, and it takes 0.1 s."""
        if self._vault is None:
            from ..secrets.vault import Vault

            self._vault = Vault()
            self._vault.environment(os.environ)
            self._vault.open()
        return self._vault

    def reading(self, url: str, *, scope: str | None = None) -> Reading:
        """The log at `url`, to read: one scope of it, or everything. It must be there."""
        from .reading import Reading

        return Reading(url, scope=scope)

    def working(
        self,
        url: str,
        *,
        tools: Sequence[str],
        policy: Sequence[str] = (),
        failover: str | None = None,
        scope: str | None = None,
    ) -> Working:
        """The log at `url`, to own from `with` on, made where there is none, and to work in one scope of it.

        policy: files, outermost first. failover: a file.
        """
        from ..owner import mark_children
        from .working import Working

        if self._marks:
            mark_children()
        return Working(url, tools=tools, policy=policy, failover=failover, scope=scope)

    def policy(
        self,
        files: Sequence[str],
        *,
        tools: Sequence[str],
        models: Sequence[str],
        scope: str,
        principal: str = "",
        there: Sequence[str] = (),
    ) -> list[Row]:
        """What policies in files say of tools and models, and the limits they set. there: files of tools."""
        from ..rules.policies import verdicts
        from ..tools.toolbox import tools_from

        names = [name for path in there for name in tools_from(path)]
        known = names if there else None
        self._known()  # it warns of what it finds
        return verdicts(files, tools=tools, models=models, scope=scope, principal=principal, there=known)

    def short(self, full: str) -> str:
        """An id as people are shown it."""
        from ..catalog.lookup import short

        return short(full)

    def decide(
        self,
        url: str,
        action_id: str,
        resolution: Mapping[str, Any],
        digest: str | None,
        *,
        tools: Sequence[str] = (),
        secret: str | None = None,
    ) -> tuple[Row, bool]:
        """Answer a question to a person: see `decisions.decide`."""
        from .decisions import decide

        return decide(url, action_id, resolution, digest, tools=tools, secret=secret)

    def cancel(self, url: str, action_id: str, reason: str | None) -> Row:
        """Take a question back, by way of whoever owns the log, or here where nobody does. As it stands then."""
        from .decisions import put

        row: Row = put(url, "action_cancel_request", {"actionId": action_id, "reason": reason})["action"]
        return row

    def revoke(self, url: str, action_id: str) -> None:
        """Take back the leave for calls to come that was given in an action, in the same way."""
        from .decisions import put

        put(url, "grant_revoke_request", {"actionId": action_id})

    def set_budget(self, url: str, budget: Mapping[str, Any], *, scope: str | None = None) -> Row:
        """Set a limit, by way of whoever owns the log, or here where nobody does. What it is then."""
        from ..events.budget import budget_of

        budget_of(dict(budget))  # raises what is wrong with it, with nothing opened
        return self._budget(url, "budget_set_request", {"budget": dict(budget)}, scope)

    def remove_budget(
        self, url: str, principal_id: str | None, session_id: str | None, *, scope: str | None = None
    ) -> Row:
        """Lift limits, in the same way. removed: whether there were any."""
        data = {"principalId": principal_id, "sessionId": session_id}
        return self._budget(url, "budget_remove_request", data, scope)

    def _budget(self, url: str, kind: str, data: Row, scope: str | None) -> Row:
        import asyncio

        from ..events.errors import BadInput, Refused
        from ..owner import request

        said = asyncio.run(request(url, kind, data, scope=scope, armed=False))
        if said.get("error") is not None:
            raise (BadInput if said.get("errorCode") == BadInput.code else Refused)(said["error"])
        return said

    def doctor(self, url: str) -> Iterable[Row]:
        """What is found out about this machine, and the log at `url`."""
        from .doctor import findings

        return findings(url)

    def verify(self, url: str, *, history: str | None = None) -> Row:
        """Whether the log at `url` keeps its word, and where it does not. history: a file of what it said."""
        import msgspec

        from .verify import verify

        report = verify(url, history=history)
        violations = [{**msgspec.to_builtins(each), "text": str(each)} for each in report.violations]
        return {**msgspec.to_builtins(report), "violations": violations, "summary": report.summary}

    def demo(self, *, keep: str | None, hear: Callable[[str], object] | None, delay_ms: int) -> Demo:
        """The demo, in its folder and ready to begin."""
        from .demo import Demo

        return Demo(keep=keep, hear=hear, delay_ms=delay_ms)
