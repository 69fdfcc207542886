"""What the tests of the command line get."""

from pathlib import Path

import pytest

from tests.adapters.cli.work import TOOLS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the test's own to work in, and nothing in the environment that the command line listens to."""
    monkeypatch.chdir(tmp_path)
    for name in ("REENACT_DATABASE_URL", "REENACT_MODEL", "LOG_LEVEL", "NO_COLOR", "EDITOR", "VISUAL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def tools(here: Path) -> None:
    """The tools of `work`, in `tools.py`."""
    (here / "tools.py").write_text(TOOLS)
