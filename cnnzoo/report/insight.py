"""What the report shows beside a net's mistakes. None of it may cost a run: what cannot be shown is said instead."""

from functools import cached_property

import numpy as np
from torch import nn

from cnnzoo import zoo
from cnnzoo.checkpoint import Run
from cnnzoo.data.preprocess import centre
from cnnzoo.data.sources import Dataset
from cnnzoo.device import pick_device
from cnnzoo.errors import InputError

NEAREST = 4  # training images shown below a mistake
LOOKED_THROUGH = 5000  # training images at most among which these are sought


class Insight:
    """Why a run's net may have mistaken images."""

    def __init__(self, run: Run, data: Dataset, precision: str):
        self.run, self.data, self.precision = run, data, precision

    @cached_property
    def net(self) -> nn.Module:
        return zoo.load(self.run).to(pick_device("auto"))

    def evidence(self, pixels: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray | None, str]:
        """Grad-CAM over the images `(N, H, W, C)` uint8, for the classes `(N,)` that the net took them for: pictures
        `(N, H, W, 3)` uint8, and a sentence on them; None and why, of a net that cannot be so looked at.
        """
        from cnnzoo.visualize import attribution  # here and below, since a run may do without a report

        try:
            seen, layer = attribution.overlays(self.net, pixels, predicted)
        except (InputError, RuntimeError) as error:  # no maps, or no memory
            return None, f"What the net saw is not shown: {error}."
        return seen, f"Beside each, what spoke for the answer: Grad-CAM at {layer}."

    def alike(self, pixels: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None, str]:
        """The K training images that the net finds nearest to each image, `(N, K, H, W, C)` uint8, their labels
        `(N, K)`, and a sentence on them; None, None and why, where they cannot be had.
        """
        from cnnzoo.visualize.neighbours import alike as nearest

        train = self.data.train
        places = np.sort(np.unique(train.names, return_index=True)[1])  # a bootstrap sample holds some several times
        if len(places) > LOOKED_THROUGH:
            many = f"{len(places):,} are too many to look through"
            return None, None, f"The nearest training images are not shown: {many}."
        train = train.choose(places)
        try:
            near = nearest(self.net, pixels, train.images, NEAREST, self.data.cache, self.precision)
            shown = np.stack([centre(train.images.take(own), pixels.shape[1]) for own in near])
        except (InputError, RuntimeError) as error:  # no features, a photo that is gone, or no memory
            return None, None, f"The nearest training images are not shown: {error}."
        return shown, train.labels[near], f"Below each, the {near.shape[1]} training images most alike to the net."
