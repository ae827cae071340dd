"""What the report shows beside a net's mistakes. None of it may cost a run: what cannot be shown is said instead."""

import numpy as np

from cnnzoo import zoo
from cnnzoo.checkpoint import Run
from cnnzoo.data.preprocess import centre
from cnnzoo.data.sources import Dataset
from cnnzoo.device import pick_device
from cnnzoo.errors import InputError

NEAREST = 4  # training images shown below a mistake
LOOKED_THROUGH = 5000  # training images at most among which these are sought


def evidence(run: Run, pixels: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Grad-CAM over images that the net mistook, for the report; a net that cannot be so looked at does without."""
    from cnnzoo.visualize import attribution  # here and below, since a run may do without a report

    try:
        net = zoo.load(run).to(pick_device("auto"))
        seen, layer = attribution.overlays(net, pixels, predicted)
    except (InputError, RuntimeError) as error:  # no maps, or no memory
        return None, f"What the net saw is not shown: {error}."
    return seen, f"Beside each, what spoke for the answer: Grad-CAM at {layer}."


def alike(run: Run, data: Dataset, pixels: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    """The training images nearest, to the net, to images that it mistook, and their labels, for the report."""
    from cnnzoo.visualize.neighbours import alike as nearest

    places = np.sort(np.unique(data.train.names, return_index=True)[1])  # a bootstrap sample holds some several times
    if len(places) > LOOKED_THROUGH:
        return None, None, f"The nearest training images are not shown: {len(places):,} are too many to look through."
    train = data.train.choose(places)
    try:
        near = nearest(zoo.load(run).to(pick_device("auto")), pixels, train.images, NEAREST, data.cache)
        shown = np.stack([centre(train.images.take(own), pixels.shape[1]) for own in near])
    except (InputError, RuntimeError) as error:  # no features, a photo that is gone, or no memory
        return None, None, f"The nearest training images are not shown: {error}."
    return shown, train.labels[near], f"Below each, the {near.shape[1]} training images most alike to the net."
