"""Chooses by a short trial how many batches a machine computes at once."""

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

SECONDS = 0.1  # length of a trial, if a batch does not take longer
TURNS = 2  # trials of each number, in turn, of which the best counts
GAIN = 1.05  # twice the threads are taken only if they are this much faster


def batches_at_once(compute: Callable[[], object], most: int) -> int:
    """Return how many threads should compute a batch each: `most`, or half of them if they do as much.

    Two threads of one core share its arithmetic, and all cores share the memory's bandwidth. So on some machines twice
    the threads compute no more, and take twice the memory.

    Args:
        compute: computes a batch of usual size. Several threads call it.
        most: number of threads that may compute, at least 2.
    """
    _seconds(compute, most, most)  # each thread compiles its kernels
    batches = most * max(int(SECONDS / _seconds(compute, most, most)), 1)
    best = dict.fromkeys((most, most // 2), math.inf)
    for _ in range(TURNS):
        for threads, seconds in best.items():
            best[threads] = min(seconds, _seconds(compute, threads, batches))
    return most if best[most] * GAIN < best[most // 2] else most // 2


def _seconds(compute: Callable[[], object], threads: int, batches: int) -> float:
    """Return how long some threads take to compute some batches."""
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        deque(pool.map(lambda _: compute(), range(batches)), maxlen=0)
        return time.perf_counter() - began
