"""What a runtime knows, and how it is hidden: in every encoding, however many there are, in any number of pieces."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reenact import Runtime
from reenact.events.agent import AnswerModel, SettleTool
from reenact.events.content import File, Image, Text, Thinking, ToolCall
from reenact.events.errors import BadInput, NotFound, Unrevealed
from reenact.events.image import ImageConfig, UpdateImage
from reenact.events.model import Credentials, ModelAnswer
from reenact.events.secret import SHORTEST_CHARS, Secret
from reenact.events.session import Send
from reenact.events.stream import InputJsonDelta, TextBlockStop, TextDelta, ThinkingDelta, ToolProgress
from reenact.secrets.forms import FEW
from reenact.secrets.vault import Vault
from reenact.secrets.veil import HELD_MAX, Veil

VALUES = st.text(min_size=SHORTEST_CHARS, max_size=40).filter(lambda text: len(text.strip()) >= SHORTEST_CHARS)
PRINTED = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="'"), min_size=8, max_size=40)


def vault(*values: str, patterns: Any = ()) -> Vault:
    made = Vault(patterns)
    for number, value in enumerate(values):
        made.add(f"n{number}", value)
    return made


ENCODINGS: list[Any] = [
    lambda value: value,
    lambda value: json.dumps({"a": value}),
    lambda value: json.dumps({"a": value}, ensure_ascii=False),
    lambda value: quote(value),
    lambda value: quote(value, safe=""),
    quote_plus,
    lambda value: repr([value]),
    *(lambda value, n=n: base64.b64encode(b"u" * n + value.encode() + b"!?").decode() for n in range(4)),
    *(lambda value, n=n: base64.urlsafe_b64encode(b":" * n + value.encode()).decode() for n in range(4)),
]


@pytest.mark.parametrize("number", range(len(ENCODINGS)))
@given(value=PRINTED, around=st.text())
@example(value="sk/a+b=c d&e%ü€", around="")
@settings(max_examples=30)
def test_a_known_value_is_masked_in_its_common_encodings(number: int, value: str, around: str) -> None:
    try:
        said = ENCODINGS[number](value)
    except UnicodeEncodeError:
        return
    text = f"{around}{said}{around}"
    known = vault(value)
    shown = known.text(text)
    assert "[secret:n0]" in shown
    command = SettleTool(tool="t1", outcome="ok", output=text)
    assert known.hidden(command).output == shown


@pytest.mark.parametrize("others", [0, 100])
@example(before=b"a" * 33, after=b"", end="\n")
@example(before=b"a" * 34, after=b"", end="\n")
@given(before=st.binary(max_size=120), after=st.binary(max_size=120), end=st.sampled_from(["\n", "\r\n"]))
def test_in_base64_of_many_lines_a_value_is_found_that_stands_in_one_of_them(
    others: int, before: bytes, after: bytes, end: str
) -> None:
    """Given base64 in lines of 76 letters, when a value stands in one line of it, then it is masked, and where a line
    ends in it the text is as it was: so much is promised, and no more."""
    value = b"Zx9Qw7LmkTpR5vY2Hd83KsW1"
    said = base64.encodebytes(before + value + after).decode().replace("\n", end)
    first, last = len(before) // 57, (len(before) + len(value) - 1) // 57
    hidden = vault(value.decode(), *(f"another value {number}" for number in range(others))).text(said)
    assert ("[secret:n0]" in hidden) == (first == last) and (first == last or hidden == said)


@given(
    st.lists(VALUES, min_size=1, max_size=4),
    st.lists(VALUES, min_size=FEW + 1, max_size=40, unique_by=str.strip),
    *(st.text(), st.text()),
)
@settings(max_examples=50)
def test_many_are_found_as_few_are(few: list[str], more: list[str], before: str, after: str) -> None:
    small, large = vault(*few), vault(*few, *more)
    assert len(large._forms) > FEW
    for value in few:
        text = before + value.strip() + after
        assert value.strip() in small._found(text.encode("utf-8", "surrogatepass"), "default")
        assert value.strip() in large._found(text.encode("utf-8", "surrogatepass"), "default")
        assert small.holds(text) and large.holds(text)


def test_with_ten_thousand_known_it_takes_hardly_longer() -> None:
    chance = random.Random(1)
    known, alone = vault("one-of-a-kind-value"), vault("one-of-a-kind-value")
    for number in range(10_000):
        known.given("p", Credentials(api_key=f"key-{number}-{chance.randbytes(12).hex()}"))
    command = SettleTool(tool="t1", outcome="ok", output="The quick brown fox jumps over the lazy dog. " * 100)

    def took(of: Vault) -> float:
        best = 9.0
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(20):
                assert of.hidden(command) is command
            best = min(best, time.perf_counter() - began)
        return best

    assert took(known) < 40 * took(alone)
    assert known.text("so one-of-a-kind-value it is") == "so [secret:n0] it is"


def test_credentials_beyond_the_bound_are_forgotten_oldest_first_and_named_ones_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reenact.secrets.vault.SECRETS_MAX", 30)
    known = vault("a-named-value")
    for number in range(60):
        known.given("p", Credentials(api_key=f"a-key-of-tenant-{number:03}"))
    assert known.text("a-named-value a-key-of-tenant-000 a-key-of-tenant-059") == (
        "[secret:n0] a-key-of-tenant-000 [secret:p_key]"
    )
    assert len(known._known) == 30


def test_a_longer_value_goes_before_one_that_is_in_it() -> None:
    assert vault("abcdefgh", "abcdefgh-ijkl").text("abcdefgh-ijkl abcdefgh") == "[secret:n1] [secret:n0]"


@pytest.mark.parametrize("value", ["123", " 12 ", "é" * 3, "", "\n"])
def test_a_value_that_could_not_be_told_from_other_text_is_refused(value: str) -> None:
    with pytest.raises(BadInput):
        Vault().add("pin", value)


@pytest.mark.parametrize("name", ["", " ", "a]b", "x" * 65, "a\nb"])
def test_a_name_that_no_mask_can_show_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        Vault().add(name, "long enough")


@pytest.mark.parametrize("key", ["ollama", "Dummy", "lm-studio", "EMPTY"])
def test_what_a_server_without_keys_is_given_for_one_is_no_secret(key: str) -> None:
    known = Vault()
    known.given("openai", Credentials(api_key=key))
    known.environment({"OPENAI_API_KEY": key})
    assert known.text(f"{key} runs models") == f"{key} runs models"


@pytest.mark.parametrize("value", ["main", "4096", "postgres", "password", "created_at", "production"])
def test_what_is_handed_over_as_a_secret_is_hidden_whatever_it_looks_like(value: str) -> None:
    text = f'so "{value}" it is: x{value}x'
    handed, of_a_provider, of_a_variable = Vault([]), Vault([]), Vault([])
    handed.add("mine", Secret(value))
    of_a_provider.given("openai", Credentials(api_key=value))
    of_a_variable.environment({"OPENAI_API_KEYS": f"{value}, another-one-here"})
    for known in (handed, of_a_provider, of_a_variable):
        assert value not in known.text(text)
        assert value not in known.hidden(SettleTool(tool="t", outcome="ok", output=text)).output
        assert value not in "".join(shown(known, list(text)))


def test_a_key_that_is_too_short_to_be_hidden_is_told_of_once_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    known = Vault()
    for _ in range(3):
        known.given("openai", Credentials(api_key="q7!"))
        known.environment({"ANTHROPIC_API_KEY": "q7!"})
    assert known.text("q7!") == "q7!"
    said = [record.getMessage() for record in caplog.records]
    assert [each.partition(" ")[0] for each in said] == ["openai_key", "ANTHROPIC_API_KEY"]
    assert all("less than 4 characters" in each and "q7!" not in each for each in said)


def test_short_values_are_found_among_many_others_and_forgotten_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reenact.secrets.vault.SECRETS_MAX", 40)
    known = vault("a-named-value", "pin5")
    for number in range(38):
        known.given("p", Credentials(api_key=f"q{number:03}"))
    assert len(known._forms) > FEW
    assert known.text("a pin5 b q000 c q037") == "a [secret:n1] b [secret:p_key] c [secret:p_key]"
    known.given("p", Credentials(api_key="q999"))
    assert known.text("a pin5 b q000 c q037") == "a [secret:n1] b q000 c [secret:p_key]"
    assert "".join(shown(known, ["a pi", "n", "5 q0", "00"])) == "a [secret:n1] q000"


def test_the_password_of_an_address_is_known_too() -> None:
    known = Vault()
    known.given("openai", Credentials(base_url="https://me:hunter2hunter2@host/v1"))
    assert known.text("it is hunter2hunter2") == "it is [secret:openai_password]"


def test_a_key_in_the_query_of_an_address_is_known_too_and_what_no_name_tells_of_is_not() -> None:
    known = Vault()
    key, other, place = "Zq7vX9pL2mN4rT6wY8aB", "k3%2BxQ9%2FvB7rT2nM5w%3D%3D", "Hd8wKp3sVb6nRt1yUx4c"
    address = f"https://host/{place}/v1?region=eu-west-1&api_key={key}&token={other}&api-version=2024-10-21"
    given = Credentials(base_url=address)
    known.given("openai", given)
    for secret in (key, other, "k3+xQ9/vB7rT2nM5w=="):
        assert known.text(f"it is {secret}.") == "it is [secret:openai_address]."
    for word in (place, "eu-west-1", "2024-10-21"):
        assert known.text(f"it is {word}.") == f"it is {word}."
    assert key not in repr(given) and other not in repr(given)


def test_every_text_of_a_command_is_searched_and_one_without_is_the_very_same_object() -> None:
    known = vault("the-hidden-value")
    text = "so: the-hidden-value."
    shown = "so: [secret:n0]."
    answer = AnswerModel(
        call="m1",
        answer=ModelAnswer(
            parts=(
                Text(text=text, extra={"a": [text]}),
                Thinking(thinking=text, provider="x", signature=text),
                ToolCall(id="c1", name="n", input={"a": {text: [text]}}, invalid=text),
            ),
            stop_reason="end_turn",
        ),
    )
    hidden = known.hidden(answer)
    assert hidden.answer.parts == (
        Text(text=shown, extra={"a": [shown]}),
        Thinking(thinking=shown, provider="x", signature=shown),
        ToolCall(id="c1", name="n", input={"a": {shown: [shown]}}, invalid=shown),
    )
    config = ImageConfig(system_prompt=text, metadata={"k": text}, description=text)
    assert known.hidden(UpdateImage(config=config, updated_at=1)).config == ImageConfig(
        system_prompt=shown, metadata={"k": shown}, description=shown
    )
    innocent = Send(job_id="j", content=(Text(text="hi"),))
    assert known.hidden(innocent) is innocent


def test_a_file_that_holds_a_known_value_is_left_out_whole() -> None:
    known = vault("the-hidden-value")
    inside = base64.b64encode(b"x the-hidden-value y").decode()
    for part in (Image(media_type="image/png", data=inside), File(media_type="text/plain", name="a", data=inside)):
        (left,) = known.hidden(Send(job_id="j", content=(part,))).content
        assert isinstance(left, Text) and "[secret:n0]" in left.text
    (named,) = known.hidden(Send(job_id="j", content=(File(name="the-hidden-value", url="http://x"),))).content
    assert named == File(name="[secret:n0]", url="http://x")


def test_a_secret_in_a_command_is_refused() -> None:
    with pytest.raises(Unrevealed):
        Vault().hidden(SettleTool(tool="t", outcome="ok", output=Secret("whatever it is")))  # type: ignore[arg-type]


@pytest.mark.parametrize("mark", [" ...", " [1000 bytes, not JSON]", "\n[… 99 bytes dropped …]\n"])
def test_a_value_that_somebody_cut_is_masked_as_far_as_it_goes(mark: str) -> None:
    known = vault("the-hidden-value-of-mine")
    assert known.text("it is the-hidden-va" + mark) == "it is [secret]" + mark
    assert known.hidden(SettleTool(tool="t", outcome="ok", output="it is the-hidden-va" + mark)).output.startswith(
        "it is [secret]"
    )


def test_messages_of_errors_hold_no_secrets_as_long_as_the_vault_is_there() -> None:
    known = vault("the-hidden-value")
    assert str(NotFound("no the-hidden-value here")) == "no [secret:n0] here"
    known.close()
    assert str(NotFound("no the-hidden-value here")) == "no the-hidden-value here"
    known.open()
    del known
    assert str(NotFound("no the-hidden-value here")) == "no the-hidden-value here"


def test_variables_with_the_names_of_secrets_are_known_and_others_are_not() -> None:
    known = Vault([])
    known.environment({"MY_API_KEY": "f3-value/0f=mine", "SSH_AUTH_SOCK": "/tmp/agent.sock", "DB_PASSWORD": "short"})
    assert known.text("f3-value/0f=mine /tmp/agent.sock short") == "[secret:MY_API_KEY] /tmp/agent.sock short"
    assert known.get("MY_API_KEY") is None


def test_runtimes_that_are_dropped_and_not_closed_leave_no_trace_in_loggers_and_errors() -> None:
    import gc
    import logging

    from reenact.secrets import shade as module

    logger = logging.getLogger("reenact")
    kept = Vault()
    kept.open()
    before = len(module._OPEN), len(logger.filters)
    for _ in range(100):
        Vault().open()
    gc.collect()
    assert (len(module._OPEN), len(logger.filters)) == before
    kept.close()


# -- in pieces --


def shown(known: Vault, pieces: list[str], kind: Any = TextDelta) -> list[str]:
    """What a watcher sees of a text that comes in pieces, piece by piece."""
    veil, seen = Veil(known), []
    field = "partial_json" if kind is InputJsonDelta else "text"
    for piece in pieces:
        seen += [getattr(each, field) for each in veil.show(kind(**{field: piece}))]
    return seen + [getattr(each, field) for each in veil.rest()]


SECRETS = ["the-hidden-value", "sk-ant-api03-AAAAbbbbCCCCdddd1111", "Bearer AAAAbbbbCCCCdddd1111"]
SECRETS += ["https://me:hunter2hunter2@db.example/", "AKIAABCDEFGHIJKLMNOP", "me@example.com", "EMP-123456"]
SECRETS += ["-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKC\n-----END PRIVATE KEY-----", "4111 1111 1111 1111"]
ALL = {"email": True, "card": True, "employee": r"EMP-\d{6}"}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("kind", [TextDelta, ThinkingDelta, InputJsonDelta])
def test_a_secret_in_two_pieces_is_never_seen_wherever_it_is_split(secret: str, kind: Any) -> None:
    text = f"It is {secret} and that is that. "
    for known in (vault("the-hidden-value", patterns=ALL),):
        whole = known.text(text)
        assert secret not in whole
        for first in range(len(text) + 1):
            for second in range(first, len(text) + 1, 3):
                seen = shown(known, [text[:first], text[first:second], text[second:]], kind)
                assert "".join(seen) == whole
        assert "".join(shown(known, list(text), kind)) == whole


WORDS = st.lists(st.sampled_from([*SECRETS, "the-hidden", "the-hidden-valu", "x", "sk-", ":", "e", "-----", "\n"]))


def in_pieces(data: Any, text: str) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@settings(max_examples=500)
@given(st.data(), WORDS, st.sampled_from([ALL, None]))
def test_whatever_comes_in_whatever_pieces_is_shown_as_it_is_stored(data: Any, words: list[str], patterns: Any) -> None:
    known = vault("the-hidden-value", "value-and-more", patterns=patterns)
    text = " ".join(words)
    assert "".join(shown(known, in_pieces(data, text))) == known.text(text)


@given(st.data(), WORDS)
def test_known_values_are_not_seen_either_where_they_touch_other_secrets(data: Any, words: list[str]) -> None:
    known = vault("the-hidden-value", "value-and-more", patterns=ALL)
    seen = "".join(shown(known, in_pieces(data, "".join(words))))
    assert "the-hidden-value" not in seen and "value-and-more" not in seen


def test_text_that_holds_no_secret_is_shown_piece_by_piece_without_delay() -> None:
    words = ["The", "quick", "brown", "fox", "said", "that", "it", "would", "not", "run", "any", "more", "."]
    pieces = [f"{word} " for word in words]
    assert shown(vault("the-hidden-value", "another-one-here"), pieces) == pieces


def test_what_is_held_back_comes_before_the_stop_and_kinds_do_not_mix() -> None:
    veil = Veil(vault("the-hidden-value"))
    assert veil.show(TextDelta(text="so the-hid")) == (TextDelta(text="so "),)
    assert veil.show(ThinkingDelta(text="den-value")) == (ThinkingDelta(text="den-value"),)
    assert veil.show(TextDelta(text="den")) == ()
    assert veil.show(TextBlockStop()) == (TextDelta(text="the-hidden"), TextBlockStop())
    assert veil.rest() == ()
    assert veil.show(ToolProgress(tool_id="t", text="the-hidden-value")) == (
        ToolProgress(tool_id="t", text="[secret:n0]"),
    )


def test_what_never_stops_looking_like_a_secret_is_not_shown_to_its_end() -> None:
    known = Vault()
    seen = shown(known, ["key: sk-", *("A" * 1000 for _ in range(HELD_MAX // 1000 + 20)), "tail"])
    assert "".join(seen) == "key: [secret:api_key]"


def test_what_was_shown_already_is_left_alone_also_before_a_cut() -> None:
    known = vault("p@ss w0rd!")
    text = "p@ss w0rd ..."
    for start in range(1, len(text) + 1):
        assert known.text(text, start)[:start] == text[:start]
    assert known.text("so p@ss w0rd ...") == "so [secret] ...", "a beginning that was cut off is masked"


def test_of_a_live_text_no_letter_is_lost_where_three_dots_stand_behind_what_begins_like_a_secret() -> None:
    async def live() -> None:
        async with Runtime("memory://") as runtime:
            runtime.secret("n", "p@ss w0rd!")
            bot = await runtime.image("bot", model="scripted:echo")
            for text in ("p@ss w0rd ...x", "p@ss w0rd ...p@ss w0rdlonger"):
                heard: list[str] = []
                with runtime.on("text_delta", lambda event, heard=heard: heard.append(event.data.text)):
                    assert (await bot.send(text)).text == text == "".join(heard)

    asyncio.run(asyncio.wait_for(live(), 30))
