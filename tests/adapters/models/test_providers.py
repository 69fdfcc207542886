"""Model strings, where keys are found, and one adapter a provider."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from reenact.adapters.models import (
    PROVIDERS,
    ModelName,
    Models,
    all_credentials_for,
    credentials_for,
    label_of,
    model_for,
)
from reenact.adapters.models.scripted import Scripted
from reenact.events.errors import BadInput
from reenact.events.model import Credentials


def test_a_model_string_is_taken_apart_at_the_first_colon() -> None:
    assert model_for("anthropic:claude-sonnet-5-5") == ModelName("anthropic", "claude-sonnet-5-5")
    assert model_for("openai-chat:qwen3:8b") == ModelName("openai-chat", "qwen3:8b")
    assert model_for("scripted:hello") == ModelName("scripted", "hello")


@pytest.mark.parametrize("name", ["", "claude", ":claude", "anthropic:", "anthropic: ", "nobody:x", "Anthropic:x"])
def test_a_bad_model_string_is_refused_with_the_providers_there_are(name: str) -> None:
    with pytest.raises(BadInput) as refused:
        model_for(name)
    assert all(provider in str(refused.value) for provider in PROVIDERS)
    assert repr(name) in str(refused.value)


UNSEEN = [
    "openai-chat: gpt-5",
    "openai-chat:gpt-5 ",
    " openai-chat:gpt-5",
    "openai-chat :gpt-5",
    "openai-chat:gpt\u200b-5",
]


@pytest.mark.parametrize("name", [*UNSEEN, "openai-chat:gpt-5\t", "openai-chat:\u00a0gpt-5"])
def test_a_name_with_spaces_around_it_or_something_unseen_in_it_is_refused(name: str) -> None:
    for parse in (model_for, Models().parse, Models({"openai-chat": Scripted([])}).parse):
        with pytest.raises(BadInput, match="spaces around its name, or characters that nobody sees"):
            parse(name)


def test_a_script_is_read_before_anything_is_started(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps([{"text": "a"}]))
    assert model_for(f"scripted:{path}").model == str(path)
    path.write_text("[{}]")
    with pytest.raises(BadInput, match="step 1"):
        model_for(f"scripted:{path}")
    with pytest.raises(BadInput, match="built in"):
        model_for("scripted:nope")


def test_keys_come_from_the_variables_of_the_provider() -> None:
    environ = {
        "ANTHROPIC_API_KEY": " k1 ",
        "ANTHROPIC_BASE_URL": "http://here",
        "OPENAI_API_KEY": " ",
        "GOOGLE_API_KEY": "k3",
    }
    assert credentials_for("anthropic", environ) == Credentials(api_key="k1", base_url="http://here")
    assert credentials_for("openai", environ) == credentials_for("openai-chat", {}) == Credentials()
    assert credentials_for("google", environ) == Credentials(api_key="k3")
    assert credentials_for("scripted", environ) == credentials_for("nobody", environ) == Credentials()


def test_several_keys_come_after_the_one_each_once() -> None:
    environ = {"ANTHROPIC_API_KEY": "k1", "ANTHROPIC_API_KEYS": "k2, k1,,k3 ", "ANTHROPIC_BASE_URL": "http://here"}
    keys = all_credentials_for("anthropic", environ)
    assert [each.reveal() for each in keys] == ["k1", "k2", "k3"] and {each.base_url for each in keys} == {
        "http://here"
    }
    assert credentials_for("openai", {"OPENAI_API_KEYS": "a,b"}).reveal() == "a"
    assert all_credentials_for("anthropic", {"ANTHROPIC_API_KEYS": " , "}) == (Credentials(),)
    assert all_credentials_for("scripted", environ) == all_credentials_for("nobody", environ) == (Credentials(),)


def test_a_label_tells_keys_apart_and_gives_none_away() -> None:
    key = Credentials(api_key="sk-very-secret")
    label = label_of(key)
    assert label is not None and len(label) == 8 and label not in "sk-very-secret" and label == label_of(key)
    others = [Credentials(api_key="sk-other"), Credentials(api_key="sk-very-secret", base_url="http://elsewhere")]
    assert len({label, *map(label_of, others)}) == 3
    assert label_of(Credentials()) is None
    halves = [label_of(Credentials(api_key=f"sk-{half}")) for half in ("\udcfe", "\udcff", "?")]
    assert None not in halves and len(set(halves)) == 3


def test_without_a_key_the_label_is_of_the_address_with_the_password_and_the_query_in_it() -> None:
    places = [
        "http://ann.lan/v1",
        "http://bob.lan/v1",
        "http://bob.lan/v2",
        "http://bob.lan/v1?key=1",
        "http://bob.lan/v1?key=2",
        "http://ann@bob.lan/v1",
        "http://ann:hunter2@bob.lan/v1",
        "http://ann:swordfish@bob.lan/v1",
    ]
    labels = [label_of(Credentials(base_url=place)) for place in places]
    assert None not in labels and len(set(labels)) == len(places)
    assert label_of(Credentials(base_url=f" {places[0]} ")) == labels[0] and label_of(Credentials(base_url=" ")) is None


def test_every_provider_has_one_adapter_that_is_made_once_and_streams() -> None:
    models = Models()
    for provider in PROVIDERS:
        assert models.get(provider) is models.get(provider)
        assert callable(models.get(provider).stream)
    asyncio.run(models.aclose())
    with pytest.raises(BadInput, match="nobody"):
        models.get("nobody")


def test_an_adapter_that_is_given_takes_the_place_of_ours() -> None:
    mine = Scripted([{"text": "mine"}])
    models = Models({"anthropic": mine, "house": mine})
    assert models.get("anthropic") is models.get("house") is mine
    asyncio.run(models.aclose())
