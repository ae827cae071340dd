"""What the machine is set to while a net or scikit-learn is at work, and not longer: its memory and its threads."""

import ctypes
import functools
import math
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

# Of mallopt, from glibc's malloc.h, with what they are set to meanwhile and afterwards. Larger tensors still come from
# the system and go back there, or the gaps they leave would add up. Setting a threshold switches off glibc's own rule,
# which raises it as a program goes on; so afterwards both stand where that rule would have ended.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_WHILE = {_MMAP_THRESHOLD: 2**26, _TRIM_THRESHOLD: 2**31 - 1}
_AFTER = {_MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}
_IN_LITTLE = {_MMAP_THRESHOLD: 2**20, _TRIM_THRESHOLD: 2**20}


@contextmanager
def tuned(device: torch.device) -> Iterator[None]:
    """Set the machine to steps that are all alike.

    On a CPU, under glibc, what a step frees is not handed back to the system before the end. A step allocates the same
    tensors as the one before it; handed back in between, every page of them has to be faulted in and filled with zeros
    anew: 70,000 faults in a step of resnet18 on 16 images. Kept, a step took 0.90 of the time for resnet18, 0.88 for
    resnet50 and resnet20, 0.76 for lenet5 (2 cores of an AMD EPYC, glibc 2.36, torch 2.15); the process took 3 % more
    memory for resnet18 on 16 images, 17 % on 64. Under a ulimit -v all of it is handed back instead.

    On a GPU of NVIDIA's, cuDNN tries its algorithms out at the first step of each shape.
    """
    if device.type == "cuda":
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before
    elif device.type == "cpu" and _has_glibc():
        libc, in_little = ctypes.CDLL(None), _may_take_little()
        _set(libc, _IN_LITTLE if in_little else _WHILE)
        try:
            yield
        finally:
            _set(libc, _IN_LITTLE if in_little else _AFTER)
            libc.malloc_trim(0)
    else:
        yield


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS use one thread for small products of matrices, as scikit-learn makes many, which are over before several
    threads have found each other; and these spin on for 20 ms, while threads of torch's and onnxruntime's are to work:
    a third of the time of `cnnzoo predict` with a run of squeezenet1_1.

    Logistic regression by cross-validation over 3,446 vectors of 512 numbers took 3.4 s on one thread and 17.8 s on
    two (2 quiet cores of an AMD EPYC, OpenBLAS), over a minute where other processes held the cores; one fit to 20,000
    vectors of 2,048 took 1.1 s and 2.1 s.
    """
    loaded = {"numpy", "scipy.linalg", "sklearn"} & sys.modules.keys()  # each may bring a BLAS of its own
    with _known_blas(frozenset(loaded)).limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _known_blas(_loaded: frozenset[str]) -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")  # to find them takes three milliseconds


def give_back(device: torch.device) -> None:
    """Hand what was freed, and kept for the next step, back to the device: that step may want it in other pieces."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif device.type == "cpu" and _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


class Scratch(threading.local):
    """Memory that a thread writes to again and again, for what is read before the next one comes.

    Decoding photos of 500x375 took two thirds of the time that it took into new memory, which the system has to fault
    in page by page.
    """

    LARGEST = 2**26  # bytes that are kept

    def __init__(self):
        self._kept = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """uint8 of that shape, with anything in it."""
        size = math.prod(shape)
        if size > self.LARGEST:
            return np.empty(shape, np.uint8)
        if size > len(self._kept):
            self._kept = np.empty(size, np.uint8)
        return self._kept[:size].reshape(shape)


def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def _may_take_little() -> bool:
    """Whether a ulimit -v is set: what malloc keeps is lost there to all that asks the system itself, as oneDNN does
    for the code that it makes.
    """
    import resource  # which Windows lacks, as it lacks glibc

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        libc.mallopt(option, value)
