"""The peers, measured beside us: which they are, where they are installed, what each of them is asked to do.

Each lives in an environment of its own outside the repository: REENACT_BENCH_PEERS, or the platform's cache folder. The
work is in `peers/<name>.py`, which imports the peer and `benchmarks.harness`, nothing of ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from .harness import fresh

PEERS: dict[str, tuple[str, ...]] = {
    "langgraph": ("langgraph==1.2.22", "langgraph-checkpoint-sqlite==3.1.2"),
    "dbos": ("dbos==3.4.0",),
    "llamaw": ("llama-index-workflows==2.26.1",),
    "autogen": ("autogen-core==0.7.5",),
    "pydanticai": ("pydantic-ai-slim==2.68.0",),
    "openai": ("openai-agents==0.24.0",),
    "adk": ("google-adk==2.13.0", "sqlalchemy[asyncio]", "aiosqlite"),
}
"""Environment -> what is installed in it: the versions that the figures in RESULTS.md are of."""

TITLES = {
    "langgraph": "langgraph sync",
    "dbos": "dbos",
    "llamaw": "llama-index-workflows",
    "autogen": "autogen-core (not durable)",
    "pydanticai": "pydantic-ai + sqlite",
    "openai": "openai-agents SQLiteSession",
    "adk": "google-adk SqliteSessionService",
}


def home() -> Path:
    """Where the environments are."""
    given = os.environ.get("REENACT_BENCH_PEERS")
    if given:
        return Path(given)
    from platformdirs import user_cache_path

    return user_cache_path("reenact") / "peers"


def python_of(name: str) -> Path:
    return home() / name / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def installed(name: str) -> bool:
    return python_of(name).exists() and (home() / name / "complete").exists()


def install(name: str) -> None:
    """Make a peer's environment, unless it is there. Raises RuntimeError with what pip said."""
    if installed(name):
        return
    folder = home() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"installing {' '.join(PEERS[name])} into {folder}", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(python_of(name)), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PEERS[name]]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{name} could not be installed: {done.stderr.strip()[-800:]}")
    (folder / "complete").write_text("\n".join(PEERS[name]))


def measure(name: str, case: str, **numbers: Any) -> dict[str, Any]:
    """One case of one peer, in a fresh process of its environment."""
    return fresh(f"peers.{name}", case, python=str(python_of(name)), **numbers)
