"""What a training step frees stays with the process until training ends."""

import platform
import resource

import pytest
import torch

from cnnzoo.train import memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has these settings")


def faults_of_filling(megabytes: int, times: int) -> int:
    """Pages that the system had to hand over."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(megabytes * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_on_a_cpu_the_same_pages_are_used_again_and_given_back_at_the_end():
    pages = 64 * 2**20 // resource.getpagesize()
    with memory.kept(torch.device("cpu")):
        faults_of_filling(64, times=10)  # what is freed comes to lie side by side
        assert faults_of_filling(64, times=10) < pages
    assert faults_of_filling(64, times=10) >= 9 * pages


def test_for_other_devices_nothing_changes():
    pages = 64 * 2**20 // resource.getpagesize()
    with memory.kept(torch.device("meta")):
        assert faults_of_filling(64, times=10) >= 9 * pages
