"""Two tenants of one runtime: nothing of the one is seen or changed through the other, by any method, request or view.

What is asked about another's things is answered word for word as what is asked about things that are not there. Every
public method is listed in tests/probes.py; one that is not fails a test.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reenact import Runtime
from reenact.actors.cell import Cell
from reenact.events.log import MemoryStore
from reenact.identity.access import Access
from reenact.identity.pane import Pane
from reenact.identity.scoped import ScopedBus
from reenact.people.asking import Asking
from tests.probes import LISTENING, NEITHER_READ_NOR_COMMAND, PROBES, Probe, outcome
from tests.runtimes import runtime
from tests.tenants import NOWHERE, SECRET, Office, asking, look, pay


def everything_of(store: MemoryStore, scope: str) -> list[Any]:
    return [stored for stored in store.all if stored.batch.head.context.scope == scope]


async def leaks(doings: list[str], probes: dict[str, Probe] = PROBES) -> list[str]:
    """The probes by which another tenant learns or changes anything."""
    found = []
    store = MemoryStore()
    async with runtime(store=store, models=asking(), tools=[look, pay]) as opened:
        office = Office(opened)
        theirs = await office.furnish(doings)
        for name, probe in probes.items():
            before = everything_of(store, "alice")
            said = await outcome(opened.scoped(scope=f"bob-{name}", principal="bob"), probe, theirs)
            after = [each for each in everything_of(store, "alice")[len(before) :] if not _noise(each)]
            told = await outcome(opened.scoped(scope=f"carol-{name}", principal="bob"), probe, NOWHERE)
            heard = name in LISTENING and said != "[]"
            if SECRET in said or after or heard or _same(said) != _same(told):
                found.append(f"{name}: {said} against {told}" + (" and something was written" if after else ""))
    return found


def _same(said: str) -> str:
    return re.sub(r"(?:bob|carol)-\w+", "<scope>", said)


def _noise(stored: Any) -> bool:
    return "noise" in repr(stored.batch) or stored.batch.head.context.container_id == "noise"


DOINGS = st.lists(st.sampled_from(["wait", "send", "update", "stop", "session", "other"]), max_size=5)


@given(DOINGS)
@settings(max_examples=6)
def test_nothing_of_one_tenant_is_seen_or_changed_through_another(doings: list[str]) -> None:
    assert asyncio.run(asyncio.wait_for(leaks(doings), 120)) == []


def test_every_public_method_is_tried() -> None:
    async def names() -> set[str]:
        async with runtime() as opened:
            view = opened.scoped(scope="bob", principal="bob")
            return {name for name in dir(view) if not name.startswith("_")}

    public = asyncio.run(names())
    assert public - set(PROBES) - NEITHER_READ_NOR_COMMAND == set(), "try it here with another tenant's names"
    assert set(PROBES) | NEITHER_READ_NOR_COMMAND <= public


def test_every_public_method_of_a_scoped_bus_is_accounted_for() -> None:
    heard = {"on", "on_any", "once", "stream", "observable"}
    asked = {"request", "emit_command"}
    assert {name for name in dir(ScopedBus) if not name.startswith("_")} == heard | asked | {"past", "disposed"}


def test_every_method_of_a_pane_is_tried() -> None:
    public = {name for name in dir(Pane) if not name.startswith("_")}
    assert public == {"read", "read_all", "streams", "has", "head", "keyed", "close"}


GAPS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "streams": lambda patch: patch.setattr(Cell, "hidden_from", lambda self, scope: False),
    "log": lambda patch: patch.setattr(Pane, "_is_mine", lambda self, stored: True),
    "one method": lambda patch: patch.setattr(
        Access, "reads", property(lambda self: _Whole(self.kernel.log, self.scope))
    ),
    "bus": lambda patch: patch.setattr(ScopedBus, "_hears", lambda self, filter: filter),
    "what is kept": lambda patch: patch.setattr(Runtime, "_act", _keeping_one(Runtime._act)),
    "tokens": lambda patch: patch.setattr(Asking, "of_token", _of_all(Asking.of_token)),
    "containers": lambda patch: _containers_without_scopes(patch),
}


def _containers_without_scopes(patch: pytest.MonkeyPatch) -> None:
    """They are named without their scope, and it is not compared."""
    patch.setattr("reenact.catalog.containers.container_stream", lambda _, name: f"container-{name}")
    patch.setattr("reenact.flow.kernel.check_own", lambda stream, scope: None)


def _of_all(action_of_token: Any) -> Any:
    """A token is looked for where it is, whoever asks."""
    return lambda self, token: action_of_token(
        self._runtime._root.scoped(scope="alice", principal="alice")._asking, token
    )


class _Whole(Pane):
    """All that is in the log, whosever it is."""

    def _is_mine(self, stored: Any) -> bool:
        return True


class _One(dict[str, Any]):
    """What is kept of one scope is handed to all."""

    def get(self, key: str, default: Any = None) -> Any:
        return next(iter(self.values()), default)


@pytest.mark.parametrize("gap", GAPS)
def test_a_check_that_is_missing_is_found(monkeypatch: pytest.MonkeyPatch, gap: str) -> None:
    GAPS[gap](monkeypatch)
    assert asyncio.run(asyncio.wait_for(leaks(["wait"]), 120)), "nobody noticed"


def _keeping_one(act: Any) -> Any:
    def acting(self: Any, who: Any) -> None:
        if type(self._kept) is dict:
            self._kept = _One()
        act(self, who)

    return acting
