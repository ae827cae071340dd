"""From a folder of photos to a net that knows its classes: probing and fine-tuning."""

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from cnnzoo import assemble, probing
from cnnzoo import config as config_
from cnnzoo.checkpoint import Run
from cnnzoo.config import Config, Overrides
from cnnzoo.data.sources import Dataset
from cnnzoo.device import pick_device
from cnnzoo.errors import InputError
from cnnzoo.opening import begin
from cnnzoo.run import carry_out, train
from cnnzoo.telling import Tell, silent
from cnnzoo.train import distributed, rehearsal
from cnnzoo.train.trainer import Trainer
from cnnzoo.transfer import finetune as recipes
from cnnzoo.transfer.ranking import seconds_of

FOR_FEATURES = 0.25  # of a budget, beyond which a probe sees one view of each image rather than three
AFTERWARDS = 6.0  # seconds for the report, beside two looks at the images held out


def default_model() -> str:
    """The net to begin with where nobody names one: what trains in minutes on the device that is here."""
    return "resnet50" if torch.cuda.is_available() else "resnet18"


def probe(
    folder: str | Path,
    model: str | None = None,
    pretrained: bool | str | Path | Run = True,
    *,
    classifier: str = "auto",
    views: int = 1,
    bag: int | None = None,
    boost: int | None = None,
    balance: str = "none",
    seed: int = 0,
    run: str | Path | Run | None = None,
    overrides: Overrides = (),
    tell: Tell = print,
    should_stop: Callable[[], bool] | None = None,
) -> Run:
    """Fit shallow classifiers on a frozen net's features, and make the best one the net's head.

    Args:
        folder: of class folders (perhaps in train/ and val/), a table (.csv, .tsv) that lists photos, or a data set's
            name.
        model: a net of the registry; None takes resnet50 where there is a GPU, else resnet18.
        pretrained: its weights: True (the best known), a tag, a file or a run folder.
        classifier: logistic, knn, svm, centroid, ridge, mlp, or auto: the best of them by cross-validation.
        views: of each training image: one as evaluation sees it, the others mirrored and cropped at random.
        bag: so many of the best classifier, each on a bootstrap sample of the training images, become one head, the
            mean of their probabilities; its out-of-bag accuracy is told.
        boost: so many of a weak classifier, each made for the mistakes of those before it, become one head by SAMME.
        balance: none; loss or sampler, by which each class weighs the same, however many photos it has.
        seed: of the folds, the views and the bootstrap samples.
        run: the run folder; None makes runs/<model>_<folder>_probe, with bag or boost _probe_bag or _probe_boost.
        overrides: further keys of the config, as {"data.val_fraction": 0.3} or "--data.val_fraction 0.3".
        tell: is given each line meant for a person.
        should_stop: as for `train`.

    Returns:
        The run: it predicts, evaluates and exports like any other.

    Raises:
        InputError: for whatever is wrong with folder, net, weights or options.
    """
    model, options = model or default_model(), {"classifier": classifier, "views": views, "seed": seed, "run": run}
    options |= {"balance": balance}
    mapping = recipes.recipe(folder, model, pretrained, mode="probe", **options)
    mapping["probe"] |= {"bag": bag, "boost": boost}
    if run is None:
        mapping["run"] += "_bag" if bag else "_boost" if boost else ""
    return train(config_.read(mapping, overrides), tell=tell, should_stop=should_stop)


