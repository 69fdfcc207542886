"""How a figure is measured: in a process of its own, several times, the machine's own speed noted beside it.

A benchmark is a module with `CASES`: name -> function(**numbers) -> dict of figures. Whatever it computed goes into a
digest, so that a figure cannot come from work that was left out. Standard library only: peers import it too.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

USER = "What is the weather like in Paris today? Please use the tool and then answer in one sentence."
ARGUMENTS = {"city": "Paris"}
OUTPUT = '{"city": "Paris", "temp_c": 21, "sky": "clear", "wind_kmh": 11}'
ANSWER = "It is 21 degrees and clear in Paris today, with a light wind of about 11 km/h."
"""One turn, the same for everybody: a question, a tool call, its result, an answer."""

CHILD_S = 600
"""How long one measurement may take."""


# -- the machine, as it is right now --


def calibration_ms() -> float:
    """Two million rounds of a loop in plain Python; best of three. Compare figures of two runs by it, not by the
    clock."""
    best = float("inf")
    for _ in range(3):
        began, total = time.perf_counter(), 0
        for number in range(2_000_000):
            total += number & 7
        best = min(best, time.perf_counter() - began)
    return best * 1e3


def sync_ms(folder: str | os.PathLike[str], rounds: int = 40) -> float:
    """Median of an append of 300 bytes with fdatasync in this folder."""
    path, took = os.path.join(folder, f"sync-{os.getpid()}"), []
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            os.write(file, bytes(300))
            getattr(os, "fdatasync", os.fsync)(file)
            took.append(time.perf_counter() - began)
    finally:
        os.close(file)
        os.unlink(path)
    return statistics.median(took) * 1e3


def machine() -> str:
    """One line: processor, cores, memory, file system of the scratch folder, kernel, Python."""
    name, memory = platform.processor() or platform.machine(), ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal"):
                memory = f", {int(line.split()[1]) / 2**20:.0f} GB"
                break
    except OSError:
        pass
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} x {name}{memory}, {platform.system()} {platform.release()}, {python}"


def peak_mb() -> float:
    """The most memory this process ever had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def memory_mb() -> float:
    """The memory this process has now, in MB; the peak where that cannot be told."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return peak_mb()


# -- one measurement --


@contextmanager
def scratch() -> Iterable[Path]:  # type: ignore[misc]
    """An empty folder on a disk (REENACT_BENCH_DATA, else the system's place for such), gone afterwards."""
    base = os.environ.get("REENACT_BENCH_DATA")
    if base:
        os.makedirs(base, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="reenact-bench-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Digest:
    """Over everything a benchmark computed, in order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, *values: object) -> None:
        for value in values:
            self._hash.update(repr(value).encode())
            self._hash.update(b"\0")

    def __str__(self) -> str:
        return self._hash.hexdigest()[:16]


def turns(took: list[float]) -> dict[str, Any]:
    """Figures of turns made one after the other: `took` is how long each took, in seconds."""

    def around(number: int) -> float:
        return statistics.median(took[max(0, number - 5) : number + 5]) * 1e3

    count = len(took)
    marks = sorted({mark for mark in (10, 25, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500) if mark < count})
    return {
        "turns": count,
        "turns_s": count / sum(took),
        "turn_10_ms": around(min(10, count - 1)),
        "turn_last_ms": statistics.median(took[-10:]) * 1e3,
        "curve": {**{mark: around(mark) for mark in marks}, count: statistics.median(took[-10:]) * 1e3},
    }


def child(argv: list[str], *, timeout_s: float = CHILD_S) -> dict[str, Any]:
    """Run one measurement in a fresh process; its last line is the result. Raises RuntimeError with what it said."""
    # Bytecode is kept, as in any installed program, but not in the checkout.
    kept = Path(tempfile.gettempdir()) / f"reenact-bench-bytecode-{os.getuid()}"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(kept), "REENACT_BENCH_T0": repr(time.time())}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout_s)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()[-800:]}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def fresh(module: str, case: str, *, python: str = sys.executable, **numbers: Any) -> dict[str, Any]:
    """One case of one benchmark, in a process of its own."""
    return child([python, "-m", f"benchmarks.{module}", case, json.dumps(numbers)])


def instructions(module: str, case: str, **numbers: Any) -> int:
    """How many instructions one case of one benchmark takes, by cachegrind: the same number in any hour."""
    counter = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    argv = [*counter, sys.executable, "-m", f"benchmarks.{module}", case, json.dumps(numbers)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=CHILD_S)
    said = re.search(r"I *refs: *([\d,]+)", done.stderr)
    if done.returncode != 0 or said is None:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()[-800:]}")
    return int(said[1].replace(",", ""))


def median_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The repeats as one: the median of each number; what is no number must be the same in all, or is a list."""
    if len(results) == 1:
        return results[0]
    out: dict[str, Any] = {}
    for name, first in results[0].items():
        values = [result[name] for result in results]
        if isinstance(first, bool) or not isinstance(first, int | float | dict):
            out[name] = first if all(value == first for value in values) else values
        elif isinstance(first, dict):
            out[name] = median_of(values)
        else:
            out[name] = statistics.median(values)
    return out


def main(cases: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """The body of a benchmark run as a program: `python -m benchmarks.bench_turn durable '{"turns": 100}'`."""
    name = sys.argv[1] if len(sys.argv) > 1 else next(iter(cases))
    numbers = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    print(json.dumps(cases[name](**numbers)), flush=True)
