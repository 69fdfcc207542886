"""The conversation as people see it: messages with ids that never change, and lines that anyone can read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta, timezone

import msgspec
from hypothesis import given

from reenact.events.content import File, Image, Native, Text, Thinking
from reenact.events.message import Recorded
from reenact.events.notice import ErrorMessage, Message, ShownOutput, ShownResult
from reenact.projections.transcript import Transcript
from tests.histories import History, call, erase, histories


def read(events: Iterable[Recorded]) -> Transcript:
    transcript = Transcript()
    for recorded in events:
        transcript.apply(recorded)
    return transcript


def messages(events: Iterable[Recorded]) -> list[Message]:
    return list(read(events).messages)


def lines(events: Iterable[Recorded]) -> list[str]:
    """Without the day and the times."""
    return [line[10:] for line in read(events).reader_lines() if line[2:3] == ":" or line.startswith(" ")]


# -- messages --


def test_a_turn_with_a_tool_is_five_messages_that_name_their_parents() -> None:
    asked = call("refund", id="toolu_1", order="42")
    history = History().send("Refund 42").answers("Let me see.", asked).settles(output="refunded").answers("Done.")
    user, said, called, result, done = messages(history)
    assert [(m.role, m.subtype) for m in messages(history)] == [
        ("user", "user"),
        ("assistant", "assistant"),
        ("assistant", "tool-call"),
        ("tool", "tool-result"),
        ("assistant", "assistant"),
    ]
    assert user.content == (Text(text="Refund 42"),)
    assert said.content == (Text(text="Let me see."), asked)
    assert called.content == (asked,) and called.parent_id == said.id
    shown = ShownResult(id="toolu_1", name="refund", output=ShownOutput(type="text", value="refunded"))
    assert result.content == (shown,) and result.parent_id == called.id
    assert done.content == (Text(text="Done."),) and done.parent_id is None


def test_a_message_is_named_after_its_session_and_the_version_of_its_event() -> None:
    history = History("sess_0199abc").send("hi").answers("ho")
    assert [m.id for m in messages(history)] == ["msg_0199abc_2", "msg_0199abc_8"]


def test_a_queued_input_has_its_id_before_it_enters() -> None:
    transcript = read(History().send("one").send("two"))
    assert [m.content[0].text for m in transcript.messages] == ["one"]  # type: ignore[union-attr]
    assert transcript.queued == ["msg_1_8"]
    later = read(History().send("one").send("two").answers("ok"))
    assert later.messages[-1].id == "msg_1_8" and not later.queued


def test_a_message_is_as_old_as_its_entry_into_the_conversation() -> None:
    history = History().send("one").send("two").later(60).answers("ok")
    first, answer, second = messages(history)
    assert answer.timestamp - first.timestamp == 62_000
    assert second.timestamp == answer.timestamp  # it waited until then


def test_text_and_calls_keep_their_order_within_an_answer() -> None:
    one, two = call(id="a"), call(id="b")
    history = History().send("go").answers("first", one, "then", two)
    assert messages(history)[1].content == (Text(text="first"), one, Text(text="then"), two)


def test_an_answer_of_nothing_but_calls_or_blanks_has_no_message_of_its_own() -> None:
    history = History().send("go").answers(" ", call()).settles().answers("\n")
    assert [m.subtype for m in messages(history)] == ["user", "tool-call", "tool-result"]
    assert messages(history)[1].parent_id == messages(history)[0].id


def test_the_kind_of_a_result_says_how_to_read_it() -> None:
    picture = (Image(media_type="image/png", data="AA=="),)
    history = History().send("go").answers(call(id="a"), call(id="b"), call(id="c"), problems={2: "bad input"})
    history.settles(output=picture).settles(output="no", outcome="denied")
    kinds = [part.output.type for m in messages(history) for part in m.content if isinstance(part, ShownResult)]
    assert kinds == ["error-text", "content", "execution-denied"]


def test_an_interrupted_answer_keeps_what_was_said() -> None:
    history = History().send("go").interrupt().fails("cancelled", "So far")
    assert [m.subtype for m in messages(history)] == ["user", "assistant"]


def test_a_turn_that_fails_ends_with_an_error_message() -> None:
    *_, error = messages(History().send("go").fails("auth", message="The key is not valid."))
    assert isinstance(error, ErrorMessage)
    assert (error.role, error.error_code) == ("error", "auth")
    assert error.content == (Text(text="The key is not valid."),)


def test_reasoning_is_shown_and_a_foreign_block_only_by_its_text() -> None:
    thinking = Thinking(thinking="hm", provider="anthropic", signature="s")
    native = Native(provider="openai", block={"type": "web_search_call"}, text="searched")
    hidden = Native(provider="openai", block={"type": "x"})
    assert messages(History().send("go").answers(thinking, native, hidden, "ok"))[1].content == (
        thinking,
        Text(text="searched"),
        Text(text="ok"),
    )


@given(histories())
def test_ids_are_unique_every_parent_came_before_and_the_same_log_gives_the_same_messages(history: History) -> None:
    transcript = Transcript()
    known: set[str] = set()
    for recorded in history:
        before = len(transcript.messages)
        transcript.apply(recorded)
        transcript.reader_lines()
        for message in transcript.messages[before:]:
            assert message.id not in known
            assert message.parent_id is None or message.parent_id in known
            assert message.content
            known.add(message.id)
    assert msgspec.json.encode(transcript.messages) == msgspec.json.encode(messages(history))


@given(histories())
def test_no_call_has_two_results(history: History) -> None:
    parents = [m.parent_id for m in messages(history) if m.subtype == "tool-result"]
    assert len(parents) == len(set(parents)) and None not in parents


# -- lines --


def test_a_person_reads_a_conversation() -> None:
    history = History().send("Refund order 42").answers("Let me see.", call("refund", order="42", cents=300))
    history.settles(output="refunded 3.00").answers("Done:\n3.00 are on their way.")
    assert read(history).reader_lines() == [
        "2025-06-15",
        "15:06:42  you        Refund order 42",
        "15:06:43  assistant  Let me see.",
        '15:06:43  tool       refund(order="42", cents=300) → refunded 3.00 [ok]',
        "15:06:45  assistant  Done:",
        "                     3.00 are on their way.",
    ]


def test_times_are_told_in_the_readers_zone() -> None:
    assert read(History().send("hi")).reader_lines(zone=timezone(timedelta(hours=9))) == [
        "2025-06-16",
        "00:06:42  you        hi",
    ]


def test_a_call_says_how_it_stands() -> None:
    history = History().send("go").answers(call("pay", cents=1))
    assert lines(history)[-1] == "tool       pay(cents=1) [running]"
    history.doubts()
    assert lines(history)[-1] == "tool       pay(cents=1) [in doubt: waits for a person]"
    history.resolves(output="It was paid.")
    assert lines(history)[-1] == "tool       pay(cents=1) → It was paid. [ok]"


def test_interruptions_retries_and_errors_are_marked() -> None:
    history = History().send("go").fails("overloaded", "Hal", retry_in_ms=500, message="Too busy.")
    history.interrupt().fails("cancelled", "Half an answer").send("again").fails("stream_cut", "Bro")
    assert lines(history) == [
        "you        go",
        "--         Too busy. (overloaded), again in 0.5 s",
        "assistant  Half an answer [interrupted]",
        "--         interrupted: user_interrupt",
        "you        again",
        "assistant  Bro [broke off: stream_cut]",
        "error      It failed. [stream_cut]",
    ]


def test_an_answer_that_ran_out_of_tokens_says_so() -> None:
    assert lines(History().send("go").answers("Once upon", stop_reason="max_tokens"))[-1] == (
        "assistant  Once upon [cut off: no tokens left]"
    )


def test_long_inputs_and_results_are_cut_to_one_line() -> None:
    history = History().send("go").answers(call("read", path="x" * 500)).settles(output="line\n" * 1000)
    line = lines(history)[1]
    assert "\n" not in line and len(line) < 200 and "…" in line
    assert "read(path=" in line


def test_pictures_and_files_are_named() -> None:
    history = History().send("look", Image(media_type="image/png", data="AA=="), File(name="a.pdf", file_id="f1"))
    assert lines(history) == ["you        look", "           [image image/png]", "           [file a.pdf]"]


def test_text_cannot_move_the_terminals_cursor_or_turn_its_direction() -> None:
    nasty = "a\x1b[2Jb\x9bc\u202ed\re"
    history = History().send(nasty).answers(nasty, call("f", id="a", x=nasty)).settles(output=nasty)
    history.interrupt(nasty).fails("cancelled")
    shown = "\n".join(read(history).reader_lines())
    assert not set(shown) & {"\x1b", "\x9b", "\u202e", "\r"}
    assert "a\ufffd[2Jb" in shown


def test_erased_words_are_marked_where_they_stood() -> None:
    history = History().send("my name is Ann").answers("Hi Ann", call()).settles(output="Ann").answers("ok")
    gone = [r.version for r in history if r.type in ("job_queued", "model_answered", "tool_settled")]
    assert lines(erase(history.events, *gone)) == [
        "you        [erased]",
        "assistant  [erased]",
        "tool       refund() → [erased] [ended]",
        "assistant  [erased]",
    ]
