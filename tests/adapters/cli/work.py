"""What commands that do work are tried with: scripts of a model, a file of tools, and a charge that was cut off."""

from __future__ import annotations

import json
from pathlib import Path

from tests.adapters.cli.processes import kill, process, wait_for

TOOLS = '''
from pathlib import Path

from reenact import tool

HERE = Path(__file__).parent


@tool(effect="read")
def look(path: str) -> str:
    """Look into a file."""
    return f"looked into {path}"


@tool
def charge(cents: int) -> str:
    """Charge a card."""
    with open(HERE / "charged", "a") as file:
        file.write(f"{cents}\\n")
    (HERE / "inside").touch()
    while (HERE / "wait").exists():
        pass
    return f"charged {cents}"
'''


def script(*steps: object, name: str = "script.json") -> str:
    Path(name).write_text(json.dumps(steps))
    return f"scripted:{name}"


def killed_in_a_charge(here: Path, *more: str) -> None:
    """Leaves a log behind in which a charge was begun and, as far as anybody knows, not ended."""
    model = script(
        {"text": "I charge.", "tool_calls": [{"name": "charge", "input": {"cents": 1250}}]}, {"text": "All done."}
    )
    (here / "wait").touch()
    child = process("run", "Charge it", "-m", model, "--tools", "tools.py", *more)
    wait_for(here / "inside", child)
    kill(child)
    (here / "wait").unlink()
