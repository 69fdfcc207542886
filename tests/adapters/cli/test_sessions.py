"""Which session, image and model a run is of: named, found by an id, opened again, and refused."""

from __future__ import annotations

import pytest

from tests.adapters.cli.terminal import one_line, reenact


def test_every_run_is_a_new_session_of_one_image() -> None:
    for _ in range(3):
        reenact("run", "hi", "-m", "scripted:hello")

    assert reenact("images", "--json").row["sessions"] == 3
    assert {row["jobs"] for row in reenact("sessions", "--json").rows} == {1}


def test_a_named_session_is_made_once_and_opened_then() -> None:
    for text in ("one", "two"):
        reenact("run", text, "-m", "scripted:echo", "--session", "work")

    row = reenact("sessions", "--json").row
    assert (row["name"], row["jobs"]) == ("work", 2)


def test_a_session_is_opened_by_last_by_its_end_and_by_its_beginning() -> None:
    reenact("run", "one", "-m", "scripted:echo")
    session_id = reenact("sessions", "--json").row["sessionId"]

    for word in ("last", session_id, session_id[-8:], session_id[:20], session_id.removeprefix("sess_")[:12]):
        assert reenact("run", "again", "-m", "scripted:echo", "--session", word).code == 0

    assert reenact("sessions", "--json").row["jobs"] == 6


def test_an_id_that_fits_several_sessions_is_refused_with_the_candidates() -> None:
    for name in ("first", "second"):
        reenact("run", "hi", "-m", "scripted:hello", "--session", name)

    for command in (["run", "hi"], ["messages"], ["replay"], ["export"]):
        option = ["--session", "sess_0"] if command[0] == "run" else ["sess_0"]
        ended = reenact(*command, *option)
        said = one_line(ended)
        assert ended.code == 2 and "(first)" in said and "(second)" in said


def test_an_unknown_id_is_one_line_and_exit_1_and_makes_no_session() -> None:
    reenact("run", "hi", "-m", "scripted:hello")

    ended = reenact("run", "hi", "-m", "scripted:hello", "--session", "sess_ffff")

    assert ended.code == 1 and "no session" in one_line(ended)
    assert len(reenact("sessions", "--all", "--json").rows) == 1


def test_a_session_goes_on_with_the_model_it_last_had() -> None:
    reenact("run", "one", "-m", "scripted:echo", "--session", "s")
    reenact("run", "two", "-m", "scripted:hello")

    assert reenact("run", "three", "--session", "s").out == "three\n"


def test_a_new_image_keeps_the_model_and_an_old_one_does_not_take_another() -> None:
    reenact("run", "one", "--image", "parrot", "-m", "scripted:echo")
    reenact("run", "two", "--image", "parrot", "-m", "scripted:hello")

    assert reenact("run", "three", "--image", "parrot").out == "three\n"
    assert reenact("images", "--json").row["model"] == "scripted:echo"


def test_a_session_is_not_opened_as_one_of_another_image() -> None:
    reenact("run", "one", "--image", "parrot", "-m", "scripted:echo", "--session", "s")

    ended = reenact("run", "two", "--image", "owl", "--session", "s")

    assert ended.code == 2 and "'parrot'" in one_line(ended)


def test_instructions_without_an_image_are_of_this_conversation_alone() -> None:
    reenact("run", "one", "-m", "scripted:echo", "--system", "Speak like a pirate.")
    reenact("run", "two", "-m", "scripted:echo")

    prompts = [row["config"]["systemPrompt"] for row in reenact("images", "--json").rows]
    assert sorted(prompts) == ["", "Speak like a pirate."]


def test_the_environment_chooses_the_model_where_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REENACT_MODEL", "scripted:echo")

    assert reenact("run", "said") == (0, "said\n", "")


def test_provider_and_model_make_one_name() -> None:
    assert reenact("run", "said", "-p", "scripted", "-m", "echo").out == "said\n"
    assert reenact("run", "said", "-p", "scripted", "-m", "scripted:echo").out == "said\n"
    assert reenact("run", "said", "-p", "scripted").out.startswith("Hello!")
