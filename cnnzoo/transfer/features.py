"""The frozen backbone's answers, kept on disk: each image goes through the net once in its life.

A row is found by what the net was shown, pixel by pixel, in a file that is named after the net's weights: so a changed
photo is computed anew and alone, and other weights or another preprocessing never meet old rows.
"""

import functools
import hashlib
import math
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from cnnzoo import bars
from cnnzoo.data.arrays import Images
from cnnzoo.data.augment import Augment, Windows
from cnnzoo.data.batches import ahead
from cnnzoo.data.draws import Draws
from cnnzoo.data.preprocess import Preprocess, centre, normalise
from cnnzoo.device import autocast, batch_on, device_of, in_halves, layout_on, pick_precision
from cnnzoo.errors import InputError
from cnnzoo.inference.optimized import FEW, optimize
from cnnzoo.inference.outputs import Features
from cnnzoo.telling import Tell, silent

BLOCK = 256  # images looked up, computed and written at a time
MANY = 300  # images from which a CPU tries bf16: by their number, not by their time, so that features can be had again


@dataclass(frozen=True)
class Extracted:
    """What the head sees of N images in V views each."""

    vectors: np.ndarray  # (N, V, D) float32
    computed: int  # rows that the backbone had to compute

    @property
    def plain(self) -> np.ndarray:
        """`(N, D)`: of the images as evaluation sees them, which is the first view."""
        return self.vectors[:, 0]


class Backbone:
    """A frozen net that gives the `(num_features,)` vectors which its head sees, from the cache where they are in it.

    Args:
        net: a net of the zoo, on its device; only what comes before the head counts.
        preprocess: what the net's weights want.
        folder: where the cache lies.
        tell: is given a line where the cache was damaged, or cannot be written.
        precision: fp32, bf16, fp16, or auto: bf16 where the device computes in it, else fp32. Each has a cache of its
            own. In bf16 a CPU still answers in fp32 where that is about as fast, or where few images are to come.

    Raises:
        InputError: for a net without a head of its own that could be left out, for one that is not of the registry,
            whose name and arguments tell its features apart in the cache, for a precision that the device lacks, and
            for vectors that are no finite numbers.
    """

    def __init__(
        self, net: nn.Module, preprocess: Preprocess, folder: Path, tell: Tell = silent, precision: str = "auto"
    ):
        if not (hasattr(net, "forward_features") and hasattr(net, "forward_head")):
            raise InputError(f"{type(net).__name__} has no forward_features and forward_head, so it gives no features")
        if not hasattr(net, "entry"):
            raise InputError(f"features of a {type(net).__name__} need a net of the registry; see cnnzoo.register")
        self.preprocess, self.length = preprocess, net.num_features
        self.tell = functools.cache(tell)  # once, however often it extracts
        self.device = device_of(net)
        self.fast = optimize(Features(net), pick_precision(precision, self.device))
        self._given = (net, preprocess, folder, tell)
        self._answer = self._plainly  # until there are so many images that a fast form pays
        kind = "" if self.in_fp32 else f"-{self.fast.precision}"
        self.file = folder / f"features-{net.entry.name}-{backbone_digest(net, preprocess)}{kind}.sqlite"

    @property
    def in_fp32(self) -> bool:
        """Whether all rows are float32's; in 16 bits they may be of either."""
        return self.fast.precision == "fp32"

    def exact(self) -> "Backbone":
        """The same in float32."""
        return self if self.in_fp32 else Backbone(*self._given, "fp32")

    def extract(
        self,
        images: Images,
        *,
        views: int = 1,
        augment: Augment | None = None,
        seed: int = 0,
        what: str = "features",
        more: float = 0,
    ) -> Extracted:
        """Give `views` vectors of every image: the first of the image as evaluation sees it, the others drawn by
        `augment`.

        `images` are uint8, of the size that the net takes, or larger for the random parts of `augment`; `seed` is of
        its draws; `what` is said beside the progress bar; `more` images are to follow, which tells what it pays to try.
        """
        count, computed = len(images), 0
        vectors = np.empty((count, views, self.length), np.float32)
        with (
            Store(self.file, self.length, self.tell) as store,
            ThreadPoolExecutor() as pool,
            bars.show(total=count * views, desc=what, unit="image") as bar,
        ):
            for start in range(0, count, BLOCK):
                places = np.arange(start, min(start + BLOCK, count))
                whole = images.take(places)
                for view in range(views):
                    pixels = whole if view else centre(whole, self.preprocess.size)
                    keys = list(pool.map(functools.partial(_key, view=view, augment=augment, seed=seed), pixels))
                    known = store.get(keys)
                    missing = list({key: place for place, key in enumerate(keys) if key not in known}.values())
                    fresh = {}
                    to_come = len(missing) / len(keys) * (count * views + more)
                    self.fast.to_come = math.inf if to_come >= MANY else 0
                    if to_come >= FEW:
                        self._answer = self.fast
                    for part, shown in ahead(self._batches(pixels, keys, missing, view, augment)):
                        answers = in_halves(self._answer, shown).cpu().numpy()
                        fresh |= dict(zip([keys[place] for place in part], answers, strict=True))
                        bar.update(len(part))
                    rows = np.stack([known[key] if key in known else fresh[key] for key in keys])
                    if not np.isfinite(rows).all():
                        raise InputError(self._no_numbers())
                    vectors[places, view] = rows
                    store.put(fresh)
                    computed += len(fresh)
                    bar.update(len(keys) - len(missing))
        return Extracted(vectors, computed)

    def _no_numbers(self) -> str:
        """What to say of vectors that are none."""
        instead = "" if self.in_fp32 else f", or {self.fast.precision} is too narrow for them: try train.precision fp32"
        return f"features of {self._given[0].entry.name} are no finite numbers: its weights are damaged{instead}"

    @torch.inference_mode()
    def _plainly(self, images: Tensor) -> Tensor:
        """What the fast form is a form of."""
        with autocast(self.device, "fp32"):
            return self.fast.net(images.contiguous(memory_format=layout_on(self.device)))

    def _batches(
        self, pixels: np.ndarray, keys: Sequence[bytes], places: Sequence[int], view: int, augment: Augment | None
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        """The images at `places` as the net sees them, a batch at a time, each with its places."""
        # In fp32 threads share batches out, and wait for each other at their ends; in 16 bits all work on each layer.
        size = batch_on(self.device) * (2 if self.in_fp32 else 1)
        for part in (places[i : i + size] for i in range(0, len(places), size)):
            own = [keys[place] for place in part]
            yield part, _shown(pixels[part], own, view, augment, self.preprocess, self.device)


def backbone_digest(net: nn.Module, preprocess: Preprocess) -> str:
    """Changes with every weight before the head, with the net's own arguments, and with the preprocessing."""
    digest = hashlib.sha256(f"{net.entry.name} {sorted(net.arch.items())} {preprocess}".encode())
    for name, tensor in net.state_dict().items():
        if not name.startswith((f"{net.entry.head}.", *(f"{head}." for head in net.entry.aux))):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:24]


