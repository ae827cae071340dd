"""A pretrained net as a scikit-learn classifier, for pipelines, cross-validation and grid search over images."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted

from cnnzoo import assemble, learn, zoo
from cnnzoo import config as config_
from cnnzoo.checkpoint import Run
from cnnzoo.config import Config, Overrides
from cnnzoo.data import sources
from cnnzoo.errors import InputError, counted, faults
from cnnzoo.predict import predict
from cnnzoo.run import train
from cnnzoo.telling import silent
from cnnzoo.transfer import finetune

WANTED = (
    "X must be a sequence of image files, PIL images or uint8 arrays, "
    "or a uint8 array (N, H, W) or (N, H, W, C) of 1, 3 or 4 channels"
)


class CNNClassifier(ClassifierMixin, BaseEstimator):
    """Probe or fine-tune a pretrained net, as `cnnzoo.probe` and `cnnzoo.finetune` do, behind fit and predict.

    X is a sequence of image files, of PIL images, or of uint8 arrays (H, W) or (H, W, C) of any sizes; or one uint8
    array (N, H, W) or (N, H, W, C). y holds labels of any kind. Images have no fixed number of features, so there is
    neither `n_features_in_` nor `feature_names_in_`.

    A share of each class that has two images or more is held out of training: it calibrates the probabilities, stops
    fine-tuning early, and gives `validation_score_`. What the frozen net says of an image is kept in $CNNZOO_CACHE, or
    else in ~/.cache/cnnzoo, so that another fit, as in a grid search, does not ask it again.

    There is no `sample_weight`: knn cannot weigh images, and an image of weight 2 would not be the same as two of them,
    of which one may be held out. `balance` weighs classes.

    Args:
        model: a net of the registry; None takes resnet50 where there is a GPU, else resnet18.
        pretrained: its weights: True (the best known), a tag, a file or a run folder; False is a net with random ones.
        mode: probe (nothing of the net moves), head (the head alone), staged (the last stage, then all) or full.
        classifier: of mode probe: logistic, knn, svm, centroid, ridge, mlp, or auto, the best by cross-validation.
        views: of each training image that the probe sees: the first plain, the others mirrored and cropped; None takes
            one in mode probe, else three where there are at most 5,000 images.
        epochs: of each phase: none for mode probe, a number for head and full, two for staged.
        lr: the rate of the head, the stages before it taking smaller ones; None takes the usual one.
        batch_size: images to a step.
        balance: none, loss (each class weighs the same) or sampler (each class is drawn equally often).
        val_fraction: the share of each class that is held out.
        random_state: of everything random; with a whole number two fits are the same.
        run: the folder in which a fit leaves its run, which must not exist; None keeps nothing but the net.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        overrides: further keys of the config, as {"data.size": 320} or "--data.size 320".
        verbose: whether to print what `cnnzoo probe` and `cnnzoo finetune` print.

    Attributes:
        classes_: `(K,)`, the labels in order.
        net_: the net, an nn.Module in eval mode, as `cnnzoo.load` gives it.
        run_: the run in the folder `run`; None where there is no such folder.
        validation_score_: accuracy on the images held out.
    """

    def __init__(
        self,
        model: str | None = None,
        pretrained: bool | str | Path | Run = True,
        *,
        mode: str = "probe",
        classifier: str = "auto",
        views: int | None = None,
        epochs: int | Sequence[int] | None = None,
        lr: float | None = None,
        batch_size: int = 32,
        balance: str = "none",
        val_fraction: float = 0.2,
        random_state: int | np.random.RandomState | None = 0,
        run: str | Path | Run | None = None,
        device: str = "auto",
        overrides: Overrides = (),
        verbose: bool = False,
    ):
        self.model = model
        self.pretrained = pretrained
        self.mode = mode
        self.classifier = classifier
        self.views = views
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.balance = balance
        self.val_fraction = val_fraction
        self.random_state = random_state
        self.run = run
        self.device = device
        self.overrides = overrides
        self.verbose = verbose

    def fit(self, X: Any, y: Any, groups: Any = None) -> "CNNClassifier":
        """Learn the labels `y` `(N,)` of the images `X`. Images with the same value in `groups` `(N,)`, such as a
        patient's, belong together: none of them is held out while others are learnt from.

        Raises InputError, which is a ValueError, for images, labels and parameters that will not do. Files that cannot
        be read are named all at once.
        """
        images = _images(X)
        classes, labels = _labels(y, images)
        check_consistent_length(images, groups)
        with TemporaryDirectory(prefix="cnnzoo-", ignore_cleanup_errors=True) as scratch:
            config = self._config(self.run or Path(scratch, "run"))
            if config.model.num_classes not in (None, len(classes)):  # each column of predict_proba is one of classes_
                raise InputError(f"model.num_classes is {config.model.num_classes}, but y has {len(classes)} classes")
            Run.new(config.folder)  # complains now rather than after the photos are decoded
            names = [str(name) for name in classes]
            given = (images, labels, names, config.data, config.augment, *assemble.net_input(config))
            data = sources.from_images(*given, decoded=Path(scratch), groups=groups)
            tell = print if self.verbose else silent
            run = train(config, data=data, with_report=self.run is not None, tell=tell)
            self.net_, self._card = zoo.load(run), run.card
            logits, targets = run.predictions
            del data  # whose photos may be a map of a file in the folder, which Windows would not remove
        self.validation_score_ = float((logits.argmax(axis=1) == targets).mean())
        self.run_ = run if self.run else None
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities `(N, K)` float32 of the classes in the order of `classes_`, in memory that does not grow with
        the photos. Raises InputError that names the files that cannot be read.
        """
        check_is_fitted(self)
        found = predict(self.net_, list(_images(X)), device=self.device, tell=silent)
        _refuse({file: error for file, error in zip(found.files, found.errors, strict=True) if error})
        return found.probabilities

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithms of `predict_proba`. Raises as that does."""
        with np.errstate(divide="ignore"):  # a probability that float32 holds as 0
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The most likely label of each image, `(N,)`. Raises as `predict_proba` does."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def _config(self, run: str | Path | Run) -> Config:
        """What `cnnzoo.probe` or `cnnzoo.finetune` would make of the parameters, of which grids hold numpy's."""
        given = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in self.get_params(deep=False).items()
        }
        seed = given["random_state"]
        if not isinstance(seed, int):
            seed = int(check_random_state(seed).randint(np.iinfo(np.int32).max))
        if seed < 0:
            raise InputError(f"random_state is {seed}, but must be at least 0")
        mapping = finetune.recipe(
            "X",
            given["model"] or learn.default_model(),
            given["pretrained"],
            classifier=given["classifier"] if given["mode"] == "probe" else None,
            seed=seed,
            run=run,
            **{name: given[name] for name in ("mode", "epochs", "lr", "batch_size", "balance", "views")},
        )
        if given["mode"] != "probe" and given["classifier"] != "auto":
            raise InputError(f"classifier is {self.classifier!r}, but mode {self.mode!r} has none; leave it 'auto'")
        mapping["data"] |= {"val_fraction": given["val_fraction"], "split_seed": seed}
        mapping["train"] |= {"device": given["device"]}
        return config_.read(mapping, given["overrides"])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    def __getstate__(self) -> dict:
        """The net travels as the content of a model.safetensors: later versions read that, and none runs its code."""
        state = dict(super().__getstate__())
        if "net_" in state:
            with TemporaryDirectory() as folder:
                run = Run(folder)
                run.save_model(self.net_.state_dict(), self._card)
                state["net_"] = run.model_file.read_bytes()
        return state

    def __setstate__(self, state: dict) -> None:
        if "net_" in state:
            with TemporaryDirectory() as folder:
                run = Run(folder)
                run.model_file.write_bytes(state["net_"])
                state = {**state, "net_": zoo.load(run.model_file)}
        super().__setstate__(state)


