"""Settings of failover in a file: the keys of Python, and every mistake named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from reenact import CooldownTimes, Failover
from reenact.adapters.plain_file import PLAIN_BYTES_MAX
from reenact.events.errors import BadInput
from reenact.models.failover_file import __doc__ as example
from reenact.models.failover_file import failover_in

SETTINGS = Failover(
    timeout_s=120,
    silence_s=30,
    retries=1,
    rotations=2,
    attempts=10,
    stop_on=("invalid_request", "content_filter", "bad_input", "permission"),
    key_order="given",
    cooldowns=CooldownTimes(transient_s=(10, 60), auth_s=300),
)


def written(path: Path, text: str, name: str = "f.toml") -> str:
    (path / name).write_text(text)
    return str(path / name)


def test_the_example_in_the_source_says_what_it_seems_to(tmp_path: Path) -> None:
    assert example is not None
    assert failover_in(written(tmp_path, example.split("\n\n", 1)[1])) == SETTINGS


def test_what_a_file_does_not_name_is_as_it_is_without_it(tmp_path: Path) -> None:
    assert failover_in(written(tmp_path, "")) == Failover()
    assert failover_in(written(tmp_path, "[cooldowns]\n")) == Failover()
    assert failover_in(written(tmp_path, '{"attempts": 3}', "f.json")) == Failover(attempts=3)


def test_every_setting_has_a_key_in_either_spelling(tmp_path: Path) -> None:
    camel = json.dumps(msgspec.to_builtins(SETTINGS))
    snake = json.dumps(
        {name: getattr(SETTINGS, name) for name in Failover.__struct_fields__}
        | {"cooldowns": {name: getattr(SETTINGS.cooldowns, name) for name in CooldownTimes.__struct_fields__}}
    )
    assert "timeoutS" in camel and "timeout_s" in snake
    assert (
        failover_in(written(tmp_path, camel, "c.json")) == failover_in(written(tmp_path, snake, "s.json")) == SETTINGS
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timeout = 5", "'timeout': there is no such key; there are retries, "),
        ('"\\n" = 5', r"'\n': there is no such key"),
        ("timeout_s = 5\ntimeoutS = 5", "timeout_s: is there twice."),
        ("timeout_s = 0", "timeout_s must be a number from 0.01 to 86,400, not 0."),
        ("silence_s = nan", "silence_s must be a number from 0.01 to 86,400, not nan."),
        ("silence_s = inf", "silence_s must be a number from"),
        ("silence_s = 1e9", "silence_s must be a number from"),
        ('silence_s = "5"', "silence_s must be a number from"),
        ("retries = true", "retries must be a number from"),
        ("attempts = 1.5", "attempts must be a whole number"),
        ('stop_on = "auth"', "stop_on must be a tuple of failure codes."),
        ("stop_on = [1]", "stop_on must be a tuple of failure codes."),
        ('key_order = "mine"', "key_order must be least_recently_used or given"),
        ("cooldowns = 5", "cooldowns: must be an object, not 5."),
        ("[cooldowns]\nauth = 5", "cooldowns: 'auth': there is no such key; there are transient_s, "),
        ("[cooldowns]\ntransient_s = []", "cooldowns: transient_s must be"),
        ("[cooldowns]\nauth_s = -1", "cooldowns: auth_s must be a number from"),
        ("[[cooldowns]]\nauth_s = 1", "cooldowns: must be an object"),
        ("timeout_s 5", "Expected '='"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadInput) as refused:
        failover_in(path)
    assert str(refused.value).startswith(f"{path}: ") and said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    for path, said in (
        (tmp_path / "nowhere.toml", "No such file"),
        (tmp_path, "Is a directory"),
        (written(tmp_path, "[1]", "l.json"), "settings of failover are an object."),
        (tmp_path / "b.toml", "can't decode"),
        (written(tmp_path, " " * (PLAIN_BYTES_MAX + 1)), "is longer than"),
    ):
        with pytest.raises(BadInput, match=said):
            failover_in(str(path))
