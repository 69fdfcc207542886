"""No error of a command line tells a key of its environment, wherever it was typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.cli.terminal import reenact

KEY = "sk-ant-api03-Kq7Zt1Vw9Xy2Bn4Mc6Lp8"
TYPED = (
    ("run", "hi", "-m", "scripted:echo", "--policy", f"{KEY}.toml"),
    ("run", "hi", "-m", "scripted:echo", "--failover", f"{KEY}.toml"),
    ("run", "hi", "-m", "scripted:echo", "--tools", f"{KEY}.py"),
    ("run", "hi", "-m", KEY),
    ("run", "hi", "-m", "scripted:echo", "--image", KEY, "--session", KEY),
    ("budget", "set", "--max-cost-daily", KEY),
    ("approvals", "show", KEY),
    ("approvals", "approve", KEY),
    ("replay", KEY),
    ("events", "--session", KEY),
    ("cost", "--by", KEY),
    ("sql", f"select {KEY}"),
    ("ps", KEY),
    ("ps", f"--{KEY}"),
    (KEY,),
    ("ps", "--db", f"sqlite:///no/{KEY}.db"),
    ("ps", "--db", KEY),
)


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "DATABASE_PASSWORD"])
@pytest.mark.parametrize("argv", TYPED, ids=" ".join)
def test_a_key_of_the_environment_is_in_no_error(
    argv: tuple[str, ...], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = KEY if name == "ANTHROPIC_API_KEY" else "tr0ub4dor-and-3-staples"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, key)
    assert reenact("run", "hi", "-m", "scripted:echo").code == 0
    ended = reenact(*(each.replace(KEY, key) for each in argv))
    assert ended.code in (1, 2) and key not in ended.out + ended.err
