"""Wrong usage, help, and the contract of exit codes: 0 fine, 1 the work failed, 2 wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest

from reenact.adapters.cli.app import application
from reenact.adapters.cli.output import Output
from reenact.cli.commands import Commands
from tests.adapters.cli.terminal import Stream, one_line, reenact

COMMANDS = (
    *("demo", "run", "chat", "resume", "ps", "images", "sessions", "messages", "events"),
    *("replay", "cost", "audit", "sql", "export", "verify", "doctor"),
)


def test_help_names_every_command_in_one_sentence_each() -> None:
    ended = reenact("--help")

    assert ended.code == 0 and ended.err == ""
    for command in COMMANDS:
        (line,) = [line for line in ended.out.splitlines() if line.startswith(f"│ {command} ")]
        assert len(line.split()) > 4


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_every_option_of_it_has_help(command: str) -> None:
    assert reenact(command, "--help").code == 0

    app = application(Commands(), Output(Stream(), Stream()))[command]
    undocumented = [
        argument.name
        for argument in app.assemble_argument_collection()
        if argument.show and not argument.parameter.help
    ]

    assert undocumented == []


def test_the_version_is_that_of_the_package() -> None:
    assert reenact("--version").out.strip() == Commands().release


def test_without_a_command_it_says_what_there_is() -> None:
    assert "Usage: reenact COMMAND" in reenact().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["bogus"], 'Unknown command "bogus"'),
        (["ps", "--bogus"], "Unknown option: --bogus"),
        (["run"], "PROMPT is missing"),
        (["run", "one", "two"], "Put quotes around"),
        (["run", "hi", "-m"], "-m is missing"),
        (["run", "hi", "--temperature", "warm"], "warm"),
        (["run", "hi", "--thinking", "deeply"], "deeply"),
        (["run", ""], "empty"),
        (["run", "  \n "], "empty"),
        (["run", "hi", "-m", "gpt"], "provider:model"),
        (["run", "hi", "-m", "nobody:gpt"], "no provider 'nobody'"),
        (["run", "hi", "-m", "scripted: echo"], "spaces around its name"),
        (["run", "hi", "-p", "nobody"], "no provider 'nobody'"),
        (["run", "hi", "-p", "openai", "-m", "anthropic:x"], "two providers"),
        (["run", "hi", "-m", "scripted:nothing"], "no script 'nothing'"),
        (["run", "hi", "-m", "scripted:gone.json"], "gone.json"),
        (["run", "hi", "--tools", "gone.py"], "gone.py: No such file"),
        (["run", "hi", "--max-tokens", "0"], "at least 1"),
        (["run", "hi", "--temperature", "9"], "from 0 to 2"),
        (["run", "hi", "--temperature", "nan"], "from 0 to 2"),
        (["run", "hi", "--session", ""], "name"),
        (["run", "hi", "--session", "a\tb"], "name"),
        (["run", "a\0b", "-m", "scripted:echo"], "U+0000"),
        (["run", "a\udcffb", "-m", "scripted:echo"], "no Unicode"),
        (["run", "hi", "--db", "nonsense"], "names no log"),
        (["run", "hi", "--db", "sqlite:///x.db?mode=ro"], "no options"),
        (["run", "hi", "--db", "postgresql://host/x"], "PostgreSQL"),
        (["ps", "--db", "memory://"], "within one process"),
        (["cost", "--by", "colour"], "colour"),
        (["events", "--limit", "0"], "--limit"),
        (["resume", "--settle", "t1=ok"], "needs the session"),
        (["resume", "x", "--settle", "t1"], "CALL=ok"),
        (["resume", "x", "--output", "y"], "--settle"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(argv: list[str], said: str) -> None:
    ended = reenact(*argv)

    assert said in one_line(ended)
    assert ended.code == 2


def test_wrong_usage_leaves_no_log_behind_where_the_log_was_not_reached(here: Path) -> None:
    reenact("run")
    reenact("run", "hi", "--tools", "gone.py")

    assert list(here.iterdir()) == []


def test_options_may_stand_before_the_command() -> None:
    reenact("--db", "sqlite:///other.db", "run", "hi", "-m", "scripted:hello")

    assert reenact("--json", "--db=sqlite:///other.db", "sessions").row["state"] == "succeeded"


def test_the_log_is_named_by_the_environment_and_the_option_goes_first(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REENACT_DATABASE_URL", "sqlite:///named.db")
    reenact("run", "hi", "-m", "scripted:hello")
    reenact("run", "hi", "-m", "scripted:hello", "--db", "sqlite:///given.db")

    assert (here / "named.db").exists() and (here / "given.db").exists() and not (here / "reenact.db").exists()


def test_a_prompt_may_begin_with_a_dash_behind_two_dashes() -> None:
    assert reenact("run", "-m", "scripted:echo", "--", "--hello").out == "--hello\n"


def test_a_level_of_logging_that_is_none_is_told_and_taken_for_info(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")

    ended = reenact("run", "hi", "-m", "scripted:hello")

    assert ended.code == 0 and "LOG_LEVEL='loud'" in ended.err


def test_a_fault_of_the_program_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Commands):
        def reading(self, url: str, *, scope: str | None = None) -> object:  # type: ignore[override]
            raise ZeroDivisionError("somewhere\ndeep")

    from reenact.adapters.cli.app import main

    err = Stream()
    code = main(["ps"], Broken(), stdout=Stream(), stderr=err)  # type: ignore[arg-type]

    assert code == 1
    assert err.getvalue().count("\n") == 1 and "ZeroDivisionError: somewhere deep" in err.getvalue()
