"""The trainer by itself: a two-layer net on batches made here."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cnnzoo.config import LossConfig, OptimConfig, ScheduleConfig
from cnnzoo.errors import InputError, Interrupted
from cnnzoo.train import losses, optim
from cnnzoo.train.phases import Phase
from cnnzoo.train.schedule import Schedule
from cnnzoo.train.trainer import Trainer
from cnnzoo.train.validation import evaluate


class Batches:
    """Ten steps of 16 points whose class is the sign of their first number, a function of (epoch, step)."""

    batch_size = 16

    def __len__(self):
        return 10

    def epoch(self, epoch, start=0):
        for step in range(start, len(self)):
            x = torch.from_numpy(np.random.default_rng((epoch, step)).normal(size=(16, 2, 1, 1)).astype(np.float32))
            yield x, (x[:, 0, 0, 0] > 0).long()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


STAGES = {
    "stage1": ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"],
    "head": ["head.weight", "head.bias"],
}


THREE_EPOCHS = (Phase(3),)


def make(phases=THREE_EPOCHS, schedule=None, optimizer=None, **options) -> Trainer:
    torch.manual_seed(0)
    net = Net()
    optim_config = optimizer or OptimConfig(lr=0.1, momentum=0.9)
    schedule_config = schedule or ScheduleConfig(name="constant")
    return Trainer(
        net,
        losses.build(LossConfig()),
        optim.build(optim_config, net, STAGES),
        Batches(),
        list(Batches().epoch(1000)),
        phases=phases,
        stages=STAGES,
        make_schedule=lambda optimizer, epochs, steps: Schedule(schedule_config, optimizer, epochs, steps),
        lr=optim_config.lr,
        **options,
    )


def weights(trainer: Trainer) -> dict:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns():
    trainer = make()
    progress = trainer.fit()
    assert progress.history[-1]["val_top1"] > 0.95
    assert progress.history[-1]["train_loss"] < progress.history[0]["train_loss"]


def test_a_report_has_a_line_for_every_epoch():
    reports = []
    make(on_epoch=lambda report, is_best: reports.append((report.epoch, is_best))).fit()
    assert [epoch for epoch, _ in reports] == [1, 2, 3]
    assert reports[0][1]


def test_twice_the_same_run_gives_the_same_weights():
    first, second = make(), make()
    first.fit()
    torch.rand(5)  # what ran before does not matter
    second.fit()
    assert same(weights(first), weights(second))


@pytest.mark.parametrize("stop_at", [1, 7, 10, 11, 19, 20, 25])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedule": ScheduleConfig(name="one_cycle")},
        {"schedule": ScheduleConfig(name="cosine", warmup_epochs=1.5)},
        {"schedule": ScheduleConfig(name="plateau", warmup_epochs=1, patience=0)},
        {"optimizer": OptimConfig(name="adamw", lr=0.01), "accumulate": 3, "clip_norm": 1.0},
        {
            "phases": (Phase(1, ("head",)), Phase(2, ("*",), {"stage1": 0.1})),
            "schedule": ScheduleConfig(name="one_cycle"),
        },
    ],
    ids=["constant", "one_cycle", "cosine", "plateau", "adamw", "phases"],
)
def test_stopped_after_any_step_and_resumed_it_ends_in_the_same_weights(stop_at, options):
    whole = make(**options)
    whole.fit()

    steps, saved = iter(range(1, 1000)), {}

    def save(state):  # as the checkpoint does: a copy, not a view
        saved.update(state=torch.load(_through_a_file(state), weights_only=True))

    first = make(**options, save=save, should_stop=lambda: next(steps) >= stop_at)
    with pytest.raises(Interrupted):
        first.fit()
    second = make(**options)
    second.fit(saved["state"])
    assert same(weights(whole), weights(second))
    assert [r["train_loss"] for r in whole.progress.history] == pytest.approx(
        [r["train_loss"] for r in second.progress.history]
    )


def _through_a_file(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_frozen_stages_keep_weights_and_statistics_bit_for_bit():
    trainer = make(phases=(Phase(2, ("head",)),), optimizer=OptimConfig(lr=0.1, momentum=0.9, weight_decay=0.1))
    before = weights(trainer)
    trainer.fit()
    after = weights(trainer)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("body."))
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_a_thawed_stage_moves_and_a_rate_of_its_own_is_kept():
    rates = []
    phases = (Phase(1, ("head",)), Phase(1, ("*",), {"stage1": 0.1}))
    trainer = make(phases=phases)
    trainer.on_epoch = lambda report, is_best: rates.append(
        {g["stage"]: g["lr"] for g in trainer.optimizer.param_groups}
    )
    before = weights(trainer)
    trainer.fit()
    assert rates[1] == {"stage1": pytest.approx(0.01), "head": pytest.approx(0.1)}
    assert not torch.equal(before["body.0.weight"], weights(trainer)["body.0.weight"])


def test_what_was_trained_before_stays_still_once_frozen():
    phases = (Phase(1, ("*",)), Phase(1, ("head",)))
    kept = []
    trainer = make(phases=phases)
    trainer.on_epoch = lambda report, is_best: kept.append(weights(trainer))
    trainer.fit()
    assert torch.equal(kept[0]["body.0.weight"], kept[1]["body.0.weight"])  # momentum does not move it on
    assert torch.equal(kept[0]["body.1.running_mean"], kept[1]["body.1.running_mean"])


def test_accumulated_parts_make_the_same_step_as_the_whole_batch():
    def step(accumulate):
        trainer = make(accumulate=accumulate)
        trainer.model.body[1] = nn.Identity()  # batch statistics differ by part
        trainer.model.body[3] = nn.Identity()
        trainer.stages = {"stage1": STAGES["stage1"][:2], "head": STAGES["head"]}
        trainer._enter_phase(None)
        trainer._step(*next(Batches().epoch(0)))
        return weights(trainer)

    whole, parts = step(1), step(4)
    assert all(torch.allclose(whole[name], parts[name], atol=1e-7) for name in whole)


def test_clipping_bounds_the_step():
    trainer = make(clip_norm=1e-3, optimizer=OptimConfig(lr=1.0, momentum=0.0))
    trainer._enter_phase(None)
    before = weights(trainer)
    trainer._step(*next(Batches().epoch(0)))
    names = [name for name, _ in trainer.model.named_parameters()]
    moved = math.sqrt(sum((weights(trainer)[name] - before[name]).square().sum().item() for name in names))
    assert moved == pytest.approx(1e-3, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_at_its_step_and_saves_nothing_more():
    class Poisoned(Batches):
        def epoch(self, epoch, start=0):
            for step, (x, y) in enumerate(super().epoch(epoch, start), start):
                yield (x * float("nan") if (epoch, step) == (1, 4) else x), y

    saves = []
    trainer = make(save=lambda state: saves.append(state["progress"]["epoch"]))
    trainer.image_feed = replace(trainer.image_feed, batches=Poisoned())
    with pytest.raises(InputError, match=r"the loss is nan at epoch 2, step 5, rate 0\.1"):
        trainer.fit()
    assert saves == [1]


def test_saving_by_the_clock_happens_inside_an_epoch():
    places = []
    make(
        phases=(Phase(1),),
        save_minutes=0.0,
        save=lambda s: places.append((s["progress"]["epoch"], s["progress"]["step"])),
    ).fit()
    assert places == [*((0, step) for step in range(1, 10)), (1, 0)]


def test_validation_loss_is_plain_cross_entropy_over_all_images():
    trainer = make()
    batches = [*Batches().epoch(5), (torch.zeros(3, 2, 1, 1), torch.zeros(3, dtype=torch.long))]  # a shorter last one
    trainer.model.eval()
    with torch.no_grad():
        outputs = torch.cat([trainer.model(x) for x, _ in batches])
    targets = torch.cat([y for _, y in batches])
    loss, top1 = evaluate(trainer.model, batches)
    assert loss == pytest.approx(nn.functional.cross_entropy(outputs, targets).item(), rel=1e-6)
    assert top1 == pytest.approx((outputs.argmax(1) == targets).float().mean().item())


def test_bf16_autocast_trains_too():
    assert make(precision="bf16").fit().history[-1]["val_top1"] > 0.9


# ---- schedules


def rates(config: ScheduleConfig, epochs=4, steps=5, lr=1.0, val_losses=None) -> list[float]:
    """The rate of every step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = Schedule(config, optimizer, epochs, steps)
    seen = []
    for epoch in range(epochs):
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        schedule.end_epoch(val_losses[epoch] if val_losses else 1.0)
    return seen


