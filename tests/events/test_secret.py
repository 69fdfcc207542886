"""A secret shows itself only where it is asked to."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact import Secret
from reenact.events import codec
from reenact.events.errors import BadInput, Unrevealed
from reenact.events.image import ImageConfig, ImageCreated
from reenact.events.model import Credentials, ModelRequest
from reenact.events.payload import Payload

VALUE = "s3cr3t-value-of-mine"


@pytest.mark.parametrize(
    "shown",
    [
        str,
        repr,
        ascii,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40}",
        lambda secret: f"{secret} {secret!r}",
        lambda secret: f"{[secret]} { {'key': secret} } {(secret,)}",
        lambda secret: repr(Credentials(api_key=secret, base_url="https://me:s3cr3t-value-of-mine@host/v1")),
        lambda secret: repr(ModelRequest(model="m", system="", items=(), credentials=Credentials(api_key=secret))),
        lambda secret: str(dir(secret)) + str(getattr(secret, "__dict__", "")),
    ],
)
@pytest.mark.parametrize("name", [None, "payments"])
def test_nothing_that_shows_a_secret_shows_its_value(shown: Any, name: str | None) -> None:
    assert VALUE not in shown(Secret(VALUE, name=name))


def test_only_reveal_gives_the_value_and_the_mask_gives_the_name() -> None:
    secret = Secret(VALUE, name="payments")
    assert (secret.reveal(), str(secret), secret.name) == (VALUE, "[secret:payments]", "payments")
    assert str(Secret(VALUE)) == "[secret]"
    assert Secret(secret).reveal() == VALUE and Secret(secret).name == "payments"


@pytest.mark.parametrize(
    "encode",
    [msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins, json.dumps],
)
def test_no_encoder_takes_a_secret(encode: Any) -> None:
    for value in (Secret(VALUE), [Secret(VALUE)], {"key": Secret(VALUE)}, Credentials(api_key=VALUE)):
        with pytest.raises(TypeError) as raised:
            encode(value)
        assert VALUE not in str(raised.value)


def test_an_event_and_a_payload_with_a_secret_are_refused_by_name() -> None:
    config = ImageConfig(metadata={"key": Secret(VALUE)})  # type: ignore[dict-item]
    event = ImageCreated(image_id="i", container_id="c", session_id="s", created_at=1, config=config)
    with pytest.raises(BadInput, match="cannot be stored"):
        codec.row(event)
    with pytest.raises(BadInput):
        Payload({"key": Secret(VALUE)})


def test_it_is_not_pickled_and_a_copy_is_the_same_object() -> None:
    secret = Secret(VALUE)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(Unrevealed):
            pickle.dumps([secret], protocol)
    assert copy.copy(secret) is secret and copy.deepcopy([secret])[0] is secret


def test_it_is_compared_with_secrets_only_has_no_hash_and_does_not_change() -> None:
    secret = Secret(VALUE)
    assert secret == Secret(VALUE, name="other name") and secret != Secret(VALUE + "!") and secret != VALUE
    assert Credentials(api_key=VALUE) == Credentials(api_key=Secret(VALUE))
    for refused in (lambda: hash(secret), lambda: setattr(secret, "name", "x"), lambda: delattr(secret, "name")):
        with pytest.raises((TypeError, AttributeError)):
            refused()


@given(st.one_of(st.none(), st.integers(), st.binary(), st.just(""), st.text(alphabet=" \n\t")))
def test_what_is_no_text_or_blank_is_no_secret(value: Any) -> None:
    with pytest.raises(BadInput):
        Secret(value)


@given(st.text(min_size=1).filter(str.strip))
def test_any_text_is_kept_as_it_is(value: str) -> None:
    assert Secret(value).reveal() == value and Secret(value) == Secret(value)


def test_a_traceback_and_a_log_line_show_the_mask(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(VALUE, name="payments")
    try:
        raise ValueError(secret)
    except ValueError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        logging.getLogger("reenact").error("with %s", secret, exc_info=True)
    assert "[secret:payments]" in shown
    # This file's own source lines have no value in them either.
    assert VALUE not in caplog.text


def test_credentials_take_a_text_and_hold_a_secret() -> None:
    held = Credentials(api_key=f" {VALUE}\n").api_key
    assert isinstance(held, Secret)
    assert Credentials(api_key=f" {VALUE}\n").reveal() == VALUE
    assert Credentials(api_key=" ").api_key is None and Credentials().reveal() == ""
    assert Credentials(base_url="http://me:pw%40@host:8/x@y").password == "pw%40"
    assert Credentials(base_url="http://host/me:x@y").password is None
