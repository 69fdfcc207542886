"""One thread at a time has msgspec picture a type; a picture that is half made ends the process of whoever uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# What a struct holds is found out while the annotations of what it nests are read. Here that takes until another thread
# read such a struct too, or has been waiting for a while.
MET_BY_TWO_THREADS = """
from __future__ import annotations
import threading
import msgspec
from reenact.events import codec, shape
from reenact.events.message import Event

begun, read = threading.Event(), threading.Event()

def taking_its_time():
    begun.set()
    read.wait(1)
    return int

class Deep(msgspec.Struct):
    number: taking_its_time()

class Nested(msgspec.Struct):
    deep: Deep

class Here(Event, frozen=True):
    nested: Nested

class There(Event, frozen=True):
    nested: Nested

codec.TYPES["here"], codec.TYPES["there"] = Here, There
data = msgspec.msgpack.encode({"nested": {"deep": {"number": 7}}})

def first():
    codec.decode("here", 1, data)

def second():
    begun.wait()
    READ
    read.set()

threads = [threading.Thread(target=each) for each in (first, second)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("both read it")
"""


@pytest.mark.parametrize(
    "read",
    [
        'assert codec.decode("there", 1, data).nested.deep.number == 7',
        'assert shape.convert({"deep": {"number": 7}}, Nested).deep.number == 7',
        'assert shape.json_decoder(Nested)(b\'{"deep": {"number": 7}}\').deep.number == 7',
    ],
    ids=["an event", "plain data", "JSON"],
)
def test_given_types_that_share_a_nested_one_when_threads_meet_them_at_once_then_both_read_them(
    root: Path, read: str
) -> None:
    assert _run(root, MET_BY_TWO_THREADS.replace("READ", read)) == (0, "both read it")


EVERY_TYPE_MET_BY_EIGHT = """
import json, sys, threading
from reenact.events import codec
sys.setswitchinterval(1e-6)
golden = json.load(open("tests/events/golden.json")).items()
stored = [(*named.split()[:2], bytes.fromhex(data)) for named, data in golden]
gate, done = threading.Barrier(8), []

def work(place):
    gate.wait()
    for name, schema, data in stored[place:] + stored[:place]:
        codec.decode(name, int(schema), data)
    done.append(place)

threads = [threading.Thread(target=work, args=(7 * place,)) for place in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(done), "read all")
"""


def test_when_many_threads_meet_every_type_at_once_then_all_read_all(root: Path) -> None:
    assert _run(root, EVERY_TYPE_MET_BY_EIGHT) == (0, "8 read all")


FORKED_WHILE_ANOTHER_THREAD_CONVERTS = """
import os, threading
from reenact.events import shape

inside, over = threading.Event(), threading.Event()

def holding():
    with shape._picturing:
        inside.set()
        over.wait()

thread = threading.Thread(target=holding)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    os._exit(0 if shape.convert(7, int) == 7 else 1)
print("the child ended with", os.waitpid(child, 0)[1])
over.set()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no process")
def test_given_a_thread_that_converts_when_the_process_forks_then_its_child_converts_too(root: Path) -> None:
    assert _run(root, FORKED_WHILE_ANOTHER_THREAD_CONVERTS) == (0, "the child ended with 0")


def _run(root: Path, code: str) -> tuple[int, str]:
    """How a fresh Python ends and what it says: no type was met in it before."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, env=os.environ
    )
    return done.returncode, done.stdout.strip() or done.stderr