def test_constant():
    assert rates(ScheduleConfig(name="constant")) == [1.0] * 20


def test_step_lowers_every_so_many_epochs():
    assert rates(ScheduleConfig(name="step", every=2, gamma=0.1)) == pytest.approx([1.0] * 10 + [0.1] * 10)


def test_multi_step_lowers_at_milestones_warm_up_or_not():
    plain = rates(ScheduleConfig(name="multi_step", milestones=[1, 3]))
    assert plain == pytest.approx([1.0] * 5 + [0.1] * 10 + [0.01] * 5)
    warmed = rates(ScheduleConfig(name="multi_step", milestones=[1, 3], warmup_epochs=0.4, warmup_start=0.5))
    assert warmed[:3] == pytest.approx([0.5, 0.75, 1.0])
    assert warmed[3:] == pytest.approx(plain[3:])


def test_cosine_falls_from_the_rate_to_its_end():
    seen = rates(ScheduleConfig(name="cosine"))
    assert seen == pytest.approx([0.5 * (1 + math.cos(math.pi * t / 20)) for t in range(20)])


def test_polynomial():
    assert rates(ScheduleConfig(name="polynomial", power=2.0)) == pytest.approx([(1 - t / 20) ** 2 for t in range(20)])


def test_one_cycle_rises_to_the_rate_and_falls_to_nothing():
    seen = rates(ScheduleConfig(name="one_cycle", rise=0.25))
    assert seen[0] == pytest.approx(1 / 25)
    assert max(seen) == pytest.approx(1.0)
    assert seen.index(max(seen)) == 4
    assert seen[-1] < 1e-3


