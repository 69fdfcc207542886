"""Who is at the other end of a local socket: a process, its user, its terminal, and whose child it is.

What the kernel says of a process is believed, what the process says of itself is not. Nothing here decides.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress

from msgspec import Struct

MARK = "REENACT_TOOL_CALL"
"""The variable that is set for processes which a call of a tool begins, and which their children inherit."""

PERSON = "cli:"
"""How the principals of people at a terminal begin: `cli:user@terminal`, without the last part where there is none."""

ANCESTORS_MAX = 1000
"""Parents of a process that are looked at. A chain that is longer is taken for one that cannot be followed."""

TRIES = 3
"""How often the parents of a process are walked: one that ends meanwhile breaks the chain."""

_MARK_BYTES = (MARK + "=").encode()


class Caller(Struct, frozen=True):
    """A process that asks. pid: None where the system does not tell, or the process is not to be seen from here."""

    pid: int | None
    principal: str

    def inside_of(self, pid: int) -> bool:
        """Whether it is this process, or was begun by it or by a child of it, as far as that can be seen.

        A child whose parents have ended is told by the mark of a tool's call, if it has one. One that is gone by now,
        or whose parents cannot be followed, is taken for one that is inside.
        """
        if self.pid is None:
            return False
        return self.pid == pid or _marked(self.pid) or _descends(self.pid, pid)


def caller_of(peer: socket.socket) -> Caller:
    """The process at the other end of a local socket."""
    pid: int | None = None
    with suppress(OSError):
        if sys.platform == "linux":
            pid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        elif sys.platform == "darwin":
            pid = struct.unpack("i", peer.getsockopt(0, 0x002, 4))[0]  # SOL_LOCAL, LOCAL_PEERPID
    pid = pid or None  # 0: it is in a namespace that is not below this one
    return Caller(pid, _principal(None if pid is None else _terminal_of(pid)))


def own_principal() -> str:
    """The principal of whoever runs this process from a command line."""
    for fd in (0, 1, 2):
        with suppress(OSError):
            return _principal(os.ttyname(fd).removeprefix("/dev/"))
    return _principal(None)


def marked(environ: Mapping[str, str]) -> str | None:
    """The call of a tool in which a process with this environment was begun, None where it says of none."""
    return environ.get(MARK) or None


def _principal(terminal: str | None) -> str:
    try:
        import pwd

        user = pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):  # a system without such names, a user without one
        user = str(os.geteuid()) if hasattr(os, "geteuid") else "user"
    return f"{PERSON}{user}" + (f"@{terminal}" if terminal else "")


def _marked(pid: int) -> bool:
    """Whether its environment has the mark of a tool's call; it had to be read by this user to be of any use."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return any(entry.startswith(_MARK_BYTES) for entry in file.read().split(b"\0"))
    except OSError:
        return False


def _descends(pid: int, ancestor: int) -> bool:
    for _ in range(TRIES):
        found = _walk(pid, ancestor)
        if found is not None:
            return found
    return True


def _walk(pid: int, ancestor: int) -> bool | None:
    """Whether `ancestor` is among the parents. None: one of them ended while it was looked at."""
    parents = None if sys.platform == "linux" else _all_parents()
    for _ in range(ANCESTORS_MAX):
        parent = _parent_of(pid) if parents is None else parents.get(pid)
        if parent is None:
            return False if _lives(pid) else None
        if parent == ancestor:
            return True
        if parent <= 1:
            return False
        pid = parent
    return None


def _lives(pid: int) -> bool:
    """Whether there is such a process, of another user, whose parent is not shown."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def _stat(pid: int) -> list[str]:
    """What stands behind the name in /proc/<pid>/stat; a name may hold anything, so it is looked for from the end."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].decode().split()


def _parent_of(pid: int) -> int | None:
    try:
        return int(_stat(pid)[1])
    except (OSError, ValueError, IndexError):
        return None


def _terminal_of(pid: int) -> str | None:
    if sys.platform != "linux":
        return None
    try:
        device = int(_stat(pid)[4])
    except (OSError, ValueError, IndexError):
        return None
    major, minor = os.major(device), os.minor(device)
    if not device:
        return None
    return f"pts/{minor + (major - 136) * 256}" if 136 <= major <= 143 else f"tty{minor}"


def _all_parents() -> dict[int, int]:
    """Every process and its parent, where there is no /proc."""
    try:
        listed = subprocess.run(
            ["ps", "-axo", "pid=,ppid="],
            env={"PATH": os.environ.get("PATH", os.defpath)},  # it needs no more, and keys are for nobody
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.split() for line in listed.stdout.splitlines())
    return {int(pair[0]): int(pair[1]) for pair in pairs if len(pair) == 2 and all(map(str.isdigit, pair))}


__all__ = ["MARK", "PERSON", "Caller", "caller_of", "marked", "own_principal"]
