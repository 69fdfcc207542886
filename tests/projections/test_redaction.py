"""What an audit shows of parameters: no secrets, nothing long."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reenact.projections.redaction import HIDDEN, ITEMS_MAX, TEXT_CHARS, names_secret, redacted

SECRET_KEYS = [
    *("password", "dbPassword", "PASSWORD", "user_passwd", "pin", "token", "accessToken", "access_token", "jwt"),
    *("X-API-Key", "apiKey", "api_key", "APIKey", "OPENAI_API_KEY", "aws-access-key-id", "privateKey"),
    *("client_secret", "authorization", "Authorization", "cookie", "credentials"),
]
OTHER_KEYS = [
    *("max_tokens", "tokens", "tokenizer", "key", "keys", "primary_key", "monkey", "keyboard"),
    *("author", "secretary", "passage", "compass", "path"),
]


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_a_field_that_names_a_secret_is_hidden(key: str) -> None:
    assert redacted({key: "hunter2", "also": {"deep": [{key: {"a": 1}}]}}) == {
        key: HIDDEN,
        "also": {"deep": [{key: HIDDEN}]},
    }


@pytest.mark.parametrize("key", OTHER_KEYS)
def test_a_field_that_only_sounds_like_one_is_shown(key: str) -> None:
    assert redacted({key: "value"}) == {key: "value"}
    assert not names_secret(key)


def test_an_empty_secret_is_no_secret() -> None:
    assert redacted({"password": None, "token": "", "auth": False}) == {"password": None, "token": "", "auth": False}


@pytest.mark.parametrize(
    "text",
    [
        "curl -H 'Authorization: Bearer abc.def-ghi_jkl012' https://x",
        "sk-ant-REDACTED",
        "use ghp_0123456789abcdefghij to push",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIEow cut off",
        "postgres://bob:hunter2@db.example/x",
    ],
)
def test_what_looks_like_a_secret_is_hidden_within_a_text(text: str) -> None:
    shown = redacted({"command": text})["command"]
    assert HIDDEN in shown
    for piece in ("hunter2", "MIIEow", "abc.def", "api03", "0123456789", "EXAMPLE", "c2lnbmF0"):
        assert piece not in shown


def test_what_is_long_is_cut_and_says_how_long_it_was() -> None:
    shown = redacted({"text": "x" * 10_000, "list": list(range(1000)), "map": {str(n): n for n in range(1000)}})
    assert shown["text"] == "x" * TEXT_CHARS + "… (10000 characters)"
    assert shown["list"][-1] == f"({1000 - ITEMS_MAX} more)"
    assert shown["map"]["…"] == f"({1000 - ITEMS_MAX} more)"


def test_what_is_deep_is_counted() -> None:
    deep: Any = {"end": 1}
    for _ in range(500):
        deep = {"in": [deep]}
    assert len(str(redacted(deep))) < 200


def test_a_secret_that_the_cut_would_halve_is_hidden_whole() -> None:
    text = "x " * (TEXT_CHARS // 2 - 10) + "sk-" + "a1b2c3d4e5" * 20
    assert "a1b2" not in redacted(text)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=60) | st.dictionaries(st.text(max_size=12), inner, max_size=60),
    max_leaves=60,
)


@given(values)
def test_whatever_it_is_it_stays_json_of_bounded_size(value: Any) -> None:
    shown = redacted(value)
    assert msgspec.json.decode(msgspec.json.encode(shown)) == msgspec.json.decode(msgspec.json.encode(shown))
    assert redacted("x" * 10**6) == "x" * TEXT_CHARS + "… (1000000 characters)"


@given(st.sampled_from(SECRET_KEYS), st.text("abcdefgh", min_size=12, max_size=12), values)
def test_a_named_secret_never_gets_through(key: str, secret: str, beside: Any) -> None:
    assume(secret not in msgspec.json.encode(beside).decode())
    held = {"a": [beside, {key: secret}], key: {"x": [secret]}}
    assert secret not in msgspec.json.encode(redacted(held)).decode()
