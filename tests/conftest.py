"""What every test gets: no network beyond this machine, no real keys, one asyncio backend, two lengths of run."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# What fails there shows what it saw.
pytest.register_assert_rewrite("tests.contracts", "tests.malformed.attack", "tests.kills.judges")

LONG = bool(os.environ.get("REENACT_LONG"))

# A key of whoever runs the tests must never be spent, nor change what a test sees.
for _name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GOOGLE_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_BASE_URL"):
    os.environ.pop(_name, None)

# A busy machine is no failure, so no deadline and no complaint about slow data.
settings.register_profile("quick", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("long", settings.get_profile("quick"), max_examples=2000)
settings.load_profile("long" if LONG else "quick")

_HERE = {"", "localhost", "localhost.", "::1", "::", "0.0.0.0"}


def _refuse_the_network(event: str, args: tuple[object, ...]) -> None:
    """An audit hook cannot be taken off again, and sees sockets that no patch of ours would: loopback only."""
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event in ("socket.connect", "socket.sendto"):
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None  # a path is a local socket
    else:
        return
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if isinstance(host, str) and host not in _HERE and not host.startswith(("127.", "::ffff:127.")):
        raise ConnectionRefusedError(f"a test tried to reach {host}: tests stay on this machine")


sys.addaudithook(_refuse_the_network)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`@pytest.mark.long` runs with `./dev test --long` only, where everything has ten times as long."""
    if LONG:
        for item in items:
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(1200))
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


Figure = Callable[[str], None]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Say what a test counted or measured. The long tier lists it all at its end: that is what the docs publish."""

    def figure(text: str) -> None:
        print(text)
        record_property("figure", text)

    return figure


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not LONG:
        return
    said = [
        (report.nodeid, text)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "teardown"
        for name, text in report.user_properties
        if name == "figure"
    ]
    if said:
        terminalreporter.section("figures")
        for where, text in sorted(said):
            terminalreporter.write_line(f"{where}\n    {text}")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def material(root: Path) -> Path:
    """The folder of recorded provider traffic, which is not part of the repository; skips where there is none."""
    folder = Path(os.environ.get("REENACT_MATERIAL") or root.parent / "shared" / "material")
    if not folder.is_dir():
        pytest.skip("no recorded traffic here: set REENACT_MATERIAL to its folder")
    return folder
