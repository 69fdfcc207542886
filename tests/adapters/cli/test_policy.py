"""`reenact policy check`, and `--policy` where work is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reenact.blocking import Runtime
from tests.adapters.cli.processes import kill, process, wait_for
from tests.adapters.cli.terminal import one_line, reenact

HOUSE = """
name = "production"
version = "3"
profile = "coding"
also_allow = ["look"]
deny = ["group:runtime"]

[[tools]]
tool_patterns = ["pay_*"]
decision = "require_approval"
reason = "Money leaves the house."
allowed_scopes = ["finance"]

[[models]]
model_patterns = ["gpt-5*"]
decision = "warn"
max_tokens_per_request = 4000

[[constraints]]
max_turns = 100
"""
TOOLS = '''
from reenact import tool

@tool(effect="read")
def look(n: int = 0) -> str:
    """Look."""
    return f"saw {n}"

@tool
def pay_bill(n: int = 0) -> str:
    """Pay."""
    open("paid", "w").close()
    return "paid"
'''


@pytest.fixture(autouse=True)
def here(here: Path) -> Path:
    (here / "house.toml").write_text(HOUSE)
    (here / "tools.py").write_text(TOOLS)
    return here


def test_a_policy_says_what_it_decides_about_tools_and_models_and_its_limits() -> None:
    ended = reenact(
        *("policy", "check", "house.toml", "--tool", "look", "--tool", "exec", "--tool", "pay_bill"),
        *("-m", "openai:gpt-5.5", "--json"),
    )
    assert (ended.code, ended.err) == (1, "")
    look, shell, pay, model, turns = ended.rows
    assert (look["decision"], look["reason"]) == ("allow", "no rule is about it")
    assert shell["decision"] == "deny" and shell["appliedRules"] == ["production/profile", "production/deny"]
    assert (pay["decision"], pay["policy"], pay["version"]) == ("deny", "production", "3")
    assert (model["decision"], model["maxTokensPerRequest"]) == ("warn", 4000)
    assert (turns["kind"], turns["name"], turns["decision"]) == ("limit", "max_turns 100", None)


def test_the_exit_code_says_whether_all_of_it_may_be_done() -> None:
    assert reenact("policy", "check", "house.toml").code == 0
    assert reenact("policy", "check", "house.toml", "--tool", "look").code == 0
    assert reenact("policy", "check", "house.toml", "--tool", "look", "--tool", "exec").code == 1
    assert reenact("policy", "check", "house.toml", "--tool", "pay_x").code == 1


def test_a_scope_has_rights_of_its_own(here: Path) -> None:
    (here / "open.toml").write_text(HOUSE.replace('profile = "coding"', ""))
    row = reenact("policy", "check", "open.toml", "--tool", "pay_x", "--scope", "finance", "--json").rows[0]
    assert (row["decision"], row["reason"]) == ("require_approval", "Money leaves the house.")


def test_more_files_are_laid_over_each_other(here: Path) -> None:
    (here / "night.toml").write_text('deny = ["look"]')
    row = reenact("policy", "check", "house.toml", "night.toml", "--tool", "look", "--json").rows[0]
    assert (row["decision"], row["policy"], row["appliedRules"]) == ("deny", "night", ["night/deny"])


def test_the_command_is_in_the_help_and_every_option_of_it_too() -> None:
    from reenact.adapters.cli.app import application
    from reenact.adapters.cli.output import Output
    from reenact.cli.commands import Commands
    from tests.adapters.cli.terminal import Stream

    assert "│ policy " in reenact("--help").out and "│ check " in reenact("policy", "--help").out
    app = application(Commands(), Output(Stream(), Stream()))["policy"]["check"]
    assert all(argument.parameter.help for argument in app.assemble_argument_collection() if argument.show)


def test_a_table_is_for_people() -> None:
    ended = reenact("policy", "check", "house.toml", "--tool", "exec")
    assert ended.out.splitlines()[0].split() == ["ABOUT", "NAME", "DECISION", "RULES", "REASON"]
    assert "exec is not in the profile coding" in ended.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("deny = ['exce']", "no tool named 'exce' (did you mean 'exec'?)"),
        ("also_allow = ['loook']\nprofile = 'minimal'", "no tool named 'loook' (did you mean 'look'?)"),
        ("[[tools]]\ntool_patterns = ['pay_bil']", "no tool named 'pay_bil' (did you mean 'pay_bill'?)"),
        ("[profiles]\nshop = ['zzz']", "no tool named 'zzz';"),
    ],
)
def test_names_that_no_tool_has_are_told_of_as_a_run_tells_of_them(here: Path, text: str, said: str) -> None:
    (here / "typo.toml").write_text(text)
    ended = reenact("policy", "check", "typo.toml", "--tools", "tools.py")
    assert ended.code == 0 and said in ended.err and "a rule on it rules nothing" in ended.err
    run = reenact("run", "hi", "-m", "scripted:echo", "--tools", "tools.py", "--policy", "typo.toml")
    assert run.code == 0 and said in run.err
    (here / "typo.toml").write_text("strict = true\n" + text)
    for argv in (("policy", "check", "typo.toml"), ("run", "hi", "-m", "scripted:echo", "--policy", "typo.toml")):
        refused = reenact(*argv, "--tools", "tools.py")
        assert refused.code == 2 and said.rstrip(";") in one_line(refused)


def test_without_the_tools_it_is_told_that_they_were_not_looked_for(here: Path) -> None:
    (here / "typo.toml").write_text("deny = ['exce', 'look', 'web_*', 'group:fs']\nstrict = true")
    ended = reenact("policy", "check", "typo.toml", "--tool", "look", "--json")
    assert ended.code == 1 and ended.rows[0]["decision"] == "deny"
    assert "whether there is a tool named 'exce' (did you mean 'exec'?) is not known" in ended.err
    assert reenact("policy", "check", "house.toml", "--tool", "look").err == ""


def test_what_is_told_of_a_policy_is_without_the_secrets_of_the_environment(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = "Zq7vKp93LmXwTt55Canary"
    monkeypatch.setenv("MY_API_KEY", value)
    (here / "odd.toml").write_text(f"deny = ['{value}']\n[[tools]]\ntool_patterns = ['look']\nreason = 'not {value}'")
    (here / "wrong.toml").write_text(f"denny = ['{value}']\n{value} = 1")
    for argv in (
        ["odd.toml", "--tool", value, "--tool", "look"],
        ["odd.toml", "--json"],
        ["wrong.toml"],
        [f"{value}.toml"],
    ):
        ended = reenact("policy", "check", *argv)
        assert value not in ended.out + ended.err and (ended.code or "[secret:MY_API_KEY]" in ended.out + ended.err)


def test_a_tool_that_is_asked_about_and_is_not_there_is_told_of() -> None:
    ended = reenact("policy", "check", "house.toml", "--tools", "tools.py", "--tool", "loook")
    assert "there is no tool named 'loook' (did you mean 'look'?)" in ended.err
    assert reenact("policy", "check", "house.toml", "--tools", "tools.py", "--tool", "look").err == ""


@pytest.mark.parametrize(
    "given",
    [("--tool", ""), ("--tool", "a\x00b"), ("-m", " "), ("--scope", ""), ("--tool", "x" * 300), ("-t", "no.py")],
)
def test_what_is_no_name_cannot_be_asked_about(given: tuple[str, str]) -> None:
    ended = reenact("policy", "check", "house.toml", *given)
    assert ended.code == 2 and ended.out == "" and len(ended.err.strip().splitlines()) <= 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dney = ['x']", "bad.toml: dney: there is no such key"),
        ("profile = 'coder'", "policy bad: profile: there is no 'coder'"),
        ("deny = ['group:sky']", "policy bad: deny: there is no group 'sky'"),
        ("deny = ['group:plugins']", "policy bad: deny: there is no group 'plugins'"),
        (
            "[[constraints]]\nmax_turns = -3",
            "bad.toml: constraints[1]: max_turns: must be a whole number from 0, not -3",
        ),
    ],
)
def test_what_is_no_policy_is_wrong_usage_and_starts_no_log(here: Path, text: str, said: str) -> None:
    (here / "bad.toml").write_text(text)
    for argv in (
        ("policy", "check", "bad.toml"),
        ("run", "hi", "-m", "scripted:echo", "--policy", "bad.toml"),
    ):
        ended = reenact(*argv)
        assert ended.code == 2 and said in one_line(ended)
    assert not (here / "reenact.db").exists()


def test_a_run_is_held_to_the_files_that_are_named(here: Path) -> None:
    asked = ("run", "-m", "scripted:tools", "-t", "tools.py", "--policy", "house.toml")
    assert "saw 7" in reenact(*asked, 'look {"n": 7}').out
    assert reenact(*asked, 'pay_bill {"n": 1}').out == "Name a tool and its arguments. The tools are: look.\n"
    (here / "stubborn.json").write_text(
        '[{"tool_calls": [{"name": "pay_bill", "input": {"n": 1}}]}, {"text": "Well."}]'
    )
    assert reenact("run", "-m", "scripted:stubborn.json", "-t", "tools.py", "--policy", "house.toml", "pay").code == 0
    assert not (here / "paid").exists()
    said = reenact("events", "--type", "tool_denied").out
    assert "t1 by production/profile: pay_bill is not in the profile coding" in said
    assert reenact("run", "-m", "scripted:stubborn.json", "-t", "tools.py", "pay").code == 0
    assert (here / "paid").exists()


def test_what_is_resumed_is_held_to_them_too(here: Path) -> None:
    assert reenact("run", "-m", "scripted:tools", "-t", "tools.py", 'look {"n": 7}').code == 0
    assert reenact("resume", "--policy", "house.toml").code == 0
    (here / "bad.toml").write_text("a = 1")
    assert reenact("resume", "--policy", "bad.toml").code == 2


# -- a session keeps the policy that it was run with --

SLOW = '''
import time
import json
import subprocess
import sys
from pathlib import Path

from reenact import tool

HERE = Path(__file__).parent

@tool(effect="idempotent")
def slow() -> str:
    """Take long."""
    (HERE / "inside").touch()
    while (HERE / "wait").exists():
        time.sleep(0.01)
    return "ended"

@tool(effect="idempotent")
def free() -> str:
    """Free everything."""
    (HERE / "freed").touch()
    return "freed"

@tool(effect="idempotent", approval="ask")
def asks() -> str:
    """Ask first."""
    return "asked"
'''
DENY = 'name = "house"\nversion = "7"\ndeny = ["free"]'


def steps(*names: str) -> str:
    calls = [{"tool_calls": [{"name": name, "input": {}}]} for name in names]
    Path("s.json").write_text(json.dumps({"steps": [*calls, {"text": "done"}], "repeat": True}))
    return "scripted:s.json"


@pytest.fixture
def slow(here: Path) -> Path:
    (here / "tools.py").write_text(SLOW)
    (here / "deny.toml").write_text(DENY)
    return here


def killed_in_slow(here: Path, *more: str) -> None:
    (here / "wait").touch()
    child = process("run", "go", "-m", steps("slow", "free"), "-t", "tools.py", *more)
    wait_for(here / "inside", child)
    kill(child)
    (here / "wait").unlink()


def outcomes() -> list[str]:
    return [row["data"]["outcome"] for row in reenact("events", "--type", "tool_settled", "--json").rows]


def test_a_killed_run_is_gone_on_with_under_the_policy_it_was_run_with(slow: Path) -> None:
    killed_in_slow(slow, "--policy", "deny.toml")
    (slow / "deny.toml").write_text("")
    ended = reenact("resume")
    assert ended.code == 0 and outcomes() == ["ok", "denied"] and not (slow / "freed").exists()
    assert "held to the policy that this session was run with: house (version 7)" in ended.err


def test_another_policy_that_is_given_holds_in_its_place_and_is_kept_then(slow: Path) -> None:
    killed_in_slow(slow, "--policy", "deny.toml", "-s", "shop")
    (slow / "open.toml").write_text("")
    ended = reenact("resume", "--policy", "open.toml")
    assert ended.code == 0 and outcomes() == ["ok", "ok"] and "held to" not in ended.err
    again = reenact("run", "go", "-m", steps("free"), "-t", "tools.py", "-s", "shop")
    assert again.code == 0 and outcomes()[-1] == "ok" and "open (version 1)" in again.err


def test_a_session_that_is_opened_again_keeps_its_policy_and_another_has_none(slow: Path) -> None:
    argv = ("run", "go", "-m", steps("free"), "-t", "tools.py")
    assert reenact(*argv, "-s", "shop", "--policy", "deny.toml").code == 0
    assert reenact(*argv, "-s", "shop").code == 0
    piped = reenact("chat", "-m", steps("free"), "-t", "tools.py", "-s", "shop", stdin="go\n")
    assert piped.code == 0 and outcomes() == ["denied"] * 3
    assert reenact(*argv).code == 0 and outcomes() == ["denied"] * 3 + ["ok"]


def test_an_answer_beside_no_owner_leaves_the_policy_as_it_was(slow: Path) -> None:
    argv = ("run", "go", "-m", steps("asks", "free"), "-t", "tools.py", "--policy", "deny.toml")
    assert reenact(*argv).code == 1
    assert reenact("approvals", "approve", "a1").code == 0
    assert reenact("resume").code == 0 and outcomes() == ["ok", "denied"]


def test_layers_of_the_container_and_the_image_are_those_of_now(slow: Path) -> None:
    log, model = "sqlite:///reenact.db", steps("slow", "free", "asks")
    with Runtime(log, recover=False) as runtime:
        runtime.set_policy("default", {"name": "of-container", "deny": ["slow"]})
        runtime.image("shop", model=model, policy={"name": "of-image", "deny": ["asks"]})
    argv = ("run", "go", "-t", "tools.py", "--image", "shop", "-s", "mine")
    assert reenact(*argv, "--policy", "deny.toml").code == 0 and outcomes() == ["denied"] * 3
    with Runtime(log, recover=False, policy="deny.toml") as runtime:
        runtime.set_policy("default", None)
    ended = reenact(*argv)
    assert ended.code == 0 and outcomes()[3:] == ["ok", "denied", "denied"]
    assert "run with: house (version 7)\n" in ended.err
