"""The threads that tools block in."""

import subprocess
import sys
import threading

import pytest

from reenact.adapters.tools.threads import ToolThreads


def test_work_is_done_in_threads_and_its_errors_come_back() -> None:
    threads = ToolThreads(2)
    assert threads.submit(lambda a, b=0: a + b, 1, b=2).result(5) == 3
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(5)
    with pytest.raises(SystemExit):
        threads.submit(sys.exit).result(5)
    assert threads.submit(lambda: "still here").result(5) == "still here"
    threads.shutdown()
    with pytest.raises(RuntimeError):
        threads.submit(print)


def test_no_more_than_so_many_run_at_once_and_the_rest_wait_in_order() -> None:
    threads, gate, running, done = ToolThreads(3), threading.Event(), threading.Semaphore(0), []

    def work(number: int) -> None:
        running.release()
        gate.wait(5)
        done.append(number)

    futures = [threads.submit(work, number) for number in range(10)]
    for _ in range(3):
        assert running.acquire(timeout=5)
    assert not running.acquire(blocking=False)
    assert not any(future.running() for future in futures[3:])
    gate.set()
    for future in futures:
        future.result(5)
    assert sorted(done) == list(range(10))


def test_a_thread_is_used_again_before_another_is_started() -> None:
    threads = ToolThreads(8)
    names = set()
    for _ in range(50):
        names.add(threads.submit(lambda: threading.current_thread().name).result(5))
    assert len(names) == 1


def test_what_has_not_begun_can_be_withdrawn() -> None:
    threads, gate = ToolThreads(1), threading.Event()
    first, second = threads.submit(gate.wait, 5), threads.submit(print)
    threads.shutdown(cancel_futures=True)
    assert second.cancelled()
    gate.set()
    assert first.result(5)


def test_a_tool_that_never_returns_does_not_keep_the_program_alive() -> None:
    code = (
        "import threading\n"
        "from reenact.adapters.tools.threads import ToolThreads\n"
        "begun = threading.Event()\n"
        "ToolThreads(1).submit(lambda: (begun.set(), threading.Event().wait()))\n"
        "begun.wait()\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=20, check=True)
