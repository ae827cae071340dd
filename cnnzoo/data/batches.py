"""Batches for training and evaluation. Every random number is a function of (seed, epoch, step) and of nothing else."""

import queue
import threading
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cnnzoo.data.arrays import ArrayImages, Images, Unreadable
from cnnzoo.data.augment import Augment, Mix, Windows
from cnnzoo.data.draws import Draws, Share
from cnnzoo.data.parts import Parts
from cnnzoo.data.preprocess import centre, normalise
from cnnzoo.data.to_device import SideStream, to_device
from cnnzoo.errors import InputError

WINDOWS_IN_MEMORY = 1 << 30  # bytes that the padded and mirrored copy of a whole set may take


class TrainBatches:
    """Shuffled, augmented batches of one size; a remainder waits for the next epoch's shuffle.

    `weights` `(N,)` draw each image in proportion, see `shuffled`. With mixup, labels are shares of the `classes`.
    Several processes each get their `share` of every batch, with what would have happened to these images in one
    process.

    An image that can no longer be read gives its place to another of the same batch; `problems` has a line for each.
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
        share: Share | None = None,
        weights: np.ndarray | None = None,
    ):
        self.images, self.labels = images, labels
        self.share, self.weights = share or Share(), weights
        self.batch_size = min(batch_size, len(images))
        self.augment = augment
        self.seed = seed
        self.device = torch.device(device)
        self._stream = SideStream(self.device)  # one, since memory belongs to the stream that it was taken for
        config = augment.config
        in_memory, on_gpu = isinstance(images, ArrayImages), self.device.type != "cpu"
        self.mix = Mix(classes or int(labels.max()) + 1, config.mixup, config.cutmix)
        self._padding = augment.padding
        self._flip = config.flip
        self._windows = None
        self.problems: dict[str, None] = {}  # in order, each once
        # Parts are cut before they go to the device, unless that is a GPU and has the decoded images.
        cuts = config.crop in ("resized", "jittered") and not (on_gpu and in_memory)
        self._crop = config if cuts else None
        if cuts:
            self.augment = augment.after_crop()
        count, height, width, channels = images.shape
        size = count * (height + 2 * self._padding) * (width + 2 * self._padding) * channels * (2 if self._flip else 1)
        if in_memory and not cuts and size <= WINDOWS_IN_MEMORY:
            self._windows = Windows(images.whole(), self._padding, self._flip)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self.images) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's batches from step `start` on: `(B, C, H, W)` float32 and `(B,)` int64, on the device."""
        order = shuffled(len(self.labels), self.seed, epoch, self.weights)
        gathered = (self._gather(order, epoch, step) for step in range(start, len(self)))
        steps = ((self._stream.send(pixels, labels), draws) for pixels, labels, draws in gathered)
        if self._windows is None:
            steps = ahead(steps)  # decode or read the next batch while the net works on this one
        augment = self.augment.at(epoch)
        for sent, draws in steps:
            pixels, labels = self._stream.receive(sent)
            images = augment(pixels, draws)
            yield self.mix(images, labels, draws) if self.mix else (images, labels)

    def _gather(self, order: np.ndarray, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray, Draws]:
        many = self.batch_size // self.augment.config.repeats
        indices = self.share.own(np.tile(order[step * many : (step + 1) * many], self.augment.config.repeats))
        draws = Draws(np.random.default_rng((1, self.seed, epoch, step)), len(indices), self.share)
        if self._windows is not None:
            return self._windows.take(indices, draws), self.labels[indices], draws
        try:
            pixels = self._read(indices, draws, self.augment.at(epoch).size)
        except Unreadable as gap:
            pixels, indices = self._fill(gap, indices)
        if not self._crop:
            pixels = Windows(pixels, self._padding, self._flip).take(np.arange(len(indices)), draws)
        return pixels, self.labels[indices], draws

    def _read(self, indices: np.ndarray, draws: Draws, size: int) -> np.ndarray:
        if self._crop:
            return self.images.take_parts(indices, Parts(self._crop, size, draws))
        return self.images.take(indices)

    def _fill(self, gap: Unreadable, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and indices of a batch in which others stand in for those that cannot be read."""
        if not gap.good:
            raise InputError(f"none of a batch's {len(indices)} images can be read any more: {gap.problems[0]}")
        _note(self.problems, gap, "others of its batch stand in for it")
        places = np.arange(len(indices))
        for number, place in enumerate(gap.problems):
            places[place] = gap.good[number % len(gap.good)]
        return gap.pixels[places], indices[places]


def _note(problems: dict[str, None], gap: Unreadable, remedy: str) -> None:
    """A line for each file of which nothing was said yet."""
    problems.update(dict.fromkeys(f"{problem}; {remedy}" for problem in gap.problems.values()))


def shuffled(count: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> np.ndarray:
    """The epoch's order of all images; with `weights` `(count,)` as many draws, each image in proportion to its own."""
    rng = np.random.default_rng((0, seed, epoch))
    if weights is None:
        return rng.permutation(count)
    return rng.choice(count, count, p=weights / weights.sum())


def balanced(labels: np.ndarray) -> np.ndarray:
    """`(N,)`: the weights with which every class is equally likely to be drawn."""
    return 1 / np.bincount(labels)[labels]


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
        share: Share | None = None,
        weights: np.ndarray | None = None,
    ):
        self.share, self.weights = share or Share(), weights
        self.vectors = torch.from_numpy(vectors).to(device)
        self.labels = labels
        self.batch_size = min(batch_size, len(labels))
        self.seed = seed

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self.labels) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's batches from step `start` on: `(B, D)` float32 and `(B,)` int64, on the device."""
        order = shuffled(len(self.labels), self.seed, epoch, self.weights)
        view = np.random.default_rng((1, self.seed, epoch)).integers(self.vectors.shape[1], size=len(order))
        device = self.vectors.device
        for step in range(start, len(self)):
            places = self.share.own(np.arange(step * self.batch_size, (step + 1) * self.batch_size))
            chosen = to_device(order[places], device), to_device(view[places], device)
            yield self.vectors[chosen], to_device(self.labels[order[places]], device)


