"""The repository reads its own source: who may import whom, where each library lives, what pure rooms may not do.

A complaint says what to do instead. Below the rules each one is shown to fail on a line that breaks it.
"""

import ast
import builtins
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("events", "actors", "projections", "adapters")
FRONT = "reenact"

# Library -> its home, a file or a folder (or several). msgspec is everywhere: records are our language.
EVERYWHERE = {"msgspec"}
HOMES: dict[str, tuple[str, ...]] = {
    "anthropic": ("adapters/models/",),
    "cyclopts": ("adapters/cli/",),
    "docstring_parser": ("adapters/tools/",),
    "duckdb": ("projections/duck.py",),
    "eventsourcing": ("adapters/logs/",),
    "genai_prices": ("adapters/prices.py",),
    "httpx2": ("adapters/models/",),
    "openai": ("adapters/models/",),
    "pyarrow": ("projections/arrow.py",),
    "pykka": ("actors/threads.py",),
    "reactivex": ("events/bus.py",),
    "rich": ("adapters/cli/",),
    "rpds": ("actors/book.py",),
    "stamina": ("adapters/models/",),
    "uuid_utils": ("actors/clock.py",),
}
DISTRIBUTIONS = {"rpds-py": "rpds"}
"""Distributions that do not bear the name of their module."""

# Loaded on first use, never by `import reenact` or by naming what it offers.
HEAVY = ("anthropic", "openai", "duckdb", "pyarrow", "genai_prices", "rich", "cyclopts")

# Everything in events/ and actors/ is pure, and projections/context.py, but for these, which give the words a life.
MACHINERY = {
    "events/aside.py",  # a handler on a thread of its own
    "events/bus.py",  # routes, and waits for responses
    "events/delivery.py",  # how observers hear, each on its own
    "events/failpoint.py",  # kills the process, when a test says so
    "events/log.py",  # the memory log has writers in several threads
    "events/queue.py",  # what a slow observer has not seen yet
    "events/shape.py",  # one thread at a time has msgspec picture a type
    "events/request.py",  # who waits for which response, and how long
    "events/subscription.py",  # what one observer is told, from any thread
    "actors/clock.py",  # the one place where time and ids are read
    "actors/commit.py",  # many writers, one commit
    "actors/dispatch.py",
    "actors/system.py",
    "actors/threads.py",
}

SHAPES = "events/shape.py"

CLOCK = "time comes with the command: a decider is told when it is"
CHANCE = "ids and chance come with the command: see actors/clock.py"
WORLD = "a pure room touches nothing outside: state an effect that is owed, an adapter does it"
LANES = "a pure room does not know threads: lanes are made in actors/threads.py"
UNSTABLE = "differs from process to process: use a digest of the bytes"
CLOCK_AND_CHANCE = {
    "time": CLOCK,
    "datetime.datetime.now": CLOCK,
    "datetime.datetime.utcnow": CLOCK,
    "datetime.datetime.today": CLOCK,
    "datetime.date.today": CLOCK,
    "random": CHANCE,
    "secrets": CHANCE,
    "uuid.uuid1": CHANCE,
    "uuid.uuid4": CHANCE,
    "uuid.uuid6": CHANCE,
    "uuid.uuid7": CHANCE,
    "uuid_utils": CHANCE,
    "os.urandom": CHANCE,
}
IMPURE = CLOCK_AND_CHANCE | {
    **dict.fromkeys(("os", "io", "pathlib.Path", "shutil", "tempfile", "glob", "sqlite3", "platform", "ctypes"), WORLD),
    **dict.fromkeys(("socket", "ssl", "select", "selectors", "http", "urllib.request", "subprocess", "signal"), WORLD),
    **dict.fromkeys(("sys.stdin", "sys.stdout", "sys.stderr", "sys.argv", "logging", "warnings"), WORLD),
    **dict.fromkeys(("threading", "_thread", "asyncio", "concurrent", "multiprocessing", "queue", "sched"), LANES),
    **dict.fromkeys(("open", "print", "input", "breakpoint", "eval", "exec"), WORLD),
    **dict.fromkeys(("hash", "id"), UNSTABLE),
}
BUILTINS = {name for name in IMPURE if hasattr(builtins, name)}


# ---- the rules ------------------------------------------------------------------------------------------------------


