"""While a trainer is at work on a CPU, what its steps free stays with the process; then it is given back."""

import platform
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from cnnzoo import machine

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has these settings")

PAGE = resource.getpagesize()
SIZE = 32 * 2**20


def faults_of_filling(times: int) -> int:
    """Pages that the system had to hand over."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(SIZE, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_on_a_cpu_the_same_pages_are_used_again_and_given_back_at_the_end():
    with machine.tuned(torch.device("cpu")):
        faults_of_filling(times=30)  # what is freed comes to lie side by side
        assert faults_of_filling(times=10) < 3 * SIZE // PAGE
        inside = resident()
    assert resident() < inside - SIZE / 2


def test_a_thread_writes_to_the_same_memory_again_and_to_no_others():
    scratch = machine.Scratch()
    first = scratch.array((5, 4))
    assert np.shares_memory(first, scratch.array((2, 10)))
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(scratch.array, (5, 4)).result()
    assert not np.shares_memory(first, other)
    assert scratch.array((6, 4)).shape == (6, 4)
    assert not np.shares_memory(*(scratch.array((scratch.LARGEST + 1,)) for _ in range(2)))  # too much to keep


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_blas_has_one_thread_within_and_then_what_it_had():
    with threadpool_limits(2, user_api="blas"):
        with machine.one_blas_thread():
            with machine.one_blas_thread():
                assert blas_threads() == {1}
            assert blas_threads() == {1}
        assert blas_threads() == {2}
