"""Whom to ask, at the edge: the keys that there are, what cools down, and the choice for each call of a model.

The rules are in `actors.failover`, which is pure; here are the clock, the keys and the table. A window of a key
is of the key, so within a process all scopes heed it. What earlier processes left is read from the stream of each scope
when that first needs a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter

from msgspec.structs import replace

from ..actors import failover
from ..actors.clock import Clock
from ..actors.cooldown import WINDOWS_MAX, Cooldowns, fair, joined, succeeded
from ..actors.failover import Exhausted, Failover, Go, Keys, Retry, Select
from ..actors.selection import provider_of
from ..adapters.models import Retries, label_of
from ..environment import EnvironmentSpec
from ..events.agent import CallModel, FailModel, Selection, SelectModel
from ..events.content import Failure
from ..events.errors import BadInput
from ..events.model import Credentials
from .windows import Windows

KEYS_MAX = 10_000
"""Keys of which it is remembered when they were last used."""


class Fallover:
    """The choices of one runtime. credentials(provider, spec): those that there are for a call, at least one."""

    def __init__(
        self,
        settings: Failover,
        retries: Retries,
        clock: Clock,
        credentials: Callable[[str, EnvironmentSpec], tuple[Credentials, ...]],
        windows: Windows,
    ) -> None:
        if not isinstance(settings, Failover):
            raise BadInput(f"failover must be a Failover, not a {type(settings).__name__}.")
        self.settings = settings
        self._retries = retries
        self._clock = clock
        self._credentials = credentials
        self.table = Cooldowns()
        self.restored: set[str] = set()
        """The scopes of which the table has what earlier processes left."""
        self._restoring: dict[str, asyncio.Task[None]] = {}
        self._well: dict[tuple[str, str, str | None], tuple[str, str | None, str]] = {}
        """By scope, model and selected key: the scope, the label of the key with which it was answered, and the model,
        which has not failed with that key since. Of this process."""
        self._windows = windows
        self._used: dict[str | None, int] = {}

    async def restore(self, scope: str) -> None:
        """Have in the table what earlier processes left to a scope. Once; whoever comes meanwhile waits."""
        if scope not in self._restoring:
            self._restoring[scope] = asyncio.ensure_future(self._restore(scope))
        await asyncio.shield(self._restoring[scope])

    async def _restore(self, scope: str) -> None:
        well = {(key, model) for _, key, model in self._well.values()}
        left = await self._windows.read(scope, self.settings.cooldowns, well)
        self.table = joined(self.table, left)
        self.restored.add(scope)
        del self._restoring[scope]

    def before(
        self, call: CallModel, spec: EnvironmentSpec
    ) -> tuple[Credentials, SelectModel | None] | SelectModel | FailModel:
        """Who is asked first: the credentials to ask with, and what is to be in the log before; or the command that
        tells of another choice."""
        mine = self._credentials(provider_of(call.model), spec)
        plain = len(mine) == 1 and call.key is None
        if plain and not self.table.windows and (not call.chain or (call.selected and call.model == call.chain[0])):
            return mine[0], None
        keys, now = self._keys(call, spec, mine), self._clock.now()
        choice, self.table = failover.before(call, keys, self.table, now, self.settings)
        if isinstance(choice, Select):
            return SelectModel(call=call.id, attempt=call.attempt, select=failover.held(call, choice.selection))
        if isinstance(choice, Go):
            if len(mine) > 1:
                self._take(choice.key, now)
            used = next((each for each in mine if label_of(each) == choice.key), mine[0])
            note = failover.unnoted(call, choice.key, keys)
            if note is None:
                return used, None
            return used, SelectModel(call=call.id, attempt=call.attempt, select=note, noted=True)
        said = f"{call.model} was not asked: it and all that may take its place are cooling down."
        failure = _with(Failure(code=choice.because, message=said), choice)
        return FailModel(
            call=call.id, attempt=call.attempt, failure=failure, key=choice.key, exhausted=True, unasked=True
        )

    async def after(
        self, call: CallModel, spec: EnvironmentSpec, used: Credentials, failure: Failure
    ) -> tuple[Failure, int | None, Selection | None, str | None, bool]:
        """What follows a failure: as it is recorded, when to try again (ms), who is asked instead, the label of the key
        where there are several, and whether nobody is left."""
        key = label_of(used)
        keys = self._keys(call, spec, self._of(call.model, spec))
        named = keys.named(call.model, key)
        wait_s, table = self._retries.next_wait(failover.tries(call, named), failure), self.table
        choice, self.table = failover.after(
            call, failure, key, keys, self.table, self._clock.now(), self.settings, wait_s=wait_s
        )
        self._well = {each: known for each, known in self._well.items() if known[1:] != (key, call.model)}
        await self._windows.failed(spec.scope, table, self.table, call.model)
        if isinstance(choice, Retry):
            return failure, round(choice.wait_s * 1000), None, named, False
        if isinstance(choice, Select):
            return failure, 0, failover.held(call, choice.selection), named, False
        if isinstance(choice, Exhausted):
            return _with(failure, choice), None, None, named, True
        return failure, None, None, named, False

    def answered(self, call: CallModel, scope: str, used: Credentials) -> Awaitable[None] | None:
        """A model answered: nothing of it cools any more. Gives the noting of that, None where nothing changed."""
        if (place := (scope, call.model, call.key)) not in self._well:
            self._well[place] = scope, label_of(used), call.model
            fair(self._well, WINDOWS_MAX, itemgetter(0), lambda _: 0)
        if not self.table.windows and call.reason != "probe" and not self._windows.tells(scope):
            return None
        key = label_of(used)
        self.table = succeeded(self.table, key, call.model, scope=scope)
        return self._windows.answered(scope, key, call.model)

    def _keys(self, call: CallModel, spec: EnvironmentSpec, mine: Sequence[Credentials]) -> Keys:
        of: dict[str, Sequence[str | None]] = {provider_of(call.model): [label_of(each) for each in mine]}
        for model in call.chain:
            provider = provider_of(model)
            if provider not in of:
                of[provider] = [label_of(each) for each in self._of(model, spec)]
        used = self._used if self.settings.key_order == "least_recently_used" else {}
        return Keys(of, used, dict(call.keys), spec.scope)

    def _of(self, model: str, spec: EnvironmentSpec) -> tuple[Credentials, ...]:
        """The keys for a model that is not asked now: what goes wrong with them is told when it is."""
        try:
            return self._credentials(provider_of(model), replace(spec, model=model))
        except Exception:
            return (Credentials(),)

    def _take(self, key: str | None, now: int) -> None:
        """Remember that a key is used."""
        self._used[key] = now
        if len(self._used) > KEYS_MAX:
            del self._used[min(self._used, key=self._used.__getitem__)]


def _with(failure: Failure, choice: Exhausted) -> Failure:
    return replace(failure, tried=choice.unasked or None, available_at=choice.available_at)