def complaints(path: str, source: str) -> list[str]:
    """What is wrong with one file. `path` is relative to the root, with slashes."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return [f"{path}:{error.lineno}: cannot be read: {error.msg}"]
    found = [
        *wrong_imports(path, tree),
        *impurities(path, tree),
        *pictures(path, tree),
        *left_open(tree, source),
    ]
    first: dict[str, int] = {}  # once a file is enough for a library imported above and used all over it
    for line, text in sorted(found):
        first.setdefault(text, line)
    return [f"{path}:{line}: {text}" for text, line in first.items()]


def wrong_imports(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    room = path.split("/")[0]
    for line, name, level in imported(path, tree):
        top, *rest = name.split(".")
        if level == 0 and top in ROOMS:
            yield line, f"import of a bare {top!r}: the room is called reenact.{top}"
        elif room in ROOMS and top == "":
            yield line, "a relative import that leaves the project"
        elif room in ROOMS and top == FRONT:
            if level == 0:
                yield line, f"import of {name}: inside the four rooms imports are relative, or files load twice"
            target = rest[0] if rest else ""
            if target not in ROOMS:
                yield line, f"{room} imports {name}: only the front door sees the front door"
            elif target not in (room, "events"):
                yield line, f"{room} imports {target}: rooms meet in events, and are wired in reenact/"
        elif room in (*ROOMS, FRONT) and top not in (FRONT, *EVERYWHERE) and top not in sys.stdlib_module_names:
            homes = HOMES.get(top)
            if homes is None:
                yield line, f"{top} has no home: declare it in pyproject.toml and give it one in HOMES"
            elif not any(path == home or (home.endswith("/") and path.startswith(home)) for home in homes):
                yield line, f"{top} lives in {' or '.join(homes)}, nowhere else"


def imported(path: str, tree: ast.Module) -> Iterator[tuple[int, str, int]]:
    """(line, absolute dotted name, level) of every import in the file, also the ones made by name at run time."""
    package = [*PurePosixPath(path).parent.parts]
    if package[:1] and package[0] in ROOMS:
        package = [FRONT, *package]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, 0
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if 0 < node.level <= len(package) else [""][: node.level]
            for alias in node.names:
                yield node.lineno, ".".join([*start, *filter(None, [node.module]), alias.name]), node.level
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = node.args[0].value
            if called in ("import_module", "__import__") and isinstance(name, str) and not name.startswith("."):
                yield node.lineno, name, 0


def impurities(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    if (path.startswith(("events/", "actors/")) and path not in MACHINERY) or path == "projections/context.py":
        banned = IMPURE
    elif path.startswith("projections/"):  # may lock and read files, but rebuilt tomorrow it must look the same
        banned = CLOCK_AND_CHANCE
    else:
        return
    meaning: dict[str, str] = {}  # a local name -> the dotted name it was imported as
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                meaning[alias.asname or top] = alias.name if alias.asname else top
                yield from banned_use(node.lineno, alias.name, banned)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                meaning[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield from banned_use(node.lineno, f"{node.module}.{alias.name}", banned)
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = dotted(node)
            start, _, rest = name.partition(".")
            if start in meaning:
                yield from banned_use(node.lineno, f"{meaning[start]}.{rest}", banned)
        elif isinstance(node, ast.Name) and node.id in BUILTINS and node.id not in own and node.id not in meaning:
            yield from banned_use(node.lineno, node.id, banned)


def pictures(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Where msgspec is asked for a type: two threads that do it at once can end the process."""
    if path.split("/")[0] not in (*ROOMS, FRONT) or path == SHAPES:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := dotted(node.func)).startswith("msgspec."):
            if name == "msgspec.convert" or name.endswith(".decode"):
                kinds = [node.args[1:2], *([each.value] for each in node.keywords if each.arg == "type")]
            else:
                kinds = [node.args[:1] if name.endswith(".Decoder") else []]
            if any(not plain(kind) for some in kinds for kind in some):
                yield node.lineno, f"{name}: see {SHAPES}, where one thread at a time has a type pictured"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "msgspec":
            for name in {"convert", "decode", "Decoder", "json", "msgpack"} & {alias.name for alias in node.names}:
                yield node.lineno, f"import msgspec, and say msgspec.{name}: so it is seen who asks for a type"


def plain(kind: ast.expr) -> bool:
    """A type of Python's own, such as `dict[str, Any]`: there is nothing in it to picture."""
    return {each.id for each in ast.walk(kind) if isinstance(each, ast.Name)} <= {"dict", "list", "str", "Any"}


def banned_use(line: int, name: str, banned: dict[str, str]) -> Iterator[tuple[int, str]]:
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        start = ".".join(parts[:length])
        if start in banned:
            yield line, f"{start} in a pure room: {banned[start]}"
            return


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain that starts at a name; empty for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (start := dotted(node.value)):
        return f"{start}.{node.attr}"
    return ""