class EvalBatches:
    """Every image once, in order, as the weights' preprocessing wants it.

    Of images `(N, V, H, W, C)`, which have V crops each, a batch of B labels has B * V images, the first one's first.
    Of images that are kept larger, for random crops, it is the central `size` x `size`. One that can no longer be read
    is black; `problems` has a line for each, and `lost` its place. Several processes each get their `share` of the
    images.
    """

    def __init__(
        self,
        images: Images,
        labels: np.ndarray,
        batch_size: int,
        mean: tuple,
        std: tuple,
        device: torch.device | str = "cpu",
        share: Share | None = None,
        size: int | None = None,
    ):
        self.images, self.labels = images, labels
        self.batch_size, self.size = batch_size, size
        self._own = (share or Share()).of_all(np.arange(len(images)))
        self.mean, self.std = mean, std
        self.device = torch.device(device)
        self._stream = SideStream(self.device)
        self.problems: dict[str, None] = {}  # in order, each once
        self.lost: set[int] = set()  # of the rows that a pass gives

    def __len__(self) -> int:
        return -(-len(self._own) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """`(B, C, H, W)` float32 and `(B,)` int64, on the device."""
        batches = (self._stream.send(*self._read(start)) for start in range(0, len(self._own), self.batch_size))
        if not isinstance(self.images, ArrayImages):
            batches = ahead(batches)
        for pixels, labels in map(self._stream.receive, batches):
            yield normalise(pixels.flatten(0, -4), self.mean, self.std), labels

    def _read(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        indices = self._own[start : start + self.batch_size]
        try:
            pixels = self.images.take(indices)
        except Unreadable as gap:
            pixels = gap.pixels
            _note(self.problems, gap, "it was judged as a black image")
            self.lost.update(start + place for place in gap.problems)
        return centre(pixels, self.size) if self.size else pixels, self.labels[indices]


def ahead(items: Iterator, depth: int = 2) -> Iterator:
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
