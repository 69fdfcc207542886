"""`./dev` sets up once, starts at once, and begins again after a broken set-up.

uv and Python are stand-ins here: scripts that write down what they were asked. Both real routes, with uv and with pip,
are what brought this test to run.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PYTHON = """#!/bin/sh
echo "python $*"
echo "long=$REENACT_LONG in $(pwd)"
"""
UV = """#!/bin/sh
echo "$*" >> "{log}"
if [ -e "{root}/broken" ]; then echo "uv says: the disk is on fire"; exit 3; fi
if [ "$1" = venv ]; then mkdir -p "{root}/.venv/bin" && cp "{root}/python" "{root}/.venv/bin/python"; fi
"""
# Reaches for no pip of this machine: what uv cannot do stays undone.
REFUSES = "#!/bin/sh\nexit 9\n"


@dataclass
class Checkout:
    root: Path
    log: Path

    def dev(self, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(self.root / "dev"), *args],
            cwd=cwd or self.root,
            env={"PATH": f"{self.root}/bin:/usr/bin:/bin", "HOME": str(self.root)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def asked(self) -> list[str]:
        """What uv was asked since the last look, by its first words."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return ["venv" if line.startswith("venv") else "lock" if " -r " in line else "project" for line in lines]


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Checkout:
    here = Path(os.path.realpath(tmp_path))
    shutil.copy(root / "dev", here / "dev")
    (here / "requirements").mkdir()
    (here / "requirements" / "lock.txt").write_text("one==1\n")
    (here / "pyproject.toml").write_text("[project]\n")
    log = here / "uv.log"
    (here / "bin").mkdir()
    for name, text in {
        "python": PYTHON,
        "bin/uv": UV.format(root=here, log=log),
        "bin/pip": REFUSES,
        "bin/pip3": REFUSES,
    }.items():
        (here / name).write_text(text)
        (here / name).chmod(0o755)
    return Checkout(here, log)


def test_the_first_run_sets_up_and_the_second_starts_at_once(checkout: Checkout) -> None:
    first = checkout.dev("demo", "--json")
    assert checkout.asked() == ["venv", "lock", "project"]
    assert first.stdout.splitlines()[0] == "python -m reenact demo --json", "nothing else on stdout"

    second = checkout.dev("demo", "--json")
    assert checkout.asked() == []
    assert (second.stdout, second.stderr, second.returncode) == (first.stdout, "", 0)


def test_each_verb_runs_what_it_says(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = Path(os.path.realpath(tmp_path_factory.mktemp("elsewhere")))

    def said(*args: str) -> list[str]:
        return checkout.dev(*args, cwd=elsewhere).stdout.splitlines()

    assert said("run", "ps", "--db", "x.db") == ["python -m reenact ps --db x.db", f"long= in {elsewhere}"]
    assert said("test", "-k", "a b") == ["python -P -m pytest -n 2 -k a b", f"long= in {checkout.root}"]
    assert said("test", "--long") == ["python -P -m pytest -n 2", f"long=1 in {checkout.root}"]
    assert said("bench", "append") == ["python benchmarks/__main__.py append", f"long= in {checkout.root}"]
    assert [line for line in said("check") if line.startswith("python")] == [
        "python -P -m ruff check --output-format=concise .",
        "python -P -m ruff format . --check",
        "python -P -m mypy -p reenact",
        "python -P -m pytest -q tests/test_rooms.py",
    ]


def test_a_change_is_installed_and_no_more_than_that(checkout: Checkout) -> None:
    checkout.dev("run")
    checkout.asked()

    (checkout.root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    checkout.dev("run")
    assert checkout.asked() == ["project"]

    (checkout.root / "requirements" / "lock.txt").write_text("one==2\n")
    checkout.dev("run")
    assert checkout.asked() == ["lock", "project"]


@pytest.mark.parametrize("harm", ["unfinished", "no python", "moved"])
def test_a_broken_venv_is_made_again(checkout: Checkout, harm: str) -> None:
    checkout.dev("run")
    checkout.asked()
    stamp, left_over = checkout.root / ".venv" / "reenact-stamp", checkout.root / ".venv" / "left-over"
    left_over.touch()
    if harm == "unfinished":
        stamp.write_text("unfinished\n")
    elif harm == "no python":
        (checkout.root / ".venv" / "bin" / "python").unlink()
    else:
        stamp.write_text(stamp.read_text().replace(str(checkout.root), "/elsewhere"))

    assert checkout.dev("run").returncode == 0

    assert checkout.asked() == ["venv", "lock", "project"]
    assert not left_over.exists()


def test_a_venv_made_by_somebody_else_is_used_and_not_deleted(checkout: Checkout) -> None:
    (checkout.root / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(checkout.root / "python", checkout.root / ".venv" / "bin" / "python")
    theirs = checkout.root / ".venv" / "theirs"
    theirs.touch()

    assert checkout.dev("run").returncode == 0

    assert checkout.asked() == ["lock", "project"]
    assert theirs.exists()


def test_a_failed_set_up_shows_what_the_command_said_and_the_next_run_begins_again(checkout: Checkout) -> None:
    checkout.dev("run")
    checkout.asked()
    (checkout.root / "requirements" / "lock.txt").write_text("one==2\n")
    (checkout.root / "broken").touch()
    # The stand-in Python answers `-m pip` with success, so pip is asked too; take it away to be left with uv alone.
    (checkout.root / "python").write_text(REFUSES)
    shutil.copy(checkout.root / "python", checkout.root / ".venv" / "bin" / "python")

    failed = checkout.dev("run")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "uv says: the disk is on fire" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert checkout.asked() == ["lock"]

    (checkout.root / "broken").unlink()
    (checkout.root / "python").write_text(PYTHON)
    assert checkout.dev("run").returncode == 0
    assert checkout.asked() == ["venv", "lock", "project"]


@pytest.mark.parametrize(("args", "code"), [((), 2), (("--help",), 0), (("nonsense",), 2), (("check", "x"), 2)])
def test_a_wrong_call_is_told_the_verbs(checkout: Checkout, args: tuple[str, ...], code: int) -> None:
    done = checkout.dev(*args)

    assert done.returncode == code
    assert "check" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_old_python_is_told_so_in_one_line(checkout: Checkout) -> None:
    source = (checkout.root / "dev").read_text()
    (checkout.root / "dev").write_text(source.replace("OLDEST = (3, 11)", "OLDEST = (9, 9)"))

    done = checkout.dev("run")

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("dev: needs Python 3.11 or newer; this is 3.")