def left_open(tree: ast.Module, source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (mark := re.search(r"\b(FIXME|TODO|XXX)\b", token.string)):
            yield token.start[0], f"{mark[0]}: finish it, or write down why it stands"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            yield node.lineno, "NotImplementedError: finish it, or leave it out; a port is a Protocol"


def sources(root: Path) -> Iterator[tuple[str, str]]:
    for folder in (*ROOMS, FRONT, "tests", "benchmarks", "examples"):
        for file in sorted((root / folder).rglob("*.py")):  # does not follow the links in reenact/
            path = file.relative_to(root).as_posix()
            if path.split("/")[:1] != [FRONT] or path.split("/")[1] not in ROOMS:
                yield path, file.read_text("utf-8")
    yield "dev", (root / "dev").read_text("utf-8")


def packages(root: Path) -> set[str]:
    """Every folder with Python in it, by the name it is imported under."""
    found = set()
    for folder in (*ROOMS, FRONT):
        for file in (root / folder).rglob("*.py"):
            parts = file.parent.relative_to(root).parts
            if parts[0] == FRONT and parts[1:2] and parts[1] in ROOMS:
                continue
            found.add(".".join(parts if parts[0] == FRONT else (FRONT, *parts)))
    return found


def project(root: Path = ROOT) -> dict[str, object]:
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))


# ---- the repository keeps them --------------------------------------------------------------------------------------


def test_every_file_keeps_to_the_rules_of_its_room() -> None:
    assert [text for path, source in sources(ROOT) for text in complaints(path, source)] == []


def test_every_package_is_listed_and_has_a_door_sign() -> None:
    listed = set(project()["tool"]["setuptools"]["packages"])
    assert packages(ROOT) == listed, "pyproject.toml lists every folder that holds Python, and no other"
    unsigned = []
    for name in sorted(listed):
        folder = ROOT.joinpath(*name.split("."))  # by the links in reenact/, as Python goes
        if not ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))):
            unsigned.append(name)
    assert unsigned == []


def test_every_library_of_the_core_has_a_home() -> None:
    named = [re.split(r"[^\w-]", line)[0] for line in project()["project"]["dependencies"]]
    assert {DISTRIBUTIONS.get(name, name.replace("-", "_")) for name in named} == set(HOMES) | EVERYWHERE


def test_no_exception_stands_that_nothing_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    machinery, trees = sorted(MACHINERY), {path: ast.parse(source) for path, source in sources(ROOT)}
    lived_in = {(name.split(".")[0], path) for path, tree in trees.items() for _, name, _ in imported(path, tree)}
    empty = [
        (library, home)
        for library, homes in HOMES.items()
        for home in homes
        if not any(name == library and path.startswith(home) for name, path in lived_in)
    ]
    monkeypatch.setattr(sys.modules[__name__], "MACHINERY", set())

    assert (empty, [path for path in machinery if not [*impurities(path, trees[path])]]) == ([], [])


EVERY_MODULE = """
import importlib, pkgutil, reenact
for module in pkgutil.walk_packages(reenact.__path__, "reenact."):
    importlib.import_module(module.name)
"""
TWINS = """
import os, sys
files = {}
for name, module in sorted(sys.modules.items()):
    if getattr(module, "__file__", None) and name != "__main__":
        files.setdefault(os.path.realpath(module.__file__), []).append(name)
root = os.getcwd() + os.sep
print(sorted({name for path, names in files.items() if path.startswith(root) and (len(names) > 1
    or names[0].split(".")[0] in ("events", "actors", "projections", "adapters")) for name in names}))
"""


def test_no_file_is_loaded_under_two_names() -> None:
    assert run(EVERY_MODULE + TWINS) == "[]"


LOADED = f"""
import sys
print([name for name in {HEAVY!r} if name in sys.modules])
"""
EVERY_NAME = """
import importlib.util, reenact
for name, home in reenact._HOMES.items():
    if importlib.util.find_spec(home):
        getattr(reenact, name)
"""


@pytest.mark.parametrize("code", ["import reenact", EVERY_NAME], ids=["import reenact", "every public name"])
def test_nothing_heavy_is_loaded_before_it_is_used(code: str) -> None:
    assert run(code + LOADED) == "[]"


