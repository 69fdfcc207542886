"""A model of power loss: the system calls of a run, and every state its files may have been left in.

A write is safe once its file was synced after it. Until then it may be there, be missing, be there without those before
it, or be torn at a sector. What is simplified: a file's name is safe as soon as it is created.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parents[2]
SECTOR_BYTES = 512
STRACE = shutil.which("strace")

_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((\d+)<([^>]*)>(?:, )?(.*)\) += (-?\d+)")
_NAMED = re.compile(r'^(?:\d+ +)?(?:unlink|unlinkat)\(.*?"([^"]*)".*\) += (-?\d+)')


class Op(Struct, frozen=True):
    """One system call. kind: write, cut (to a size), sync, gone (the file was removed) or said (on standard output)."""

    kind: str
    file: str
    at: int = 0
    data: bytes = b""


def traced(program: str, *arguments: object) -> list[Op]:
    """Run a Python program and give what it did to files and what it said, in order."""
    assert STRACE is not None
    folder = Path(str(arguments[0])).parent
    trace = folder / "trace"
    calls = "trace=pwrite64,write,fdatasync,fsync,ftruncate,unlink,unlinkat"
    strace = (STRACE, "-f", "-y", "-xx", "-s", "10000000", "-e", calls, "-e", "signal=none", "-o", str(trace))
    subprocess.run(
        [*strace, sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        stdout=subprocess.PIPE,
        timeout=110,
    )
    ops = list(_read(trace))
    trace.unlink()
    return ops


def _read(trace: Path) -> Iterator[Op]:
    with trace.open() as lines:
        for line in lines:
            if (named := _NAMED.match(line)) is not None:
                if named[2] == "0":
                    yield Op("gone", os.path.basename(_bytes(named[1]).decode()))
                continue
            call = _CALL.match(line)
            if call is None or int(call[5]) < 0:
                continue
            name, fd, path, rest, result = call.groups()
            file = os.path.basename(_bytes(path).decode(errors="replace"))
            if name in ("fsync", "fdatasync"):
                yield Op("sync", file)
            elif name == "ftruncate":
                yield Op("cut", file, int(rest))
            else:
                data, *numbers = rest.split(", ")
                written = _bytes(data.strip('"'))[: int(result)]
                if name == "pwrite64":
                    yield Op("write", file, int(numbers[-1]), written)
                elif fd == "1":
                    yield Op("said", "", 0, written)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


Files = dict[str, bytes]


class State(Struct, frozen=True):
    """What may be found after the power came back: the files, how much had been said by then, and how it came about."""

    files: Files
    said: bytes
    how: str


def states(ops: list[Op], names: tuple[str, ...], rng: random.Random, *, variants: int = 6) -> Iterator[State]:
    """Every state after every prefix of the calls, each distinct one once. names: the files that count."""
    safe: dict[str, bytearray] = {}
    loose: list[Op] = []
    said = b""
    seen: set[int] = set()
    for number, op in enumerate(ops):
        if op.kind == "said":
            said += op.data
            continue
        if op.file not in names:
            continue
        if op.kind == "sync":
            file = safe.setdefault(op.file, bytearray())
            for each in loose:
                if each.file == op.file:
                    _apply(file, each)
            loose = [each for each in loose if each.file != op.file]
        elif op.kind == "gone":
            safe.pop(op.file, None)
            loose = [each for each in loose if each.file != op.file]
        else:
            safe.setdefault(op.file, bytearray())
            loose.append(op)
        for variant in range(variants):
            files = {name: bytearray(content) for name, content in safe.items()}
            for each in _survivors(loose, variant, rng):
                _apply(files[each.file], each)
            frozen = {name: bytes(content) for name, content in files.items()}
            mark = hash((said, *sorted(frozen.items())))
            if mark not in seen:
                seen.add(mark)
                yield State(frozen, said, f"call {number}, variant {variant}")


def _survivors(loose: list[Op], variant: int, rng: random.Random) -> list[Op]:
    if variant == 0:
        return []
    if variant == 1:
        return loose
    if variant == 2:
        return loose[-1:]
    if variant == 3:
        return loose[:-1]
    some = [op for op in loose if rng.random() < 0.5]
    if variant == 4 or not some:
        return some
    torn = rng.randrange(len(some))
    return [_torn(op, rng) if n == torn or rng.random() < 0.2 else op for n, op in enumerate(some)]


def _torn(op: Op, rng: random.Random) -> Op:
    """Only some of its sectors: the first few, or the last few."""
    sectors = len(op.data) // SECTOR_BYTES
    if op.kind != "write" or sectors < 2:
        return op
    edge = rng.randrange(1, sectors) * SECTOR_BYTES
    if rng.random() < 0.5:
        return Op("write", op.file, op.at, op.data[:edge])
    return Op("write", op.file, op.at + edge, op.data[edge:])


def _apply(file: bytearray, op: Op) -> None:
    if op.kind == "cut":
        if op.at < len(file):
            del file[op.at :]
        else:
            file.extend(bytes(op.at - len(file)))
        return
    end = op.at + len(op.data)
    if len(file) < end:
        file.extend(bytes(end - len(file)))
    file[op.at : end] = op.data
