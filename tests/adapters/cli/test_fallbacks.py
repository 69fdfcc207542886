"""run with fallbacks: who is asked when a model does not answer, and what a session keeps of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.cli.processes import kill, process
from tests.adapters.cli.terminal import one_line, reenact
from tests.adapters.cli.work import script

HERE = {"text": "I am here."}


def test_when_the_model_does_not_answer_the_fallbacks_do_and_every_list_says_so() -> None:
    ended = reenact(
        "run", "hi", "-m", "scripted:fails:auth", "--fallback", "scripted:fails:billing", "--fallback", script(HERE)
    )

    assert (ended.code, ended.out) == (0, "I am here.\n")
    selected = [row["data"] for row in reenact("events", "--type", "model_selected", "--json").rows]
    assert [(each["model"], each["reason"], each["because"]) for each in selected] == [
        ("scripted:fails:auth", "primary", None),
        ("scripted:fails:billing", "fallback", "auth"),
        ("scripted:script.json", "fallback", "billing"),
    ]
    assert "scripted:fails:billing as fallback after auth" in reenact("events", "-s", "last").out
    assert reenact("ps", "--all", "--json").row["model"] == "scripted:script.json"
    answered = {row["model"]: row["calls"] - row["failed"] for row in reenact("cost", "--json").rows}
    assert answered["script.json"] == 1 and answered["fails:auth"] == 0
    reasons = [row["context"]["reason"] for row in reenact("audit", "--type", "model.selected", "--json").rows]
    assert reasons == ["primary", "fallback", "fallback"]
    assert reenact("replay", "last").code == 0


def test_when_nobody_answers_one_line_names_them_all_and_a_named_image_keeps_its_fallbacks() -> None:
    given = ("-m", "scripted:fails:auth", "--fallback", "scripted:fails:billing", "--image", "bot", "--session", "s")

    ended = reenact("run", "hi", *given)
    again = reenact("run", "hi", "--session", "s")

    for each in (ended, again):
        assert each.code == 1
        auth, billing = ("auth, 401", "billing, 402") if each is ended else ("cooldown", "cooldown")
        assert f"fails:auth ({auth})" in one_line(each) and f"fails:billing ({billing})" in one_line(each)
    assert reenact("images", "--json").rows[0]["config"]["fallbacks"] == ["scripted:fails:billing"]


def test_what_the_command_line_names_is_in_the_place_of_the_images_models() -> None:
    image = ("--image", "bot", "--session", "s")
    reenact("run", "hi", "-m", script(HERE), "--fallback", "scripted:hello", *image)

    for given in (
        ("-m", "scripted:fails:auth", "--fallback", "scripted:fails:billing"),
        ("-m", "scripted:fails:auth"),
        ("--fallback", "scripted:fails:billing"),
    ):
        ended = reenact("run", "hi", *given, "--session", "s")
        named = {each for each in given if each.startswith("scripted:")}
        assert ended.code == 1 and ended.out == "", (given, ended)
        asked = {row["data"]["model"] for row in reenact("events", "--type", "model_called", "--json").rows[1:]}
        assert asked <= named | {"scripted:fails:auth", "scripted:fails:billing"}


def test_a_model_that_is_named_is_the_only_one_asked_also_where_it_is_the_images_own() -> None:
    image = ("--image", "bot", "--session", "s")
    assert reenact("run", "hi", "-m", "scripted:fails:auth", "--fallback", "scripted:hello", *image).code == 0

    assert reenact("run", "hi", "-m", "scripted:fails:auth", "--session", "s").code == 1
    assert reenact("run", "hi", "-m", "scripted:fails:auth", "--image", "bot").code == 1
    assert reenact("run", "hi", "--image", "bot").code == 0


@pytest.mark.parametrize("bad", ["nope", "nowhere:x", ""])
def test_a_fallback_that_there_is_none_of_is_one_line_and_exit_2(bad: str) -> None:
    ended = reenact("run", "hi", "-m", "scripted:hello", "--fallback", bad)

    assert ended.code == 2 and one_line(ended)


def test_a_session_that_fell_back_goes_on_with_the_model_it_was_for(here: Path) -> None:
    reenact("run", "hi", "-m", "scripted:fails:auth", "--fallback", "scripted:echo", "--session", "s")

    assert reenact("run", "hi", "--session", "s").code == 1  # it names no fallback, so its model is the only one


def test_a_process_killed_in_the_middle_of_a_failover_is_gone_on_with_where_it_was(here: Path) -> None:
    slow = script({"text": "Slow.", "delay_ms": 600_000})
    child = process("run", "hi", "-m", "scripted:fails:auth", "--fallback", slow)
    while "as fallback" not in reenact("events", "--type", "model_selected").out:
        assert child.poll() is None, child.communicate()
    kill(child)
    script(HERE)

    ended = reenact("resume")

    assert ended.code == 0 and "I am here." in ended.out
    called = [row["data"]["model"] for row in reenact("events", "--type", "model_called", "--json").rows]
    assert called == ["scripted:fails:auth", slow, slow]
    assert reenact("replay", "last").code == 0 and reenact("verify").code == 0


def test_a_file_says_how_long_a_model_is_waited_for(here: Path) -> None:
    (here / "f.toml").write_text("silence_s = 0.2")
    slow = script({"text": "Slow.", "delay_ms": 600_000})

    ended = reenact("run", "hi", "-m", slow, "--fallback", "scripted:echo", "--failover", "f.toml")

    assert (ended.code, ended.out) == (0, "hi\n")
    selected = [row["data"] for row in reenact("events", "--type", "model_selected", "--json").rows]
    assert (selected[-1]["model"], selected[-1]["because"]) == ("scripted:echo", "timeout")


def test_what_was_left_behind_is_gone_on_with_under_the_file_of_that_command(here: Path) -> None:
    slow = script({"text": "Slow.", "delay_ms": 600_000})
    child = process("run", "hi", "-m", slow, "--fallback", "scripted:echo")
    while not reenact("events", "--type", "model_called", "--json").out:
        assert child.poll() is None
    kill(child)
    (here / "f.json").write_text('{"silenceS": 0.2}')

    ended = reenact("resume", "--failover", "f.json")

    assert ended.code == 0 and ended.out.endswith("hi\n")


@pytest.mark.parametrize(
    "command", [("run", "hi", "-m", "scripted:echo"), ("chat", "-m", "scripted:echo"), ("resume",)]
)
def test_a_file_that_is_wrong_is_one_line_and_exit_2_and_nothing_is_done(here: Path, command: tuple[str, ...]) -> None:
    assert reenact("run", "hi", "-m", "scripted:echo").code == 0
    (here / "f.toml").write_text("silence = 1")
    before = reenact("events", "--json").out
    for file, said in (("f.toml", "'silence': there is no such key"), ("nowhere.json", "No such file")):
        ended = reenact(*command, "--failover", file)
        assert ended.code == 2 and f"{file}: " in one_line(ended) and said in one_line(ended)
    assert reenact("events", "--json").out == before
