"""The README is a program: every block of Python runs, every command prints what it says, in the order of the page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
VARIES = [
    (re.compile(r"\b\d\d:\d\d:\d\d(\.\d{3})?"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8}\b"), "ID"),
    (re.compile(r"in \d+ ms"), "in N ms"),
]


def blocks(text: str) -> list[tuple[str, str]]:
    return [(match[1], match[2]) for match in BLOCK.finditer(text)]


def matches(said: str, meant: str) -> bool:
    """Equal line by line, but for times and ids; `…` stands for anything to the end of a line."""
    for pattern, name in VARIES:
        said, meant = pattern.sub(name, said), pattern.sub(name, meant)
    lines, wanted = said.rstrip().splitlines(), meant.rstrip().splitlines()
    return len(lines) == len(wanted) and all(
        line.rstrip().startswith(want[:-1].rstrip()) if want.endswith("…") else line.rstrip() == want.rstrip()
        for line, want in zip(lines, wanted, strict=True)
    )


def commands(block: str) -> list[tuple[str, str]]:
    """(command, what it prints) of a console block."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.M)
    assert parts[0] == "", "a console block begins with a command"
    return list(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture
def shell(tmp_path: Path):
    """Runs a command in an empty folder with the programs of this environment first, and no key."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    keep = {name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_URL"))}

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=keep | {"PATH": path}, capture_output=True, text=True, timeout=60
        )
        killed = "--die" in command
        assert done.returncode in ((137, -9) if killed else (0,)), (
            f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    return run


def test_every_block_of_the_readme_runs_and_prints_what_it_says(root: Path, shell, tmp_path: Path) -> None:
    seen = {"python": 0, "console": 0}
    for number, (kind, block) in enumerate(blocks((root / "README.md").read_text())):
        if kind == "python":
            named = re.match(r"# (\w+\.py)\n", block)
            file = tmp_path / (named[1] if named else f"block_{number}.py")
            file.write_text(block)
            compile(block, str(file), "exec")
            if named is None or named[1] not in "".join(
                each for _, each in blocks((root / "README.md").read_text())[number + 1 :]
            ):
                assert shell(f"python {file.name}").strip(), "a program of the README prints something"
        elif kind == "console":
            for command, meant in commands(block):
                said = shell(command)
                assert matches(said, meant), f"$ {command}\n{said}\nbut the README says\n{meant}"
        else:
            raise AssertionError(f"what is a block of {kind!r}?")
        seen[kind] += 1
    assert min(seen.values()) >= 3


def test_the_judge_of_this_page_can_find_a_page_wrong() -> None:
    assert matches("at 10:00:00 abcdef01", "at 11:11:11 12345678")
    assert not matches("one", "two")
    assert not matches("one\ntwo", "one")
    assert matches("one and more", "one …") and not matches("none", "one …")


def test_every_command_that_the_readme_names_exists(root: Path, shell) -> None:
    text = (root / "README.md").read_text()
    named = re.search(r"lists the rest: `([^`]+)`", text)
    assert named is not None
    helped = shell("reenact --help")
    for command in named[1].split():
        assert re.search(rf"\b{command}\b", helped), command


def test_the_files_that_the_readme_points_to_are_there(root: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", (root / "README.md").read_text()):
        assert link.startswith("https://") or (root / link).exists(), link


def test_the_commands_that_it_lists_are_those_there_are(root: Path, shell) -> None:
    listed = re.search(r"`reenact --help` lists the rest: `([^`]+)`", (root / "README.md").read_text())
    assert listed is not None
    assert listed[1].split() == re.findall(r"^│ ([a-z]+) ", shell("reenact --help"), re.M)
