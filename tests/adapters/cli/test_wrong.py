"""Every option and argument of every command with what it cannot be: one line, the right exit code, nothing written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reenact.adapters.cli.app import application
from reenact.adapters.cli.output import Output
from reenact.cli.commands import Commands
from reenact.cli.reading import Reading
from reenact.events import codec
from reenact.projections.audit import NAMES
from tests.adapters.cli.terminal import Stream, one_line, reenact

TOOLS = '''
from reenact import tool

@tool(approval="ask")
def pay(n: int = 0) -> str:
    """Pay."""
    return "paid"
'''
WORKS: dict[str, tuple[str, ...]] = {
    "run": ("hi", "-m", "scripted:echo"),
    "chat": ("-m", "scripted:echo"),
    **dict.fromkeys(("messages", "replay", "export"), ("s",)),
    "sql": ("select 1",),
    **dict.fromkeys(("approvals show", "approvals approve", "approvals deny", "approvals edit"), ("a1",)),
    "policy check": ("house.toml",),
}
"""What a command needs to be able to work; all others need nothing."""

WRONG = ("", "9" * 5000, "\udcff")
MORE = (" ", "nope", "٣", "NaN", "-1", "1e999", "\x00", "a\nb", "../x", "x" * 5000, "0", "1.5", "inf", "🙂")


def commands(app: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in app:
        if not name.startswith("-"):
            if [each for each in app[name] if not each.startswith("-")]:
                yield from commands(app[name], (*path, name))
            else:
                yield (*path, name), app[name]


def places() -> Iterator[tuple[str, str]]:
    """Every command with each of its options that takes a value, and with its first argument (`…`)."""
    for path, command in commands(application(Commands(), Output(Stream(), Stream()))):
        for argument in command.assemble_argument_collection():
            option = next((name for name in argument.names if name.startswith("--")), "…")
            if path[0] not in ("demo", "doctor") and argument.hint is not bool and option not in ("--db", "--keep"):
                yield " ".join(path), option


def stored() -> dict[str, int]:
    with Reading("sqlite:///reenact.db") as reading:
        return {stream: reading.log.head(stream) for stream in reading.log.streams("")}


@pytest.fixture(autouse=True)
def here(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDITOR", "true")
    (here / "house.toml").write_text("deny = ['x']")
    (here / "tools.py").write_text(TOOLS)
    assert reenact("run", "hi", "-m", "scripted:echo", "--session", "s", "--image", "bot").code == 0
    assert reenact("run", "pay {}", "-m", "scripted:tools", "-t", "tools.py", "--session", "w").code == 1
    return here


def tried(command: str, option: str, wrong: str) -> None:
    given = WORKS.get(command, ())
    argv = (wrong, *given[1:]) if option == "…" else (*given, f"{option}={wrong}")
    before = stored()
    ended = reenact(*command.split(), *argv)
    assert ended.code in (0, 1, 2), ended
    assert "a fault of the program" not in ended.err and "Traceback" not in ended.err, ended
    if ended.code == 2:
        one_line(ended)
        assert len(ended.err) < 8_000 and stored() == before, "nothing is written for wrong usage"


@pytest.mark.parametrize(("command", "option"), [*places()])
def test_what_an_option_cannot_be_is_one_line_and_nothing_is_written(command: str, option: str) -> None:
    for wrong in WRONG:
        tried(command, option, wrong)


@pytest.mark.long
@pytest.mark.parametrize(("command", "option"), [*places()])
def test_nor_is_anything_else_a_fault_of_the_program(command: str, option: str) -> None:
    for wrong in MORE:
        tried(command, option, wrong)


def test_all_commands_are_tried() -> None:
    assert {command for command, _ in places()} >= {"run", "events", "audit", "budget set", "approvals approve", "sql"}
    assert len([*places()]) > 100


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("audit", "--type", "nope"), "There is no event type 'nope'. There are: "),
        (("events", "--type", "nope"), "There is no event type 'nope'. There are: "),
        (("audit", "--type", "job_started,nope"), "There is no event type 'nope'. There are: "),
        (("audit", "--type", ""), "There is no event type ''. There are: "),
        (("events", "--type", ""), "There is no event type ''. There are: "),
        (("audit", "--status", "nope"), "There is no status 'nope'. There are: success, failure, pending."),
        (("audit", "--user", " "), "--user is empty."),
        (("audit", "--since", "yesterday"), "'yesterday' is no time. Write it as "),
        (("audit", "--since", "9" * 5000 + "d"), "is too long ago."),
        (("events", "--limit", "٣"), "is no whole number"),
        (("events", "--after", "1.5"), "is no whole number"),
        (("run", "hi", "--max-tokens", "1e3"), "is no whole number"),
        (("events", "--limit", "0"), "Must be >= 1"),
        (("ps", "--scope", ""), "A scope is a text of 1 to 256 printable characters, not ''."),
        (("resume", "--scope", "a\nb"), "A scope is a text of 1 to 256 printable characters, not 'a\\nb'."),
        (("run", "hi", "--image", ""), "image must be a text of 1 to 256 printable characters, not ''."),
        (("run", "hi", "--image", "new", "--fallback", "nope"), "is not of the form provider:model"),
        (("run", "hi", "--image", "new", "-m", "nope"), "is not of the form provider:model"),
        (("run", "hi", "--image", "bot", "--system", "Be kind.", "-m", "nope"), "is not of the form provider:model"),
        (("export", "s", "--output", ""), "is no file that could be written"),
        (("budget", "set", "--max-tokens-daily", "9" * 5000), "max_tokens_daily"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_to_do(argv: tuple[str, ...], said: str) -> None:
    before = stored()
    ended = reenact(*argv)
    assert ended.code == 2 and said in one_line(ended), ended
    assert stored() == before


def test_every_type_that_the_audit_names_can_be_asked_for(root: Path) -> None:
    rooms = [*(root / "projections" / "notes").glob("*.py"), root / "projections" / "trail.py"]
    written = {name for file in rooms for name in re.findall(r'"([a-z]+\.[a-z_]+)"', file.read_text())}
    assert written == NAMES and not NAMES & set(codec.TYPES)
    for name in (*NAMES, "job_started"):
        assert reenact("audit", "--type", name).code == 0