def run(code: str) -> str:
    """What a fresh interpreter prints, started in the root, where a bare `import events` would work by accident."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_test_reaches_beyond_this_machine() -> None:
    import socket

    with pytest.raises(ConnectionRefusedError, match="tests stay on this machine"):
        socket.create_connection(("192.0.2.1", 9), timeout=1)
    with pytest.raises(ConnectionRefusedError, match="tests stay on this machine"):
        socket.getaddrinfo("example.invalid", 443)


# ---- and each rule can fail -----------------------------------------------------------------------------------------

WRONG = [
    # The import rule.
    ("actors/cell.py", "from ..adapters.models import scripted", "rooms meet in events"),
    ("actors/cell.py", "from .. import projections", "rooms meet in events"),
    ("adapters/logs/sqlite.py", "from ...projections.ledger import cost", "rooms meet in events"),
    ("adapters/tools/tool.py", "if True:\n    from ...actors import cell", "rooms meet in events"),
    ("projections/audit.py", "def late():\n    from ..actors.cell import Cell", "rooms meet in events"),
    ("events/log.py", "from ..actors.decider import fold", "rooms meet in events"),
    ("adapters/cli/app.py", "from ...runtime import Runtime", "only the front door"),
    ("adapters/cli/app.py", "from ... import Runtime", "only the front door"),
    ("actors/cell.py", "from reenact.events.log import Log", "imports are relative"),
    ("actors/cell.py", "import reenact.events.log", "imports are relative"),
    ("actors/cell.py", "from ....events import log", "leaves the project"),
    ("actors/cell.py", "import events", "called reenact.events"),
    ("tests/test_x.py", "from actors.cell import Cell", "called reenact.actors"),
    ("benchmarks/append.py", "import adapters.logs.sqlite", "called reenact.adapters"),
    # One home per library.
    ("actors/cell.py", "import pykka", "lives in actors/threads.py"),
    ("actors/threads.py", "import reactivex as rx", "lives in events/bus.py"),
    ("adapters/tools/tool.py", "from anthropic import Anthropic", "lives in adapters/models/"),
    (
        "adapters/tools/tool.py",
        "from importlib import import_module\nimport_module('openai')",
        "lives in adapters/models/",
    ),
    ("projections/ledger.py", "import duckdb", "lives in projections/duck.py"),
    ("events/codec.py", "from eventsourcing.persistence import StoredEvent", "lives in adapters/logs/"),
    ("reenact/runtime.py", "import rich.live", "lives in adapters/cli/"),
    ("events/codec.py", "import numpy", "has no home"),
    # Pure rooms.
    ("actors/session.py", "import time", CLOCK),
    ("actors/session.py", "from time import monotonic as now", CLOCK),
    ("actors/agent.py", "import datetime as dt\nx = dt.datetime.now(dt.UTC)", CLOCK),
    ("actors/agent.py", "from datetime import datetime\nx = datetime.utcnow", CLOCK),
    ("actors/policy.py", "from datetime import date\nx = date.today()", CLOCK),
    ("actors/image.py", "import random", CHANCE),
    ("actors/image.py", "from uuid import uuid4", CHANCE),
    ("actors/image.py", "import uuid\nx = uuid.uuid7()", CHANCE),
    ("events/session.py", "import secrets", CHANCE),
    ("events/session.py", "import os\nx = os.environ['HOME']", WORLD),
    ("actors/container.py", "def f():\n    return open('x').read()", WORLD),
    ("actors/container.py", "print('here')", WORLD),
    ("actors/container.py", "x = map(print, y)", WORLD),
    ("actors/container.py", "import socket", WORLD),
    ("actors/container.py", "from subprocess import run", WORLD),
    ("actors/container.py", "from pathlib import Path", WORLD),
    ("actors/mealy.py", "import threading", LANES),
    ("actors/mealy.py", "from asyncio import sleep", LANES),
    ("actors/decider.py", "x = hash('a')", UNSTABLE),
    ("projections/context.py", "import os", WORLD),
    ("projections/context.py", "import time", CLOCK),
    ("projections/ledger.py", "from datetime import datetime\nx = datetime.now()", CLOCK),
    ("projections/duck.py", "import time", CLOCK),
    # One place asks for types.
    ("events/codec.py", "import msgspec\nx = msgspec.msgpack.Decoder(Event)", SHAPES),
    ("adapters/logs/names.py", "import msgspec\nx = msgspec.json.decode(y, type=Context)", SHAPES),
    ("reenact/given.py", "import msgspec\nx = msgspec.convert(y, tuple[Image, ...])", SHAPES),
    ("reenact/given.py", "from msgspec import convert", "say msgspec.convert"),
    # Nothing is left open.
    ("adapters/logs/sqlite.py", "x = 1  # TO" + "DO: two", "finish it"),
    ("dev", "# FIX" + "ME", "finish it"),
    ("adapters/logs/sqlite.py", "def f():\n    raise NotImplementedError('later')", "finish it"),
    ("events/log.py", "def f(:", "cannot be read"),
]


@pytest.mark.parametrize(("path", "source", "complaint"), WRONG)
def test_a_line_that_breaks_a_rule_is_named(path: str, source: str, complaint: str) -> None:
    assert any(text.startswith(f"{path}:") and complaint in text for text in complaints(path, source))


def test_a_complaint_names_the_line() -> None:
    assert complaints("actors/cell.py", "import msgspec\n\nimport pykka") == [
        "actors/cell.py:3: pykka lives in actors/threads.py, nowhere else"
    ]


RIGHT = [
    ("actors/cell.py", "from ..events.log import Log\nfrom .decider import fold\nfrom . import decider"),
    ("adapters/logs/sqlite.py", "from ...events import errors\nfrom .rows import row\nimport sqlite3, time, threading"),
    ("adapters/logs/sqlite.py", "from eventsourcing.sqlite import SQLiteApplicationRecorder"),
    ("adapters/models/anthropic.py", "def f():\n    import anthropic\n    import httpx2"),
    ("adapters/prices.py", "import genai_prices"),
    (
        "reenact/runtime.py",
        "from .actors.cell import Cell\nfrom reenact.adapters.logs import sqlite",
    ),
    (
        "events/codec.py",
        "import msgspec, hashlib, json\nfrom datetime import datetime, timedelta\nimport uuid\nuuid.uuid5",
    ),
    ("actors/session.py", "def f(state):\n    return state.open, state.time, state.id, [open for open in state.jobs]"),
    ("actors/session.py", "def f(command, id):\n    return command.now(), command.random, id"),
    ("projections/duck.py", "import duckdb, threading"),
    (SHAPES, "import msgspec\nx = msgspec.convert(y, kind)"),
    ("adapters/logs/rows.py", "import msgspec\nx = msgspec.msgpack.Decoder(list[Any])\ny = msgspec.json.decode(z)"),
    ("projections/arrow.py", "import pyarrow"),
    ("projections/ledger.py", "import threading"),
    (
        "tests/test_x.py",
        "import random, time, reenact, rich\nfrom reenact.events import log\nfrom tests.given import given",
    ),
    ("tests/test_x.py", "'TO" + "DO'  # a string may say what it wants"),
]


@pytest.mark.parametrize(("path", "source"), RIGHT)
def test_a_line_that_keeps_the_rules_is_let_be(path: str, source: str) -> None:
    assert complaints(path, source) == []


def test_a_package_that_is_not_listed_is_found(tmp_path: Path) -> None:
    (tmp_path / "adapters" / "fax").mkdir(parents=True)
    (tmp_path / "adapters" / "fax" / "machine.py").touch()
    (tmp_path / "adapters" / "empty").mkdir()

    assert packages(tmp_path) == {"reenact.adapters.fax"}


def test_a_room_imported_under_its_bare_name_is_found() -> None:
    assert run("import reenact.events.errors\nimport events.errors" + TWINS) == str(
        ["events", "events.errors", "reenact.events", "reenact.events.errors"]
    )


def test_a_heavy_library_that_is_loaded_is_found() -> None:
    assert run("import reenact, rich" + LOADED) == "['rich']"


def test_a_stranger_finds_every_room_of_the_two_largest_houses(root: Path) -> None:
    shown = (root / "CONTRIBUTING.md").read_text("utf-8").partition("## Where things are")[2].partition("\n## ")[0]
    tables = dict(re.findall(r"\| in `(\w+)` \| \|\n(.*?)(?=\n\n|\Z)", shown, re.S))
    for house in ("actors", FRONT):
        listed = re.findall(r"`(\w+)`", tables[house])
        there = [file.stem for file in (root / house).rglob("[!_]*.py")]  # does not follow the links in reenact/
        assert sorted(listed) == sorted(there), f"{house}: {sorted({*listed} ^ {*there})} in one of the two only"
        for folder, inside in re.findall(r"in `(\w+)/` \| (.*) \|", tables[house]):
            there = [file.stem for file in (root / house / folder).glob("[!_]*.py")]
            assert sorted(re.findall(r"`(\w+)`", inside)) == sorted(there), f"{house}/{folder}"