def _images(X: Any) -> np.ndarray | list:
    """X as one array of images or a list of them. Of files only their absence is found out here."""
    shape = getattr(X, "shape", None)
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OU":
        fits = X.dtype == np.uint8 and X.ndim >= 3 and shape[3:] in ((), (1,), (3,), (4,)) and 0 not in shape[1:]
    else:
        is_one = isinstance(X, str | Path | Image.Image) or (shape is not None and len(shape) != 1)
        fits = hasattr(X, "__iter__") and not is_one
    if not fits:
        kind = f"array of {X.dtype}" if isinstance(X, np.ndarray) else type(X).__name__
        raise InputError(f"{WANTED}; this is {kind}{'' if shape is None else f', of shape {tuple(shape)}'}")
    if isinstance(X, np.ndarray) and shape[2:] in ((3,), (4,)):
        raise InputError(f"X is one image, of shape {shape}; put it into a list of images")
    images = X if isinstance(X, np.ndarray) and X.ndim > 1 else list(X)
    if not len(images):
        raise InputError("X holds no images")
    files = (image for image in images if isinstance(image, str | Path))
    _refuse({file: "there is no such file" for file in files if not os.path.isfile(os.path.expanduser(file))})
    return images


def _refuse(bad: dict[str, str]) -> None:
    """Name the files that cannot be read, if there are any."""
    if bad:
        raise InputError(f"{counted(len(bad), 'file')} cannot be read ({faults(bad)})")


def _labels(y: Any, images: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """The labels there are, in order, and each image's place among them."""
    if y is None:
        raise InputError("CNNClassifier requires y to be passed, but the target y is None")
    y = column_or_1d(y, warn=True)
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    check_consistent_length(images, y)
    unique_labels(y)  # refuses numbers mixed with text
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"y holds one class only ({classes.tolist()[0]!r}); a classifier needs two or more")
    return classes, labels
