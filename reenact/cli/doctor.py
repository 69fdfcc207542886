"""What this machine, a log and the environment are like: one row a check. Writes nothing, shows no secret."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from ..adapters.logs import path_of
from ..adapters.models.providers import PROVIDERS, all_credentials_for
from ..events.errors import NotFound, ReenactError

Row = dict[str, Any]

PYTHON = (3, 11)


def findings(url: str) -> Iterator[Row]:
    """The rows, in reading order: check, ok, found. Raises nothing of what it checks."""
    yield _row("reenact", True, f"{version('reenact')} in {Path(__file__).resolve().parents[1]}")
    yield _row("python", sys.version_info >= PYTHON, f"{platform.python_version()} on {platform.platform(terse=True)}")
    yield from _packages()
    yield from _sqlite()
    yield from _log(url)
    for provider in ("anthropic", "openai", "google"):
        yield from _key(provider)
    yield from _terminal()


def _row(check: str, ok: bool, found: str) -> Row:
    return {"check": check, "ok": ok, "found": found}


def _packages() -> Iterator[Row]:
    lost, found = [], []
    for requirement in requires("reenact") or ():
        name = requirement.partition(";")[0].strip()
        if "extra ==" in requirement:
            continue
        bare = name
        for mark in "<>=!~[ ":
            bare = bare.partition(mark)[0]
        try:
            found.append(f"{bare} {version(bare)}")
        except PackageNotFoundError:
            lost.append(bare)
    yield _row("packages", not lost, f"missing: {', '.join(lost)}" if lost else ", ".join(found))


def _sqlite() -> Iterator[Row]:
    from ..adapters.logs.sqlite import gate

    found = gate()
    note = (
        "; its write-ahead log has a flaw that needs two writers. A log has one: let no other program write to it"
        if found.affected
        else ""
    )
    yield _row("sqlite", True, found.version + note)


def _log(url: str) -> Iterator[Row]:
    from ..adapters.logs.file import filesystem
    from ..adapters.logs.owner import is_owned, owner_of

    try:
        path = path_of(url)
    except ReenactError as error:
        yield _row("log", False, str(error))
        return
    if path is None:
        yield _row("log", True, "in memory, gone with the process")
        return
    folder = Path(path).absolute().parent
    yield _row(
        "folder",
        os.access(folder, os.W_OK),
        f"{folder} on {filesystem(str(folder)) or 'an unknown file system'}"
        + ("" if os.access(folder, os.W_OK) else ", without the right to write there"),
    )
    yield from _opened(url, path)
    owner = owner_of(path) if is_owned(path) else None
    if owner is not None:
        where = f", takes commands at {owner.socket}" if owner.socket else ""
        yield _row("owner", True, f"process {owner.pid}{where}")
    else:
        yield _row("owner", True, "none now")


def _opened(url: str, path: str) -> Iterator[Row]:
    from ..adapters.logs import open_reader

    try:
        reader = open_reader(url)
    except NotFound as error:
        yield _row("log", os.path.isdir(os.path.dirname(os.path.abspath(path))), str(error))
        return
    except ReenactError as error:
        yield _row("log", False, str(error))
        return
    try:
        size = sum(os.path.getsize(path + end) for end in ("", "-wal") if os.path.exists(path + end))
        said = f"{path}: {reader.position:,} events, epoch {reader.epoch}, {size:,} bytes"
        owing = len(reader.streams("session-", owing=True))
        yield _row("log", True, said + (f", {owing} sessions with work left" if owing else ""))
    except ReenactError as error:
        yield _row("log", False, str(error))
    finally:
        reader.close()


def _key(provider: str) -> Iterator[Row]:
    known = PROVIDERS[provider]
    keys = sum(each.api_key is not None for each in all_credentials_for(provider, os.environ))
    key = {0: f"no {known.key_variable}", 1: "a key is set"}.get(keys, f"{keys} keys are set")
    base = known.base_url_variable
    url = f", {base} is set" if base and os.environ.get(base, "").strip() else ""
    yield _row(provider, True, key + url)


def _terminal() -> Iterator[Row]:
    kind = os.environ.get("TERM") or "no TERM"
    tty = "a terminal" if sys.stdout.isatty() else "no terminal"
    colour = ", NO_COLOR is set" if os.environ.get("NO_COLOR") else ""
    encoding = getattr(sys.stdout, "encoding", None) or "unknown"
    yield _row("terminal", True, f"{tty}, {kind}, {encoding}{colour}")
