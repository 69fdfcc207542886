"""What looks like a secret: the patterns that come with reenact, and the bounds of those that a user gives."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.events.errors import BadInput
from reenact.secrets.patterns import PATTERNS, key_like, pattern, patterns_of
from reenact.secrets.vault import Vault

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"
KEYS = [
    "sk-ant-api03-AAAAbbbbCCCCdddd1111",
    "sk-proj-AAAAbbbbCCCCdddd1111",
    "sk_" + "live_AAAAbbbbCCCC",
    "ghp_AAAAbbbbCCCCdddd1111eeee",
    "gho_AAAAbbbbCCCCdddd1111eeee",
    "ghs_AAAAbbbbCCCCdddd1111eeee",
    "github_pat_AAAAbbbbCCCCdddd1111eeee",
    "glpat-AAAAbbbbCCCCdddd11",
    "xoxb-111111-222222-AAAA",
    "npm_AAAAbbbbCCCCdddd1111eeeeFFFF2222ggg",
    "hf_AAAAbbbbCCCCdddd1111eeeeFFFF2222ggg",
    "AKIAABCDEFGHIJKLMNOP",
    "ASIAABCDEFGHIJKLMNOP",
    "AIzaAAAAbbbbCCCCdddd1111eeeeFFFF2222ggg",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    PEM,
]
IN_PART = ["Bearer AAAAbbbbCCCCdddd1111", "https://me:hunter2hunter2@db.example/x"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("around", ["{}", "the key is {}.", 'key="{}"', "key={}&x=1", "({})", "\n{}\n", "/{}/"])
def test_what_looks_like_a_key_is_masked(key: str, around: str) -> None:
    if around == "/{}/" and key[:2] in ("AK", "AS", "AI"):
        return
    shown = Vault().text(around.format(key))
    assert key[12:] not in shown and "[secret:" in shown
    assert key_like(around.format(key).encode())


@pytest.mark.parametrize("text", IN_PART)
def test_of_a_header_or_an_address_the_secret_part_is_masked(text: str) -> None:
    shown = Vault().text(f"GET {text} now")
    assert "hunter2" not in shown and "CCCC" not in shown
    assert shown.startswith("GET ") and shown.endswith(" now") and key_like(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "a risk-averse-and-quite-long-hyphenated-word",
        "task-0190aaaa-bbbb-cccc-dddd-eeeeeeee",
        "---\n| a | b |\n|-----|-----|",
        "see https://example.com/a:b@c and mail me@example.com",
        "bearer of bad news that goes on and on",
        "AKIA is how they begin; SHA256 of BASE64",
        "toolu_01AAAAbbbbCCCC call_AAAAbbbbCCCCdddd sess_0190aaaabbbbccccdddd resp_AAAAbbbb",
        "sk-short",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert Vault().text(text) == text


def test_the_base64_of_pictures_and_signatures_is_left_alone() -> None:
    import base64

    chance = random.Random(7)
    vault = Vault()
    for _ in range(20):
        raw = chance.randbytes(60_000)
        for text in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()):
            assert vault.text(text) == text


@given(st.text(), st.sampled_from([*KEYS, *IN_PART]), st.text())
def test_the_quick_look_never_misses_what_the_patterns_find(before: str, key: str, after: str) -> None:
    text = before + key + after
    raw = text.encode("utf-8", "surrogatepass")
    assert key_like(raw) or Vault().text(text) == text


def test_what_people_have_is_masked_only_where_it_is_asked_for() -> None:
    text = "me@example.com, 078-05-1120, 4111 1111 1111 1111, 4111 1111 1111 1112, 1234-56-7890"
    assert Vault().text(text) == text
    shown = Vault(["email", "ssn", "card"]).text(text)
    assert shown == "[secret:email], [secret:ssn], [secret:card], 4111 1111 1111 1112, 1234-56-7890"
    assert Vault({"email": True}).text(KEYS[0] + " me@example.com") == "[secret:api_key] [secret:email]"
    assert Vault({"api_key": False}).text(KEYS[0]) == KEYS[0]
    assert Vault([]).text(KEYS[0]) == KEYS[0]


def test_a_user_may_name_a_pattern() -> None:
    vault = Vault({"employee": r"\bEMP-\d{6}\b", "case": re.compile(r"case [a-z]{2,8}", re.I)})
    assert vault.text("EMP-123456 has CASE abc, EMP-1") == "[secret:employee] has [secret:case], EMP-1"


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("(", "no regular expression"),
        ("", "nothing at all"),
        ("a?", "nothing at all"),
        ("a+", "write bounds"),
        ("x[0-9]*", "write bounds"),
        ("x" * 513, "more than 512"),
        ("(a{1,30}){1,17}b", "too long"),
        ("(?:a|aa|aaa){1,50}b", "too long"),
        (r"a{1,99}a{1,99}a{1,99}b", "too long"),
        (r"(ab{1,3})\1", "cannot be bounded"),
    ],
)
def test_a_pattern_that_is_none_or_has_no_bound_is_refused_by_name(expression: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        pattern("mine", expression)


@pytest.mark.parametrize(
    "wanted", [["phone"], {"phone": True}, {"email": 1}, "email", {"bad name": "abc"}, {"x]": "abc"}, {3: "abc"}]
)
def test_patterns_that_there_are_none_of_are_refused(wanted: Any) -> None:
    with pytest.raises(BadInput):
        patterns_of(wanted)


CLASSES = st.sampled_from(["a", "[ab]", r"\w", ".", "(?:a|b)", "(?:ab|a)"])
REPEATS = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: f"{{{min(pair)},{max(pair)}}}")


@given(st.lists(st.tuples(CLASSES, REPEATS), min_size=1, max_size=5), st.sampled_from(["c", r"\d", "a"]))
def test_whatever_is_let_through_is_quick_on_the_text_that_is_worst_for_it(parts: Any, end: str) -> None:
    try:
        found = pattern("mine", "".join(f"{each}{times}" for each, times in parts) + end)
    except BadInput:
        return
    began = time.process_time()
    for text in ("a" * 400, "ab" * 200):
        found.sub(text)
    assert time.process_time() - began < 2.0


def test_the_names_of_patterns_are_words_that_a_mask_may_hold() -> None:
    assert set(PATTERNS) >= {"email", "ssn", "card", "api_key", "bearer", "private_key", "url_password"}
    assert all(re.fullmatch(r"\w+", name) for name in PATTERNS)
