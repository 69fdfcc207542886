"""`python -m reenact` and `reenact`: the command line, handed what it can do."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    from .adapters.cli.app import main
    from .cli.commands import Commands

    return main(argv, Commands(marks=True))


def main() -> None:
    """The `reenact` command."""
    code = run(sys.argv[1:])
    # A tool that outlived its time limit, or the second Ctrl-C, has a thread, for which Python would wait.
    if threading.active_count() > 1:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