def _key(pixels: np.ndarray, view: int, augment: Augment | None, seed: int) -> bytes:
    """The key of one image `(H, W, C)` in one view."""
    # Of what changes images, that which mixes whole batches has no part in a view.
    drawn = f"{view} {seed} {augment.size} {replace(augment.config, mixup=0.0, cutmix=0.0, repeats=1)}" if view else ""
    digest = hashlib.blake2b(f"{pixels.shape} {drawn}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels))
    return digest.digest()


def _shown(
    pixels: np.ndarray, keys: Sequence[bytes], view: int, augment: Augment | None, preprocess: Preprocess, device
) -> Tensor:
    """`(B, C, H, W)` float32: the images as evaluation has them, or in a view drawn for each by its key."""
    if view == 0:
        batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
        return normalise(batch, preprocess.mean, preprocess.std)
    drawn, windows = [], Windows(pixels, augment.padding, augment.config.flip)
    for place, key in enumerate(keys):
        draws = Draws(np.random.default_rng(list(key)), 1)
        drawn.append(augment(torch.from_numpy(windows.take(np.array([place]), draws)).to(device), draws))
    return torch.cat(drawn)


class Store:
    """Vectors of one length by key, in an SQLite file that several processes may use at once, one after the other.

    What is damaged is thrown away. Where nothing can be written, vectors are merely not kept. Both are told.
    """

    def __init__(self, file: Path, length: int, tell: Tell):
        self.file, self.length, self.tell = file, length, tell
        self.connection: sqlite3.Connection | None = None
        self.lock: FileLock | None = None

    def __enter__(self) -> "Store":
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(f"{self.file}.lock")
            bars.take(self.lock, "features")
            self._connect()
        except (OSError, sqlite3.OperationalError) as error:
            self._give_up(error)
        except sqlite3.DatabaseError as error:
            self._start_anew(error)
        return self

    def __exit__(self, *error: object) -> None:
        if self.connection is not None:
            self.connection.close()
        if self.lock is not None:
            self.lock.release()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors of those keys that are here."""
        found = {}
        try:
            for key, vector, checksum in self._rows(keys):
                if len(vector) != 4 * self.length or zlib.crc32(vector) != checksum:
                    raise sqlite3.DatabaseError("a row is damaged")
                found[key] = np.frombuffer(vector, np.float32)
        except sqlite3.OperationalError as error:  # a disk that fails for a moment, which is no damage
            self._give_up(error)
        except sqlite3.DatabaseError as error:
            self._start_anew(error)
            return {}
        return found

    def put(self, rows: dict[bytes, np.ndarray]) -> None:
        """Keep vectors, all or none of them."""
        if self.connection is None or not rows:
            return
        values = [(key, vector.tobytes(), zlib.crc32(vector.tobytes())) for key, vector in rows.items()]
        try:
            with self.connection:
                self.connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", values)
        except sqlite3.OperationalError as error:  # a full disk, a folder that may only be read
            self._give_up(error)
        except sqlite3.DatabaseError as error:
            self._start_anew(error)

    def _rows(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, int]]:
        if self.connection is not None:
            marks = ", ".join("?" * len(keys))
            yield from self.connection.execute(f"SELECT * FROM vectors WHERE key IN ({marks})", list(keys))

    def _connect(self) -> None:
        self.connection = sqlite3.connect(self.file)
        table = "vectors (key BLOB PRIMARY KEY, vector BLOB, checksum INTEGER)"
        self.connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")

    def _start_anew(self, error: Exception) -> None:
        self.tell(f"the feature cache {self.file} was damaged ({error}), so it is built anew")
        self.connection.close()
        try:
            self.file.unlink(missing_ok=True)
            self._connect()
        except (OSError, sqlite3.OperationalError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.tell(f"features cannot be kept in {self.file} ({error}), so the next run computes them again")
        if self.connection is not None:
            self.connection.close()
        self.connection = None
