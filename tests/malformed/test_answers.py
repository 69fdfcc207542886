"""Malformed answers of people, whole and as they are typed."""

import json
import random
from typing import Any

import pytest

from reenact.actors import question
from reenact.actors.question import check_resolution
from reenact.adapters.cli import answers
from reenact.adapters.cli.answers import Given, resolution_of
from reenact.events import codec
from reenact.events.action import ActionResolved
from reenact.events.errors import BadInput, BadResolution
from tests.malformed.attack import attacked, finds, plain_bytes

ANSWERS: dict[Any, tuple[dict[str, Any], Any]] = {
    "confirm": ({}, {"approved": True, "comment": "fine"}),
    "choose": ({"options": ["red", "blue"], "multiple": True}, {"choices": ["red"]}),
    "input": ({"min_length": 1}, {"text": "words"}),
    "upload": ({}, {"files": [{"name": "a", "mediaType": "text/plain", "bytes": 2, "digest": "d", "data": "aGk="}]}),
    "reauth": ({"secret": "shop"}, {"authenticated": True, "secret": "shop"}),
    "apply_changes": ({"changes": [1, 2]}, {"approved": True, "changes": [0]}),
    "custom": ({}, {"any": {"thing": [1]}}),
}


def answered(data: bytes) -> None:
    """A whole answer as a person or a program gives it; the first byte says to what, the rest is the answer."""
    kind = list(ANSWERS)[(data[0] if data else 0) % len(ANSWERS)]
    payload, _ = ANSWERS[kind]
    text = data[1:].decode("utf-8", "surrogateescape")
    row = {"type": kind, "payload": payload, "reason": "", "call": None}
    given = resolution_of(row, Given(resolution=text), lambda: text)
    check_resolution(kind, payload, given)
    codec.row(ActionResolved(action="a1", resolution=given, at=0, by="ann"))


def test_answers_of_people() -> None:
    whole = [bytes([n]) + json.dumps(answer).encode() for n, (_, answer) in enumerate(ANSWERS.values())]

    def twist(rng: random.Random) -> bytes:
        number = rng.randrange(len(ANSWERS))
        return bytes([number]) + plain_bytes(rng, [list(ANSWERS.values())[number][1]])

    attacked(answered, whole, (BadInput, BadResolution), twist)


def test_what_people_type_for_an_answer() -> None:
    def parse(data: bytes) -> None:
        kind = list(ANSWERS)[(data[0] if data else 0) % len(ANSWERS)]
        payload, _ = ANSWERS[kind]
        text = data[1:].decode("utf-8", "surrogateescape")
        row = {"type": kind, "payload": payload, "reason": "", "call": None}
        given = Given(**{"input": {"text": text}, "choose": {"choose": (text,)}}.get(kind, {"file": (text,)}))
        check_resolution(kind, payload, resolution_of(row, given, lambda: text))

    attacked(parse, [b"\2words", b"\1red", b"\1blue"], (BadInput, BadResolution))


# -- and the attack can find something

BROKEN: dict[str, tuple[object, str, Any]] = {
    "answers": (answers, "read_object", lambda text, what: json.loads(text)),
    "answers: a choice": (question, "_check_choice", lambda payload, given: given["choices"][0].strip()),
}


@pytest.mark.parametrize("build", BROKEN)
def test_each_of_them_that_trusts_its_input_is_found(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, broken = BROKEN[build]
    monkeypatch.setattr(where, name, broken)
    if name.startswith("_check"):
        monkeypatch.setitem(question._CHECKS, "choose", broken)
    finds(test_answers_of_people)
