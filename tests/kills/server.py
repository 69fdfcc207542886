"""A fork server: everything is loaded once, then every process of a test is a fork, at a few milliseconds each.

`python -m tests.kills.server` reads one case a line (JSON) and writes one line for it: how the process ended, and what
it said. It has one thread, so that a fork is as good as a start.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.kills import child


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Fork a process for this case, and wait until it is gone. `kill_after_s`: kill it then, whatever it is doing."""
    said = Path(case["folder"]) / f"said-{case['number']}.json"
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            found = child.main(case)
            said.write_text(json.dumps(found))
            status = 0
        except BaseException as error:
            said.write_text(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        finally:
            os._exit(status)
    killer = case.get("kill_after_s")
    ended = _wait(pid, killer if killer is not None else case.get("limit_s", 30.0))
    if ended is None:
        os.kill(pid, signal.SIGKILL)
        ended = _wait(pid, 30.0)
    code = os.waitstatus_to_exitcode(ended) if ended is not None else None
    return {"code": code, "said": json.loads(said.read_text()) if code in (0, 1) else None}


def _wait(pid: int, limit_s: float) -> int | None:
    """Its status when it ended in time, else None."""
    fd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    try:
        if fd is not None:
            if not select.select([fd], [], [], limit_s)[0]:
                return None
            return os.waitpid(pid, 0)[1]
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return status
            time.sleep(0.001)
        return None
    finally:
        if fd is not None:
            os.close(fd)


def main() -> None:
    child.warm()
    assert threading.active_count() == 1, "a fork of a process with threads is not a fresh process"
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
