"""Every example is run, and prints what it says it prints."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_prints_what_it_says(example: Path, tmp_path: Path) -> None:
    said = ast.get_docstring(ast.parse(example.read_text("utf-8")), clean=False) or ""
    told, mark, prints = said.partition("\nPrints:\n")
    assert told and mark, "it says what it prints"

    done = subprocess.run([sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == textwrap.dedent(prints).strip()
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
