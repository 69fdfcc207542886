"""What is shipped: the lock, the wheel, the licences, the front door."""

import ast
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import reenact

ROOMS = ("actors", "adapters", "events", "projections")


# ---- the lock -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lock(root: Path) -> str:
    return (root / "requirements" / "lock.txt").read_text("utf-8")


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, object]:
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))


def test_the_lock_pins_everything_that_is_asked_for(lock: str, project: dict[str, object]) -> None:
    pins = {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.M)}
    asked = [Requirement(line) for line in project["project"]["dependencies"] + project["dependency-groups"]["dev"]]

    wrong = [str(need) for need in asked if pins.get(canonicalize_name(need.name), "") not in need.specifier]

    assert wrong == [], "renew requirements/lock.txt as CONTRIBUTING.md says"


def test_every_pin_carries_hashes_and_no_address(lock: str) -> None:
    pins = [pin for pin in re.split(r"\n(?=\S)", lock) if not pin.startswith("#")]

    assert [pin.split()[0] for pin in pins if "--hash=sha256:" not in pin] == []
    assert [line for line in lock.splitlines() if re.search(r"://| @ |^\s*-(?!-hash=)", line)] == []


# ---- the wheel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [True, False], ids=["links", "a checkout without links"])
def test_the_wheel_holds_every_module_once(root: Path, tmp_path: Path, links: bool) -> None:
    tree = tmp_path / "tree"
    for name in ("reenact", *ROOMS):
        shutil.copytree(root / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tree / name)
    if not links:  # as git leaves them where links are switched off: a file with the target in it
        for name in ROOMS:
            (tree / "reenact" / name).unlink()
            (tree / "reenact" / name).write_text(f"../{name}")

    subprocess.run(
        [sys.executable, "-c", "import setuptools.build_meta as b; b.build_wheel('..')"],
        cwd=tree,
        check=True,
        capture_output=True,
        timeout=100,
    )

    (wheel,) = tmp_path.glob("*.whl")
    held = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    real = [file for room in ("reenact", *ROOMS) for file in (tree / room).rglob("*.py")]  # does not follow the links
    expected = [file.relative_to(tree).as_posix() for file in real]
    expected = [name if name.startswith("reenact/") else f"reenact/{name}" for name in expected]
    assert sorted(held) == sorted([*expected, "reenact/py.typed"])


def test_the_four_rooms_are_links_in_the_front_door(root: Path) -> None:
    assert {name: os.readlink(root / "reenact" / name) for name in ROOMS} == {name: f"../{name}" for name in ROOMS}


# ---- licences -------------------------------------------------------------------------------------------------------

COPYLEFT = re.compile(r"\b[AL]?GPL|General Public License", re.I)


def licences(name: str) -> list[str]:
    """What a distribution says of its licence: the SPDX expression, else its classifiers, else a short free text."""
    said = importlib.metadata.metadata(name)
    if expression := said.get("License-Expression"):
        return [expression]
    if classifiers := [text for text in said.get_all("Classifier", []) if text.startswith("License ::")]:
        return classifiers
    text = (said.get("License") or "").strip()
    return [text] if text and "\n" not in text else []  # a whole licence text names others in passing


def copyleft(said: list[str]) -> bool:
    """No way to take it without copyleft: of alternatives (`A OR B`, several classifiers) one free of it is enough."""
    ways = [way for text in said for way in re.split(r"\bOR\b", text)]
    return bool(ways) and all(COPYLEFT.search(way) for way in ways)


def core(name: str, seen: set[str]) -> Iterator[str]:
    """The distribution and everything that it installs here, without extras."""
    if canonicalize_name(name) in seen:
        return
    seen.add(canonicalize_name(name))
    try:
        needs = importlib.metadata.requires(name) or []
    except PackageNotFoundError:  # for another platform
        return
    yield name
    for need in map(Requirement, needs):
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            yield from core(need.name, seen)


def test_nothing_in_the_core_is_copyleft() -> None:
    names = list(core("reenact", set()))

    assert len(names) > 16, "reenact is not installed here, or its metadata is old: ./dev sets it up"
    assert {name: licences(name) for name in names if copyleft(licences(name))} == {}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["LGPL-3.0-only"], True),
        (["MIT AND GPL-2.0-or-later"], True),
        (["MIT OR GPL-2.0-or-later"], False),
        (["License :: OSI Approved :: GNU Affero General Public License v3"], True),
        (["AGPLv3"], True),
        (["Apache-2.0"], False),
        ([], False),
    ],
)
def test_copyleft_is_recognised(said: list[str], expected: bool) -> None:
    assert copyleft(said) is expected


# ---- the front door -------------------------------------------------------------------------------------------------


def test_the_public_names_are_the_ones_that_can_be_had() -> None:
    assert sorted(reenact.__all__) == sorted(["__version__", *reenact._HOMES])
    assert set(reenact.__all__) <= set(dir(reenact))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        reenact.nonsense  # noqa: B018


@pytest.mark.parametrize("name", reenact._HOMES)
def test_a_public_name_comes_from_its_home(name: str) -> None:
    home = reenact._HOMES[name]
    if importlib.util.find_spec(home) is None:
        pytest.skip(f"{home} is not there yet")

    assert getattr(reenact, name) is getattr(importlib.import_module(home), name)
    assert name in seen_by_type_checkers(), f"import {name} under `if TYPE_CHECKING:` in reenact/__init__.py"


def seen_by_type_checkers() -> set[str]:
    tree = ast.parse(Path(reenact.__file__).read_text("utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_the_version_is_the_one_that_is_installed() -> None:
    assert reenact.__version__ == importlib.metadata.version("reenact")