def test_plateau_lowers_when_the_validation_loss_stays():
    seen = rates(ScheduleConfig(name="plateau", patience=0, gamma=0.5), val_losses=[1.0, 1.0, 0.5, 0.5])
    assert seen == pytest.approx([1.0] * 10 + [0.5] * 10)


def test_warm_up_rises_in_a_straight_line():
    seen = rates(ScheduleConfig(name="constant", warmup_epochs=1, warmup_start=0.2))
    assert seen == pytest.approx([0.2, 0.36, 0.52, 0.68, 0.84] + [1.0] * 15)


# ---- optimisers and losses


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "rmsprop_tf"])
def test_every_optimiser_learns(name):
    lr = 0.1 if name == "sgd" else 0.01
    assert make(optimizer=OptimConfig(name=name, lr=lr)).fit().history[-1]["val_top1"] > 0.9


def test_weight_decay_spares_biases_and_norms_when_asked():
    net = Net()
    spared = optim.build(OptimConfig(weight_decay=0.1, decay_norms_and_biases=False), net, STAGES)
    decay_of = {id(p): group["weight_decay"] for group in spared.param_groups for p in group["params"]}
    assert {name: decay_of[id(p)] for name, p in net.named_parameters()} == {
        "body.0.weight": 0.1,
        "body.0.bias": 0.0,
        "body.1.weight": 0.0,
        "body.1.bias": 0.0,
        "head.weight": 0.1,
        "head.bias": 0.0,
    }
    everything = optim.build(OptimConfig(weight_decay=0.1), net, STAGES)
    assert {group["weight_decay"] for group in everything.param_groups} == {0.1}


def test_auxiliary_logits_count_by_their_weight():
    logits, aux, targets = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    loss = losses.build(LossConfig(aux_weight=0.3))
    ce = nn.functional.cross_entropy
    assert loss((logits, aux, aux), targets) == pytest.approx((ce(logits, targets) + 0.6 * ce(aux, targets)).item())
    assert loss(logits, targets) == pytest.approx(ce(logits, targets).item())


def test_label_smoothing_is_torchs():
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    expected = nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)
    assert losses.build(LossConfig(label_smoothing=0.1))(logits, targets) == pytest.approx(expected.item())


def test_map_is_equation_9():
    y, targets, j = torch.rand(5, 10) * 8, torch.arange(5), 0.1
    expected = (y[torch.arange(5), targets] + torch.log(math.exp(-j) + torch.exp(-y).sum(1))).mean()
    assert losses.build(LossConfig(rubbish=j), own="map")(-y, targets) == pytest.approx(expected.item(), rel=1e-6)


def test_a_state_from_before_phases_could_end_early_resumes():
    whole, states = make(), []
    whole.fit()
    parts = make(save=states.append, should_stop=lambda: len(states) == 1)
    with pytest.raises(Interrupted):
        parts.fit()
    older = copy.deepcopy(states[0])
    del older["progress"]["lengths"]
    resumed = make()
    resumed.fit(older)
    assert len(resumed.progress.history) == 3
