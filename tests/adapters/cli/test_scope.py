"""--scope at the terminal: whoever has the file has all of it, and may look at one tenant or work as it."""

from __future__ import annotations

import asyncio

import pytest

from reenact import Runtime, tool
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from tests.adapters.cli.terminal import one_line, reenact


def test_one_tenant_is_shown_and_worked_for_by_its_name_and_all_without() -> None:
    for scope in ("alice", "bob"):
        ended = reenact("run", f"I am {scope}", "-m", "scripted:echo", "--scope", scope, "--session", "diary")
        assert ended.code == 0, ended.err
    assert reenact("run", "nobody", "-m", "scripted:echo").code == 0
    rows = {scope: reenact("sessions", "--json", "--scope", scope).rows for scope in ("alice", "bob", "default", "eve")}
    assert {scope: [row["title"] for row in found] for scope, found in rows.items()} == {
        "alice": ["I am alice"],
        "bob": ["I am bob"],
        "default": ["nobody"],
        "eve": [],
    }
    assert len(reenact("sessions", "--json").rows) == 3
    theirs = rows["alice"][0]["sessionId"]
    assert reenact("messages", theirs).code == 0
    assert reenact("messages", theirs, "--scope", "bob").code != 0
    again = reenact("run", "and more", "--scope", "bob", "--session", "diary", "-m", "scripted:echo")
    assert again.code == 0 and len(reenact("messages", "diary", "--json", "--scope", "bob").rows) == 4
    for command in (["events", "--json"], ["audit", "--json"], ["sql", "select * from events"]):
        shown = reenact(*command, "--scope", "bob").out
        assert "bob" in shown and "alice" not in shown
    assert reenact("verify").code == 0


@pytest.mark.parametrize("command", ["verify", "doctor"])
def test_what_looks_at_a_whole_log_is_not_asked_about_one_tenant(command: str) -> None:
    assert reenact("run", "I am alice", "-m", "scripted:echo", "--scope", "alice").code == 0
    refused = reenact(command, "--scope", "alice")
    assert refused.code == 2 and "looks at the whole log, with every scope in it" in one_line(refused)


def test_whoever_has_the_file_decides_for_any_tenant_in_it() -> None:
    @tool(approval="ask")
    def pay() -> str:
        """Pay."""
        return "paid"

    async def ask() -> None:
        models = Models({"scripted": Scripted([{"tool_calls": [{"name": "pay", "input": {}}]}, {"text": "done"}])})
        async with Runtime("sqlite:///reenact.db", tools=[pay], models=models) as opened:
            bot = await opened.scoped(scope="alice", principal="alice").image("bot", model="scripted:any")
            assert (await bot.send("pay")).status == "waiting"

    asyncio.run(asyncio.wait_for(ask(), 20))
    assert reenact("approvals", "ls", "--json", "--scope", "bob").rows == []
    [action] = reenact("approvals", "ls", "--json").rows
    ended = reenact("approvals", "approve", action["id"])
    assert ended.code == 0, ended.err
    assert reenact("approvals", "ls", "--json").rows == []
