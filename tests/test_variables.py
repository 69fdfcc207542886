"""Which variables hold secrets: keys and passwords do, words and numbers do not, and ordinary texts are left alone."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import re
import string
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reenact import Runtime, ToolContext, tool
from reenact.events.agent import SettleTool
from reenact.secrets.variables import could_be_secret, secrets_in, without_secrets
from reenact.secrets.vault import Vault
from tests.test_vault import shown

ENVIRON = {
    "DB_PASSWORD": "postgres",
    "PGPASSWORD": "password",
    "ROOT_PASSWORD": "changeme",
    "MYSQL_PASS": "password123",
    "MAX_TOKENS": "4096",
    "CONTEXT_TOKENS": "10000000",
    "TOTAL_TOKENS": "1_000_000_000",
    "AUTHOR_TOKEN": "main",
    "DEPLOY_TOKEN": "production",
    "END_TOKEN": "<|endoftext|>"[2:-2],
    "SORT_KEY": "created_at",
    "GROUP_KEY": "createdAt",
    "CACHE_KEY": "node-modules-linux-x64",
    "PRIMARY_KEY": "customer_order_identifier",
    "PARTITION_KEY": "gpt-4o-mini",
    "MODEL_KEYS": "claude-sonnet-4-5,claude-3-5-sonnet-20241022",
    "REGION_KEY": "us-east-1",
    "HOTKEY": "ctrl-shift-escape",
    "TLS_KEY": "/etc/ssl/private/server.key",
    "GOOGLE_APPLICATION_CREDENTIALS": "/home/me/.config/gcloud/credentials.json",
    "CREDENTIALS": "https://auth.example.com/token",
    "SECRET": "development",
    "APP_SECRET": "xxxxxxxxxxxxxxxx",
    "MASKED_SECRET": "****************",
    "OLD_PASSWORD": "--------",
    "SOME_API_KEY": "your_api_key_here",
    "OTHER_API_KEY": "<your-api-key>",
    "PUBLISHED_KEY": "2026-11-21",
    "LISTEN_KEY": "localhost:5432",
    "PIN_PASSWORD": "12345678",
    "WIN_COMPAT": "XP/SP3+legacy=1",
    "COMPASS": "N/NE+legacy=1",
    "PWD": "/home/me/projects/x9k2m4p7q1",
    "OLDPWD": "/home/me/projects/a8b7c6d5e4",
    "BUILD_PWD": "/home/me/build/x9k2m4p7q1",
    "PGPASS": "/home/me/.pgpass",
    "APP_PASS": "change-me-please",
    "ADMIN_PWD": "administrator",
    "TEMPLATE_PASSWORD": "your_password_here",
    "SMTP_AUTH": "plain-login",
    "PROXY_AUTH": "https://auth.example.com/v2/a9b8c7d6",
    "DATABASE_URL": "postgresql://postgres:postgres@localhost:5432/app",
    "OTHER_DSN": "host=localhost port=5432 user=postgres password=postgres",
    "PUBLIC_DSN": "https://deploy@errors.example.com/42",
    "DEV_CONNECTION_STRING": "Server=localhost;Database=app;User Id=administrator;Password=changeme;",
    "GITHUB_WEBHOOK_URL": "https://ci.example.com/webhooks/repository-changed",
    "SETTINGS_JSON": '{"sort_key": "created_at", "password": "changeme", "max_tokens": "4096", "on": [1, null]}',
    "LS_COLORS": "rs=0:di=01;34:ln=01;36:*.tar=01;31",
    "JAVA_OPTS": "-Xmx512m -Djavax.net.ssl.trustStorePassword=changeit",
}
"""What stands in environments under names of secrets, and in texts everywhere."""

INNOCENTS = (
    "Connect to postgres on localhost:5432 as postgres, then run main.",
    "The password is changed in development before it is changed in production.",
    "MAX_TOKENS=4096 of 10000000, at most 1_000_000_000 in all; 12345678 is no good password.",
    "SELECT created_at, customer_order_identifier FROM orders ORDER BY created_at DESC;",
    '{"createdAt": "2026-11-21", "model": "gpt-4o-mini", "region": "us-east-1", "tokens": 4096}',
    "git push origin main && git checkout -b development && npm ci --cache node-modules-linux-x64",
    "Put your_api_key_here or <your-api-key> in the place of xxxxxxxxxxxxxxxx.",
    "| name | key |\n|--------|--------|\n| a | **************** |",
    "ssl_certificate_key /etc/ssl/private/server.key;  # GET https://auth.example.com/token",
    "GOOGLE_APPLICATION_CREDENTIALS=/home/me/.config/gcloud/credentials.json",
    "password123 and changeme are among the hundred most used passwords.",
    "claude-sonnet-4-5 and claude-3-5-sonnet-20241022 answer until endoftext.",
    "Press ctrl-shift-escape. XP/SP3+legacy=1 N/NE+legacy=1.",
    "naïve café, 東京, пароль: “production”",
    "cd /home/me/projects/x9k2m4p7q1 && psql postgres -U administrator && open https://ci.example.com/webhooks",
    "Please change-me-please and your_password_here: plain-login at localhost, deploy to errors.example.com/42.",
)

KEPT = {
    "API_KEY": "sk_fake_4eC39HqLyjWDarjtT1zdp7dc",
    "HEX_TOKEN": "9f86d081884c7d65",
    "UUID_TOKEN": "550e8400-e29b-41d4-a716-446655440000",
    "BASE64_SECRET": "dGhpcyBpcyBhIHRlc3Q+/w==",
    "DB_PASSWORD": "hunter2hunter2",
    "DB_PASS": "Summer2026!",
    "OTHER_PASSWORD": "Passw0rd",
    "PASSPHRASE": "correct-horse-battery-staple",
    "SMTP_PASSWORD": "abcd efgh ijkl mnop",
    "CARD_SECRET": "4929000000000006",
    "GITHUB_PAT": "a1b2c3d4e5",
    "MYSQL_PWD": "canarywords",
    "REDIS_PASS": "canarywords",
    "TWILIO_AUTH": "9f86d081884c7d65",
    "SERVICE_CREDENTIALS": '{"user": "me", "pw": "x"}',
    "WEBHOOK_SECRET": "https://hooks.example.com/services/T0AB12CD3/B0EF45GH6/XyZ12abC34dEf56",
}
"""What stands there and is secret."""


PARTS = {
    "DATABASE_URL": ("postgres://me:hunter2canary@db.example.com/x", ("hunter2canary",)),
    "QUOTED_URL": ("postgres://me:p%40ss%2Fword99@db.example.com/x", ("p%40ss%2Fword99", "p@ss/word99")),
    "SENTRY_DSN": (
        "https://d41d8cd98f00b204e9800998ecf8427e@o1.ingest.example.com/1",
        ("d41d8cd98f00b204e9800998ecf8427e",),
    ),
    "ORDERS_DSN": ("host=db port=5432 user=app password=canarywords", ("canarywords",)),
    "AZURE_CONN": (
        "DefaultEndpointsProtocol=https;AccountName=x;AccountKey=Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA==",
        ("Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA==",),
    ),
    "SQL_CONNECTION_STRING": ("Server=db;UID=sa;PWD='my canary words';Encrypt=yes", ("my canary words",)),
    "SLACK_WEBHOOK": (
        "https://hooks.example.com/services/T000/B000/XyZ12abC34dEf56GhI78jKl9",
        ("https://hooks.example.com/services/T000/B000/XyZ12abC34dEf56GhI78jKl9", "XyZ12abC34dEf56GhI78jKl9"),
    ),
    "GOOGLE_APPLICATION_CREDENTIALS_JSON": (
        '{"type": "service_account", "private_key": "canary9f86d081", "more": [{"clientSecret": "a1b2c3d4e5"}]}',
        ("canary9f86d081", "a1b2c3d4e5"),
    ),
    "NODE_OPTIONS": ("--title=x --token=9f86d081884c7d65", ("9f86d081884c7d65",)),
}
"""Values that are secret in parts, with the parts."""


@pytest.mark.parametrize("name", PARTS)
def test_what_is_secret_in_a_part_of_a_value_is_hidden_wherever_it_stands(name: str) -> None:
    value, parts = PARTS[name]
    assert [each for _, each in secrets_in({name: value})] == list(parts)
    known = Vault([])
    known.environment({**ENVIRON, name: value})
    for part in parts:
        assert known.text(f"it is {part}.") == f"it is [secret:{name}]."
    assert without_secrets({name: value}) == {}


@pytest.mark.parametrize("name", ("REDIS_PASS", "MYSQL_PWD", "DB_PASSWORD", "DB_PASSWD"))
def test_a_name_that_says_password_outright_makes_a_secret_of_a_plain_word(name: str) -> None:
    assert list(secrets_in({name: "sunflower"})) == [(name, "sunflower")]
    assert list(secrets_in({"SECRET": "sunflower", "X_KEY": "sunflower", "X_AUTH": "sunflower"})) == []


@pytest.mark.parametrize("text", INNOCENTS)
def test_ordinary_texts_come_through_byte_for_byte(text: str) -> None:
    known = Vault()
    known.environment(ENVIRON)
    command = SettleTool(tool="t1", outcome="ok", output=text)
    assert known.hidden(command) is command and known.text(text) == text
    assert "".join(shown(known, list(text))) == text


@pytest.mark.parametrize("name", ENVIRON)
def test_a_variable_that_holds_a_word_or_a_number_holds_no_secret(name: str) -> None:
    assert dict(secrets_in({name: ENVIRON[name]})) == {}


@pytest.mark.parametrize("name", KEPT)
def test_a_variable_that_holds_a_key_or_a_password_is_hidden(name: str) -> None:
    known = Vault([])
    known.environment({**ENVIRON, name: KEPT[name]})
    assert known.text(f"it is {KEPT[name]}.") == f"it is [secret:{name}]."


def test_of_several_with_commas_between_each_is_judged_and_hidden_by_itself() -> None:
    known = Vault([])
    known.environment({"MY_TOKENS": "production,9f86d081884c7d65,main"})
    assert known.text("9f86d081884c7d65 in production") == "[secret:MY_TOKENS] in production"


ALPHABET = string.ascii_letters + string.digits
DRAWN: dict[str, Callable[[random.Random], str]] = {
    "32 letters and digits": lambda chance: "".join(chance.choices(ALPHABET, k=32)),
    "20 letters and digits": lambda chance: "".join(chance.choices(ALPHABET, k=20)),
    "16 of hexadecimal": lambda chance: chance.randbytes(8).hex(),
    "24 bytes of base64": lambda chance: base64.b64encode(chance.randbytes(24)).decode(),
    "a UUID": lambda chance: str(uuid.UUID(bytes=chance.randbytes(16), version=4)),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_what_machines_draw_by_lot_is_taken_for_secret(kind: str) -> None:
    chance = random.Random(7)
    missed = [value for _ in range(5_000) if not could_be_secret(value := DRAWN[kind](chance), chosen=False)]
    assert len(missed) <= 1, missed  # base64 may draw a text of words; 3 in 10,000 of 32 characters would be too many


@settings(max_examples=300)
@given(st.dictionaries(st.text(max_size=12).map(lambda name: f"{name}_KEY"), st.text(max_size=300), max_size=4))
def test_any_environment_can_be_looked_at(environ: dict[str, str]) -> None:
    for name, value in secrets_in(environ):
        assert name in environ and value in environ[name]
    Vault().environment(environ)
    assert set(without_secrets(environ)) <= set(environ)


def test_a_runtime_in_such_an_environment_stores_and_shows_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    said = "\n".join(INNOCENTS)

    async def work() -> str:
        async with Runtime("memory://") as runtime:
            bot = await runtime.image("bot", model="scripted:echo")
            return (await bot.send(said)).text

    assert said in asyncio.run(work())


# -- an environment for what is started --


def test_a_program_that_is_started_gets_no_keys() -> None:
    environ = {
        **KEPT,
        "ANTHROPIC_API_KEY": "main",
        "OPENAI_API_KEYS": "one,two",
        "PASSWORD": "postgres",
        "DATABASE_URL": "postgres://me:hunter2hunter2@db/x",
        "HEADER": "Bearer AAAAbbbbCCCCdddd1111",
        "PATH": os.environ["PATH"],
        "MAX_TOKENS": "4096",
        "HOME": "/home/me",
        "LANG": "C.UTF-8",
    }
    left = without_secrets(environ)
    assert left == {name: environ[name] for name in ("PATH", "MAX_TOKENS", "HOME", "LANG")}
    told = subprocess.run(
        [sys.executable, "-c", "import os; print(dict(os.environ))"],
        env=left,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "/home/me" in told and not [value for value in KEPT.values() if value in told]


def test_what_a_tool_begins_gets_no_keys_and_what_is_handed_over_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        **KEPT,
        "ANTHROPIC_API_KEY": "sk-none",
        "ODD": "of me: handed-over-value",
        "PLAIN": "fine",
    }.items():
        monkeypatch.setenv(name, value)

    @tool(effect="read")
    def look(context: ToolContext) -> list[str]:
        """Begin a program that says what it has."""
        show = [sys.executable, "-c", "import os; print('\\n'.join(os.environ))"]
        return subprocess.run(show, env=context.environ, capture_output=True, text=True, check=True).stdout.split()

    async def work() -> str:
        secrets = {"mine": "handed-over-value", "short": "bin/"}
        async with Runtime("memory://", tools=[look], secrets=secrets) as runtime:
            bot = await runtime.image("bot", model="scripted:tools")
            return (await bot.send("look {}")).text

    said = asyncio.run(work())
    assert {"PLAIN", "PATH", "REENACT_TOOL_CALL"} <= set(re.findall(r"\w+", said))
    assert not {*KEPT, "ANTHROPIC_API_KEY", "ODD"} & set(re.findall(r"\w+", said))


OTHERWISE = {
    "adapters/cli/editor.py": "the editor of whoever sits at the terminal, with what they gave it",
    "adapters/hosts/caller.py": "`ps`, with a PATH and nothing else",
}
"""Files that start a program in another environment, each with the reason."""


def test_what_reenact_starts_by_itself_gets_no_keys(root: Path) -> None:
    starts = re.compile(
        r"\b(?:subprocess\.(?:Popen|run|call|check_\w+)|create_subprocess_\w+|os\.(?:system|popen|spawn\w+))\("
    )
    rooms = ("reenact", "events", "actors", "projections", "adapters")
    files = {path.relative_to(root).as_posix() for room in rooms for path in (root / room).glob("**/*.py")}
    starting = {file for file in files if starts.search((root / file).read_text())}
    bare = {file for file in starting if "without_secrets(os.environ)" not in (root / file).read_text()}
    assert starting >= {"reenact/cli/demo.py", *OTHERWISE}
    assert bare == set(OTHERWISE)
