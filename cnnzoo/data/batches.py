"""Batches for training and evaluation. Every random number is a function of (seed, epoch, step) and of nothing else."""

import queue
import threading
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cnnzoo.data.arrays import ArrayImages, Images
from cnnzoo.data.augment import Augment, Windows, mix
from cnnzoo.data.preprocess import normalise

WINDOWS_IN_MEMORY = 1 << 30  # bytes that the padded and mirrored copy of a whole set may take


class TrainBatches:
    """Shuffled, augmented batches of one size; a remainder waits for the next epoch's shuffle.

    `balanced` draws every class equally often. With mixup, labels are shares of the `classes`.
    """

    def __init__(
        self,
        images: Images,
        labels: np.ndarray,
        batch_size: int,
        augment: Augment,
        seed: int,
        device: torch.device | str = "cpu",
        classes: int | None = None,
        balanced: bool = False,
    ):
        self.images, self.labels = images, labels
        self.classes = classes or int(labels.max()) + 1
        self.balanced = balanced
        self.batch_size = min(batch_size, len(images))
        self.augment = augment
        self.seed = seed
        self.device = torch.device(device)
        config = augment.config
        self._padding = config.padding if config.crop == "padded" else 0
        self._flip = config.flip
        self._windows = None
        count, height, width, channels = images.shape
        size = count * (height + 2 * self._padding) * (width + 2 * self._padding) * channels * (2 if self._flip else 1)
        if isinstance(images, ArrayImages) and size <= WINDOWS_IN_MEMORY:
            self._windows = Windows(images.pixels, self._padding, self._flip)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self.images) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's batches from step `start` on: `(B, C, H, W)` float32 and `(B,)` int64, on the device."""
        order = shuffled(self.labels, self.balanced, self.seed, epoch)
        steps = (self._gather(order, epoch, step) for step in range(start, len(self)))
        if self._windows is None:
            steps = _ahead(steps)  # decode or read the next batch while the net works on this one
        for pixels, labels, rng in steps:
            pixels, labels = (torch.from_numpy(array).to(self.device, non_blocking=True) for array in (pixels, labels))
            images = self.augment(pixels, rng)
            if alpha := self.augment.config.mixup:
                images, labels = mix(images, labels, self.classes, alpha, rng)
            yield images, labels

    def pixels(self, epoch: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same batches as uint8, `(B, H, W, C)`, after flip and padded crop and before all else."""
        order = shuffled(self.labels, self.balanced, self.seed, epoch)
        for step in range(start, len(self)):
            pixels, labels, _ = self._gather(order, epoch, step)
            yield pixels, labels

    def _gather(self, order: np.ndarray, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
        indices = order[step * self.batch_size : (step + 1) * self.batch_size]
        rng = np.random.default_rng((1, self.seed, epoch, step))
        if self._windows is not None:
            pixels = self._windows.take(indices, rng)
        else:
            windows = Windows(self.images.take(indices), self._padding, self._flip)
            pixels = windows.take(np.arange(len(indices)), rng)
        return pixels, self.labels[indices], rng


def shuffled(labels: np.ndarray, balanced: bool, seed: int, epoch: int) -> np.ndarray:
    """The epoch's order of all images; if `balanced`, as many draws of images, every class equally likely."""
    rng = np.random.default_rng((0, seed, epoch))
    if not balanced:
        return rng.permutation(len(labels))
    share = 1 / np.bincount(labels)[labels]
    return rng.choice(len(labels), len(labels), p=share / share.sum())


class FeatureBatches:
    """Shuffled batches of vectors `(N, V, D)` float32, of each image in a view drawn for the epoch.

    They are what TrainBatches would give, had the images gone through the frozen part of a net.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        balanced: bool = False,
    ):
        self.vectors = torch.from_numpy(vectors).to(device)
        self.labels = labels
        self.batch_size = min(batch_size, len(labels))
        self.seed, self.balanced = seed, balanced

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self.labels) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's batches from step `start` on: `(B, D)` float32 and `(B,)` int64, on the device."""
        order = shuffled(self.labels, self.balanced, self.seed, epoch)
        view = np.random.default_rng((1, self.seed, epoch)).integers(self.vectors.shape[1], size=len(order))
        device = self.vectors.device
        for step in range(start, len(self)):
            part = slice(step * self.batch_size, (step + 1) * self.batch_size)
            chosen = torch.from_numpy(order[part]).to(device), torch.from_numpy(view[part]).to(device)
            yield self.vectors[chosen], torch.from_numpy(self.labels[order[part]]).to(device)


class EvalBatches:
    """Every image once, in order, as the weights' preprocessing wants it.

    Of images `(N, V, H, W, C)`, which have V crops each, a batch of B labels has B * V images, the first one's first.
    """

    def __init__(
        self,
        images: Images,
        labels: np.ndarray,
        batch_size: int,
        mean: tuple,
        std: tuple,
        device: torch.device | str = "cpu",
    ):
        self.images, self.labels = images, labels
        self.batch_size = batch_size
        self.mean, self.std = mean, std
        self.device = torch.device(device)

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """`(B, C, H, W)` float32 and `(B,)` int64, on the device."""
        for start in range(0, len(self.images), self.batch_size):
            indices = np.arange(start, min(start + self.batch_size, len(self.images)))
            pixels = torch.from_numpy(self.images.take(indices)).to(self.device, non_blocking=True)
            labels = torch.from_numpy(self.labels[indices]).to(self.device, non_blocking=True)
            yield normalise(pixels.flatten(0, -4), self.mean, self.std), labels


def _ahead(items: Iterator, depth: int = 2) -> Iterator:
    """The same items, made by a thread up to `depth` ahead. An error in the thread is raised here."""
    waiting: queue.Queue = queue.Queue(depth)
    stop = threading.Event()
    done = object()

    def put(item) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(done)
        except BaseException as error:  # handed to the consumer, whatever it is
            put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not done:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