@torch.inference_mode(False)
@torch.enable_grad()
def finetune(
    folder: str | Path,
    model: str | None = None,
    pretrained: bool | str | Path | Run = True,
    *,
    mode: str = "staged",
    epochs: int | Sequence[int] | None = None,
    budget: float | str | None = None,
    lr: float | str | None = None,
    batch_size: int | None = None,
    balance: str = "none",
    views: int | None = None,
    seed: int = 0,
    run: str | Path | Run | None = None,
    overrides: Overrides = (),
    tell: Tell = print,
    should_stop: Callable[[], bool] | None = None,
) -> Run:
    """Carry a pretrained net to the classes of a folder: a probe's head first, then more and more of the net.

    Args:
        folder: of class folders (perhaps in train/ and val/), a table (.csv, .tsv) that lists photos, or a data set's
            name.
        model: a net of the registry; None takes resnet50 where there is a GPU, else resnet18.
        pretrained: its weights: True (the best known), a tag, a file or a run folder.
        mode: probe (nothing of the net moves), head (the head alone, on cached features), staged (the last stage with
            the head, then all) or full (all at once).
        epochs: of each phase: none for probe, one number for head and full, two for staged.
        budget: seconds that everything may take, or a text such as 90s, 10m or 2h; the epochs follow from it.
        lr: the rate of the head, the stages before it taking smaller ones; "find" tries rates out on a copy first.
        batch_size: images to a step; None is 32.
        balance: none; loss (each class weighs the same) or sampler (each class is drawn equally often).
        views: of each training image that the probe sees, one of them plain, the others mirrored and cropped at random;
            None takes one in mode probe, else three where there are at most 5,000 images.
        seed: of everything random.
        run: the run folder; None makes runs/<model>_<folder>_<mode>.
        overrides: further keys of the config, as {"augment.mixup": 0} or "--augment.mixup 0".
        tell: is given each line meant for a person.
        should_stop: as for `train`.

    Returns:
        The run: it predicts, evaluates and exports like any other.

    Raises:
        InputError: for whatever is wrong with folder, net, weights or options.
    """
    if isinstance(lr, str) and lr != "find":
        raise InputError(f"lr is {lr!r}, but must be a number or find")
    if epochs is not None and budget is not None:
        raise InputError("epochs and budget both say how long it takes; give one of them")
    for option, given in (("budget", budget), ("lr", lr), ("batch_size", batch_size)):
        if mode == "probe" and given is not None:
            raise InputError(f"{option} is {given}, but mode probe has no epochs; leave it out")
    started, limit, finds_rate = time.perf_counter(), seconds_of(budget), lr == "find"
    recipe = {"mode": mode, "epochs": epochs, "lr": None if finds_rate else lr, "balance": balance, "views": views}
    recipe |= {"batch_size": 32 if batch_size is None else batch_size, "seed": seed, "run": run}

    def decided(*more: str) -> Config:
        """The config of the recipe as it stands; what is measured below fills in what nobody said."""
        mapping = recipes.recipe(folder, model or default_model(), pretrained, **recipe)
        return config_.read(config_.read(mapping, more), overrides)

    config = decided()
    run = recipe["run"] = begin(config)  # complains now rather than after the measurements
    if finds_rate and not any(config.phase_lengths):
        raise InputError("lr='find' looks for the rate of epochs, but epochs leaves none")
    data = probed = None
    if finds_rate or limit is not None:
        assemble.make_weights_ready(config)
        data = assemble.load_data(config)
        for line in assemble.doubts(config.data.source):
            tell(line)
        if limit is not None and not _all_views_fit(config, data, limit - (time.perf_counter() - started)):
            recipe["views"] = 1
            before, config = config, decided()
            data = data if config.augment == before.augment else assemble.load_data(config)
        if config.model.head == "probe":
            probed = probing.start_by_probe(config, data, _net(config, data), tell)
    if finds_rate:
        (recipe["lr"],) = _agreed(config, rehearsal.find_rate(_rehearse(config, data, probed)))
        tell(f"the range test, on a copy, found the rate {recipe['lr']:.2g}")
        config = decided()
    if limit is not None:
        epochs, seconds = _epochs_in(limit, started, config, _rehearse(config, data, probed), tell)
        if sum(epochs):
            recipe["epochs"] = epochs
            config = decided(f"--train.minutes={seconds / 60:.3g}")  # should they take longer than measured
        else:
            tell("there is no time to train anything but the head, which the probe has found")
            recipe |= {"mode": "probe", "classifier": "logistic", "views": assemble.views_of(config, data)}
            config = decided()
    carry_out(run, config, data=data, probed=probed, tell=tell, should_stop=should_stop)
    return run


def _net(config: Config, data: Dataset) -> nn.Module:
    """The net as a run begins with it, on its device."""
    return assemble.build_model(config, data).to(pick_device(config.train.device))


def _agreed(config: Config, *measured: float) -> list[float]:
    """The least of what the processes of a team have each measured, so that all go on alike."""
    with distributed.joined(config.train.device) as (team, _):
        return team.gather(torch.tensor([measured], dtype=torch.float64)).amin(0).tolist()


def _all_views_fit(config: Config, data: Dataset, seconds: float) -> bool:
    """Whether features of all of a probe's views take no more than their share of the time, or are asked for anyway."""
    if config.probe.views != "auto":
        return True
    shown = assemble.views_of(config, data) * len(data.train) + len(data.val)
    takes = probing.seconds_a_view(config, data, _net(config, data)) * shown
    (fits,) = _agreed(config, takes <= FOR_FEATURES * seconds)
    return bool(fits)


def _rehearse(config: Config, data: Dataset, probed: probing.Probed | None) -> Trainer:
    """A trainer as the run will have it, with a net of its own and the head that a probe has found for it."""
    model = _net(config, data)
    if probed:
        assemble.put_head(model, copy.deepcopy(probed.probe.head))
    return assemble.make_trainer(config, data, model, silent, start=probed and probed.report)


def _epochs_in(limit: float, started: float, config: Config, trainer: Trainer, tell: Tell) -> tuple[list[int], float]:
    """Epochs of each phase that fit, and the seconds for all of them: two thirds of what is left are the last phase's,
    and a seventh stays in reserve.
    """
    costs = [rehearsal.seconds_an_epoch(trainer, number) for number in range(len(trainer.phases))]
    end = AFTERWARDS + 2 * rehearsal.seconds_to_judge(trainer, trainer.image_feed)
    left = seconds = max(0.85 * (limit - end - (time.perf_counter() - started)), 0.0)
    epochs = [0] * len(costs)
    for number in reversed(range(len(costs))):
        share = left if number == 0 else 2 / 3 * left
        epochs[number] = min(int(share / costs[number]), recipes.MOST_EPOCHS)
        left -= epochs[number] * costs[number]
    *least, seconds = _agreed(config, *epochs, seconds)
    epochs = [int(many) for many in least]
    told = ", ".join(f"{n} of {cost:.1f} s" for n, cost in zip(epochs, costs, strict=True))
    tell(f"within {limit:.0f} s there is time for epochs: {told}")
    return epochs, seconds
