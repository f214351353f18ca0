"""Whoever gives no sign of life is noticed, and the place where it hangs is named."""

import subprocess
import sys
import time

from longformer.training.watchdog import watched


def test_signs_of_life_keep_the_watchdog_quiet() -> None:
    stalls: list[str] = []
    with watched(0.5, stalls.append) as beat:
        for _ in range(10):
            time.sleep(0.1)
            beat()
    assert stalls == []


def test_a_stall_is_reported_with_the_function_that_hangs() -> None:
    stalls: list[str] = []

    def hang_here() -> None:
        deadline = time.monotonic() + 30
        while not stalls and time.monotonic() < deadline:
            time.sleep(0.01)

    with watched(0.2, stalls.append):
        hang_here()
    (place,) = stalls
    assert place.startswith("hang_here (test_watchdog.py:")


def test_a_thread_that_never_lets_go_of_the_interpreter_ends_with_its_stack_shown() -> None:
    program = """
import ctypes
from longformer.training import watchdog
watchdog._SECONDS_FOR_PYTHON = 0.3
def stuck():
    ctypes.PyDLL(None).sleep(30)
with watchdog.watched(0.2, print):
    stuck()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 1
    assert "in stuck" in ended.stderr
