"""Whether an image is like those that a net learnt from. A leaf: numbers in, numbers out.

A net must name one of its classes whatever it is shown, and is often sure of it: a probe for five kinds of flowers was
surer of photos of insects than of flowers. That an image is a stranger shows in the vector that the head sees of it.
"""

from dataclasses import dataclass

import numpy as np

from cnnzoo import machine

ENOUGH = 500  # training images, and images held out, to compare with; three times as many told strangers no better
STRANGE = 0.05  # images less familiar are told, as one in twenty of those like the known ones is


@dataclass(frozen=True)
class Familiarity:
    """How far an image is from the nearest training image, beside how far held-out ones are.

    The distance is that of Y. Sun, Y. Ming, X. Zhu and Y. Li, "Out-of-Distribution Detection with Deep Nearest
    Neighbors", ICML 2022, section 3 (vectors of length 1, k = 1); what is said of it the conformal p-value of S. Bates,
    E. Candes, L. Lei, Y. Romano and M. Sesia, "Testing for outliers with conformal p-values", Annals of Statistics
    51 (2023), equation 1.
    """

    known: np.ndarray  # (M, D) float16: vectors of training images, of length 1
    distances: np.ndarray  # (V,) float32: of held-out images from the nearest of these, rising

    @classmethod
    def learn(cls, trained: np.ndarray, held_out: np.ndarray) -> "Familiarity":
        """Take what is needed from vectors `(N, D)` of images that the net was trained on, and of others like them."""
        with np.errstate(under="ignore"):  # which may be told to raise, as of what is too small for 16 bits
            known = _of_length_1(trained[spread(len(trained))]).astype(np.float16)
        return cls(known, np.sort(_distances(held_out[spread(len(held_out))], known)))

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """The familiarity `(B,)` float32 of images with these vectors `(B, D)`, above 0 and at most 1: the share of
        images like the known ones that lie as far off or farther. One in twenty of such images is below 0.05; of
        strangers more are.
        """
        nearer = np.searchsorted(self.distances, _distances(vectors, self.known))
        many = len(self.distances)
        return ((1 + many - nearer) / (1 + many)).astype(np.float32)


def spread(count: int) -> np.ndarray:
    """The places of enough of `count` images, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, ENOUGH)).round().astype(int))


def _of_length_1(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)


@machine.one_blas_thread()
def _distances(vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`(B,)` float32: 1 - the cosine of the angle to the nearest of `known`."""
    return 1 - (_of_length_1(vectors) @ known.astype(np.float32).T).max(axis=1)
