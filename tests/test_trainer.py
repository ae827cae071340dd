"""The trainer by itself: a two-layer net on batches made here."""

import copy
import math
import time
from dataclasses import replace
from functools import cache, partial
from itertools import count

import numpy as np
import pytest
import torch
from torch import nn

from cnnzoo.config import LossConfig, OptimConfig, PhaseConfig, ScheduleConfig
from cnnzoo.errors import InputError, Interrupted
from cnnzoo.train import losses, optim, rehearsal
from cnnzoo.train.schedule import Schedule
from cnnzoo.train.trainer import Trainer
from cnnzoo.train.validation import evaluate, logits


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
    def __init__(self, kernel: int = 1):
        super().__init__()
        conv = nn.Conv2d(2, 8, kernel, padding="same")
        self.body = nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


STAGES = {
    "stage1": ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"],
    "head": ["head.weight", "head.bias"],
}


THREE_EPOCHS = (PhaseConfig(3),)


def make(phases=THREE_EPOCHS, schedule=None, optimizer=None, loss=None, compile=False, kernel=1, **options) -> Trainer:
    torch.manual_seed(0)
    net = Net(kernel)
    if compile:
        options["compiled"] = torch.compile(net, backend="eager")
    optim_config = optimizer or OptimConfig(lr=0.1, momentum=0.9)
    schedule_config = schedule or ScheduleConfig(name="constant")
    return Trainer(
        net,
        loss or losses.build(LossConfig()),
        optim.build(optim_config, net, STAGES),
        Batches(),
        list(Batches().epoch(1000)),
        phases=phases,
        stages=STAGES,
        make_schedule=partial(Schedule, schedule_config, optim_config.lr),
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


def test_a_report_tells_the_rate_of_its_last_step():
    told = []
    cyclic = ScheduleConfig(name="cyclic", cycles=3)
    make(schedule=cyclic, on_epoch=lambda report, is_best: told.append(report.lr)).fit()
    assert told == pytest.approx([0.1 * 0.5 * (1 + math.cos(math.pi * 9 / 10))] * 3)


def test_twice_the_same_run_gives_the_same_weights():
    first, second = make(), make()
    first.fit()
    torch.rand(5)  # what ran before does not matter
    second.fit()
    assert same(weights(first), weights(second))


WAYS = {
    "constant": {},
    "one_cycle": {"schedule": ScheduleConfig(name="one_cycle")},
    "cosine": {"schedule": ScheduleConfig(name="cosine", warmup_epochs=1.5)},
    "plateau": {"schedule": ScheduleConfig(name="plateau", warmup_epochs=1, patience=0)},
    "cyclic": {"schedule": ScheduleConfig(name="cyclic", cycles=3)},
    "adamw": {"optimizer": OptimConfig(name="adamw", lr=0.01), "accumulate": 3, "clip_norm": 1.0},
    "ema": {"ema": 0.9},
    "fp16": {  # whose scale has to fall at first
        "precision": "fp16",
        "loss": lambda outputs, targets, images: 1e4 * nn.functional.cross_entropy(outputs.float(), targets),
        "optimizer": OptimConfig(lr=1e-5, momentum=0.9),
    },
    "phases": {
        "phases": (PhaseConfig(1, ("head",)), PhaseConfig(2, ("*",), {"stage1": 0.1})),
        "schedule": ScheduleConfig(name="one_cycle"),
    },
}


@cache
def uninterrupted(way) -> Trainer:
    trainer = make(**WAYS[way])
    trainer.fit()
    return trainer


@pytest.mark.parametrize("stop_at", [1, 7, 10, 11, 19, 20, 25])
@pytest.mark.parametrize("way", WAYS)
def test_stopped_after_any_step_and_resumed_it_ends_in_the_same_weights(stop_at, way):
    whole, options = uninterrupted(way), WAYS[way]
    steps, saved = iter(range(1, 1000)), {}

    def save(state):  # as the checkpoint does: a copy, not a view
        saved.update(state=torch.load(_through_a_file(state), weights_only=True))

    first = make(**options, save=save, should_stop=lambda: next(steps) >= stop_at)
    with pytest.raises(Interrupted):
        first.fit()
    second = make(**options)
    second.fit(saved["state"])
    assert same(weights(whole), weights(second))
    for told in ("train_loss", "val_loss"):  # the latter by the average of weights, where there is one
        one, two = ([report[told] for report in trainer.progress.history] for trainer in (whole, second))
        assert two == pytest.approx(one)


def _through_a_file(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_frozen_stages_keep_weights_and_statistics_bit_for_bit():
    trainer = make(phases=(PhaseConfig(2, ("head",)),), optimizer=OptimConfig(lr=0.1, momentum=0.9, weight_decay=0.1))
    before = weights(trainer)
    trainer.fit()
    after = weights(trainer)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("body."))
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_on_request_batch_norm_keeps_its_statistics_where_all_else_trains():
    trainer = make(keep_statistics=True)
    before = weights(trainer)
    trainer.fit()
    after = weights(trainer)
    assert {name for name in before if torch.equal(before[name], after[name])} == {
        f"body.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    trainer.to_train_mode()
    assert [module for module in trainer.model.modules() if not module.training] == [trainer.model.body[1]]


def test_a_thawed_stage_moves_and_a_rate_of_its_own_is_kept():
    rates = []
    phases = (PhaseConfig(1, ("head",)), PhaseConfig(1, ("*",), {"stage1": 0.1}))
    trainer = make(phases=phases)
    trainer.on_epoch = lambda report, is_best: rates.append(
        {g["stage"]: g["lr"] for g in trainer.optimizer.param_groups}
    )
    before = weights(trainer)
    trainer.fit()
    assert rates[1] == {"stage1": pytest.approx(0.01), "head": pytest.approx(0.1)}
    assert not torch.equal(before["body.0.weight"], weights(trainer)["body.0.weight"])


def test_what_was_trained_before_stays_still_once_frozen():
    phases = (PhaseConfig(1, ("*",)), PhaseConfig(1, ("head",)))
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
        trainer.enter_phase(0)
        trainer.step(*next(Batches().epoch(0)))
        return weights(trainer)

    whole, parts = step(1), step(4)
    assert all(torch.allclose(whole[name], parts[name], atol=1e-7) for name in whole)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_run_goes_on_where_weights_lie_otherwise_in_memory_as_from_mps_on_a_cpu(name):
    made, states = partial(make, optimizer=OptimConfig(name=name, lr=0.01), kernel=3, channels_last=True), []
    made([PhaseConfig(1)], save=lambda state: states.append(copy.deepcopy(state))).fit()
    state = states[-1] | {"progress": states[-1]["progress"] | {"lengths": [3]}}
    contiguous = copy.deepcopy(state)
    for own in contiguous["optimizer"]["state"].values():
        own.update({key: value.contiguous() for key, value in own.items()})
    one, two = made(), made()
    one.fit(state)
    two.fit(contiguous)
    assert same(weights(one), weights(two))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_weights_move_alike_however_they_lie_in_memory(name, monkeypatch):
    """torch's fused kernels see those that lie channels-last as vectors, and nobody else does."""
    monkeypatch.setattr(optim, "LARGE", 1)
    nets = [nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)]
    nets[1].load_state_dict(nets[0].state_dict())
    config, stages = OptimConfig(name=name, lr=0.1, weight_decay=0.1), {"head": ("weight", "bias")}
    built = [optim.build(config, net, stages) for net in nets]
    for step in range(3):
        gradients = torch.randn(2, 8, 3, 3, 3, generator=torch.Generator().manual_seed(step))
        for net, optimizer in zip(nets, built, strict=True):
            net.bias.grad = gradients[1, :, 0, 0, 0].clone()
            net.weight.grad = gradient = torch.empty_like(net.weight).copy_(gradients[0])
            optimizer.step()
            assert net.weight.grad is gradient
        one, two = nets
        assert torch.equal(one.weight, two.weight)
        assert torch.equal(one.bias, two.bias)
        kept = [value for value in built[1].state[two.weight].values() if value.ndim]
        assert all(value.stride() == two.weight.stride() == (27, 1, 9, 3) for value in kept)


def test_momentum_is_torchs_where_some_weights_are_left_out_of_the_first_steps():
    net, theirs = Net(), Net()
    theirs.load_state_dict(net.state_dict())
    ours = optim.build(OptimConfig(lr=0.1, momentum=0.9, weight_decay=0.0), net, STAGES)
    both = [(net, ours), (theirs, torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, foreach=False))]
    for step in range(6):
        for model, optimizer in both:
            for name, p in model.named_parameters():
                p.grad = None if step < 3 and name in STAGES["stage1"] else torch.full_like(p, 1.0 + step)
            optimizer.step()
    for one, other in zip(net.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_stages_that_move_alike_are_one_kernel_and_others_one_each(name, kind):
    config = OptimConfig(name=name, lr=0.1, weight_decay=0.1, decay_norms_and_biases=False)
    net, theirs = Net(), Net()
    theirs.load_state_dict(net.state_dict())
    ours, reference = (optim.build(config, each, STAGES) for each in (net, theirs))
    reference = kind(reference.param_groups)  # a kernel for each group
    groups = ours.param_groups
    for rate, kernels in ((0.1, 2), (0.01, 4)):  # of weights that decay, and of those that do not
        for optimizer in (ours, reference):
            for group in optimizer.param_groups:
                group["lr"] = rate if group["stage"] == "head" else 0.1
            for weight in (weight for group in optimizer.param_groups for weight in group["params"]):
                weight.grad = torch.ones_like(weight)
        with torch.profiler.profile() as seen:
            ours.step()
        assert sum(event.name == f"aten::_fused_{name}_" for event in seen.events()) == kernels
        assert ours.param_groups is groups
        reference.step()
        assert same(net.state_dict(), theirs.state_dict())


def test_weights_keep_their_shape_where_a_step_breaks_off(monkeypatch):
    monkeypatch.setattr(optim, "LARGE", 1)
    net = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    optimizer = optim.build(OptimConfig(name="adamw"), net, {"head": ("weight", "bias")})
    net(torch.zeros(1, 3, 8, 8)).sum().backward()
    optimizer.param_groups[0]["betas"] = None
    with pytest.raises(TypeError):
        optimizer.step()
    assert net.weight.shape == net.weight.grad.shape == (8, 3, 3, 3)


def test_parts_add_up_where_a_cuda_graph_writes_over_the_gradients_of_the_part_before():
    def trained(by_graph):
        trainer = make([PhaseConfig(1)], accumulate=2)
        graphs = []  # the memory in which backward passes left gradients
        for weight in trainer.model.parameters():
            weight.register_post_accumulate_grad_hook(lambda weight: graphs.append(weight.grad))

        def forward(x):
            for gradient in graphs:
                gradient.fill_(math.nan)
            graphs.clear()
            return trainer.model(x)

        if by_graph:
            trainer.feed = trainer.image_feed = replace(trainer.feed, forward=forward)
        trainer.fit()
        return weights(trainer)

    assert same(trained(by_graph=True), trained(by_graph=False))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipping_bounds_the_step(precision):
    trainer = make(clip_norm=1e-3, optimizer=OptimConfig(lr=1.0, momentum=0.0), precision=precision)
    trainer.enter_phase(0)
    before = weights(trainer)
    trainer.step(*next(Batches().epoch(0)))
    names = [name for name, _ in trainer.model.named_parameters()]
    moved = math.sqrt(sum((weights(trainer)[name] - before[name]).square().sum().item() for name in names))
    assert moved == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "rmsprop_tf", "lamb"])
def test_epsilon_is_the_optimisers_own_unless_it_is_given_and_may_be_zero(name):
    own, given = (optim.build(OptimConfig(name=name, eps=eps), Net(), STAGES) for eps in (None, 0.0))
    assert own.param_groups[0]["eps"] == own.defaults["eps"] > 0
    assert given.param_groups[0]["eps"] == 0


def test_a_loss_that_is_not_finite_stops_at_its_step_and_saves_nothing_more():
    class Poisoned(Batches):
        def epoch(self, epoch, start=0):
            for step, (x, y) in enumerate(super().epoch(epoch, start), start):
                yield (x * float("nan") if (epoch, step) == (1, 4) else x), y

    saves = []
    trainer = make(save=lambda state: saves.append(state["progress"]["epoch"]))
    trainer.image_feed = replace(trainer.image_feed, batches=Poisoned())
    with pytest.raises(InputError, match=r"the loss is nan at epoch 2, step 5, rate 0\.1; the last good state is kept"):
        trainer.fit()
    assert saves == [1]
    trainer = make()
    nn.init.constant_(trainer.model.head.weight, math.nan)
    with pytest.raises(InputError, match=r"epoch 1, step 1, rate 0\.1; try a lower"):  # when there is none to be kept
        trainer.fit()


def test_a_loss_that_is_not_finite_is_told_with_the_rate_of_its_step():
    """The schedule has moved on by the time that the loss is looked at."""

    class Poisoned(Batches):
        def epoch(self, epoch, start=0):
            for step, (x, y) in enumerate(super().epoch(epoch, start), start):
                yield (x * float("nan") if step == 5 else x), y

    rates = []
    trainer = make(schedule=ScheduleConfig(name="cosine"))
    step = trainer.step
    trainer.step = lambda x, y: rates.append(trainer.optimizer.param_groups[0]["lr"]) or step(x, y)
    trainer.image_feed = replace(trainer.image_feed, batches=Poisoned())
    with pytest.raises(InputError) as told:
        trainer.fit()
    assert len({f"{rate:.3g}" for rate in rates}) == len(rates) >= 6
    assert f"the loss is nan at epoch 1, step 6, rate {rates[5]:.3g};" in str(told.value)


def test_a_limit_of_time_ends_the_run_before_an_epoch_that_would_not_fit(monkeypatch):
    clock = count()  # an epoch looks at it some 25 times
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    told, saved = [], []
    phases = (PhaseConfig(2, ["head"]), PhaseConfig(3), PhaseConfig(2))
    trainer = make(phases=phases, limit=100.0, tell=told.append, save=lambda state: saved.append(copy.deepcopy(state)))
    whole = trainer.fit()
    assert whole.lengths == [2, 1, 0]
    assert len(whole.history) == trainer.epochs == 3
    assert told == ["another epoch would go beyond train.minutes: it ends after 3 of 7"]
    for state in (saved[0], saved[-1]):  # both of them know the time
        again = make(phases=phases, limit=100.0)
        assert again.fit(copy.deepcopy(state)).lengths == whole.lengths
        assert same(weights(trainer), weights(again))


def test_memory_that_does_not_suffice_for_the_optimiser_is_told_in_words():
    trainer = make()

    def step(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory")

    trainer.optimizer.step = step
    with pytest.raises(InputError, match="out of memory for what the optimiser keeps of each weight; take a"):
        trainer.fit()


def test_saving_by_the_clock_happens_inside_an_epoch():
    places = []
    make(
        phases=(PhaseConfig(1),),
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
    trainer.to_train_mode()
    trainer.model.body[1].eval()
    modes = [module.training for module in trainer.model.modules()]
    loss, top1 = evaluate(trainer.model, batches)
    assert [module.training for module in trainer.model.modules()] == modes
    assert loss == pytest.approx(nn.functional.cross_entropy(outputs, targets).item(), rel=1e-6)
    assert top1 == pytest.approx((outputs.argmax(1) == targets).float().mean().item())


def test_logits_that_are_no_numbers_answer_nothing_rightly():
    loss, top1 = evaluate(nn.Linear(2, 2), [(torch.full((4, 2), math.nan), torch.zeros(4, dtype=torch.int64))])
    assert math.isnan(loss)
    assert top1 == 0
    images = torch.ones(4, 2) * torch.tensor([1.0, math.nan, 1.0, 1.0])[:, None]
    same = nn.Linear(2, 2)
    with torch.no_grad():
        same.bias.copy_(torch.tensor([100.0, 0.0]))
    assert evaluate(same, [(images, torch.zeros(4, dtype=torch.int64))])[1] == 0.75  # and the others count


def test_logits_are_of_the_precision_that_is_asked_for_and_float32_in_any():
    net, images, targets = nn.Linear(64, 3), torch.randn(5, 64), torch.zeros(5, dtype=torch.int64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = net(images)
    given, _ = logits(net, [(images, targets)], "bf16")
    assert given.dtype == torch.float32
    assert torch.equal(given, expected.float())


def test_bf16_autocast_trains_too():
    assert make(precision="bf16").fit().history[-1]["val_top1"] > 0.9


# ---- schedules


def rates(config: ScheduleConfig, epochs=4, steps=5, lr=1.0, val_losses=None) -> list[float]:
    """The rate of every step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = Schedule(config, lr, optimizer, epochs, steps)
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


def test_what_step_would_lower_within_the_warm_up_it_lowers_after_it():
    plain = rates(ScheduleConfig(name="step", every=1, gamma=0.1))
    for warmup in (1, 1.6):
        warmed = rates(ScheduleConfig(name="step", every=1, gamma=0.1, warmup_epochs=warmup))
        steps = round(5 * warmup)
        assert warmed[steps] == pytest.approx(1)
        assert warmed[steps + 1 :] == pytest.approx(plain[steps + 1 :])


def test_multi_step_lowers_at_milestones_warm_up_or_not():
    plain = rates(ScheduleConfig(name="multi_step", milestones=[1, 3]))
    assert plain == pytest.approx([1.0] * 5 + [0.1] * 10 + [0.01] * 5)
    warmed = rates(ScheduleConfig(name="multi_step", milestones=[1, 3], warmup_epochs=0.4, warmup_start=0.5))
    assert warmed[:3] == pytest.approx([0.5, 0.75, 1.0])
    assert warmed[3:] == pytest.approx(plain[3:])


def test_cosine_falls_from_the_rate_to_its_end():
    seen = rates(ScheduleConfig(name="cosine"))
    assert seen == pytest.approx([0.5 * (1 + math.cos(math.pi * t / 20)) for t in range(20)])


def test_cyclic_is_equation_2_of_snapshot_ensembles():
    seen = rates(ScheduleConfig(name="cyclic", cycles=2), epochs=4, steps=5)
    length = math.ceil(20 / 2)
    assert seen == pytest.approx([0.5 * (math.cos(math.pi * ((t - 1) % length) / length) + 1) for t in range(1, 21)])


@pytest.mark.parametrize("name", ["cosine", "cyclic"])
def test_a_stage_of_lower_rate_keeps_its_share_of_a_final_rate_and_one_of_none_stays_still(name):
    slow, still, fast = ({"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.01, 0.0, 0.1))
    optimizer = torch.optim.SGD([slow, still, fast])
    schedule = Schedule(ScheduleConfig(name=name, final=0.05, cycles=2), 0.1, optimizer, 4, 5)
    for _ in range(20):
        tenth, nothing, whole = (group["lr"] for group in optimizer.param_groups)
        assert nothing == 0
        assert tenth == pytest.approx(whole / 10)
        assert 0.05 < whole <= 0.1
        optimizer.step()
        schedule.step()


TRIED = np.geomspace(1e-6, 1, 80)  # a step at each


@pytest.mark.parametrize(
    ("loss", "found", "steps"),
    [
        (lambda step, rate: 1.0 if rate < 0.01 else 9.0, TRIED[TRIED < 0.01].max() / 10, sum(TRIED < 0.01) + 3),
        (lambda step, rate: 0.01 if step < 3 else 1.0, 0.1, 80),  # luck at first counts for little
        (lambda step, rate: 1.1 if rate < 0.01 else 1.0, 0.1, 80),
        (lambda step, rate: math.nan, 1e-7, 1),
        (lambda step, rate: math.nan if step == 40 else 1.0, TRIED[39] / 10, 41),
    ],
    ids=["too high from a rate on", "lucky at first", "little to fall", "never a number", "no number from a rate on"],
)
def test_a_range_test_takes_a_tenth_of_the_highest_rate_that_does_no_harm(loss, found, steps):
    trainer = make(phases=(PhaseConfig(1, ("head",)), PhaseConfig(1, ("*",), {"stage1": 0.1})))
    rates, train = [], trainer.step

    def step(images, targets):
        group = {each["stage"]: each["lr"] for each in trainer.optimizer.param_groups}
        assert group["stage1"] == pytest.approx(group["head"] / 10)
        assert all(module.training for module in trainer.model.modules())
        rates.append(group["head"])
        train(images, targets)
        return torch.tensor(loss(len(rates) - 1, group["head"]), dtype=torch.float64)

    trainer.model.eval()
    trainer.step = step
    assert rehearsal.find_rate(trainer) == pytest.approx(found)
    assert rates == pytest.approx(TRIED[:steps])


def test_polynomial():
    assert rates(ScheduleConfig(name="polynomial", power=2.0)) == pytest.approx([(1 - t / 20) ** 2 for t in range(20)])


def test_one_cycle_rises_to_the_rate_and_falls_to_nothing():
    seen = rates(ScheduleConfig(name="one_cycle", rise=0.25))
    assert seen[0] == pytest.approx(1 / 25)
    assert max(seen) == pytest.approx(1.0)
    assert seen.index(max(seen)) == 4
    assert seen[-1] < 1e-3


@pytest.mark.parametrize("steps", range(1, 10))
def test_a_cycle_of_few_steps_wastes_none_on_rates_of_nothing(steps):
    """Of two, torch's last is a 250,000th of the rate, and of five with a rise of 0.2 it divides by zero."""
    seen = rates(ScheduleConfig(name="one_cycle", rise=0.2), epochs=1, steps=steps)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == pytest.approx(1.0)
    assert seen[-1] > 0.02


@pytest.mark.parametrize(("rise", "steps"), [(0.1, 10), (0.05, 20)])
def test_a_cycle_may_rise_by_one_step(rise, steps):
    seen = rates(ScheduleConfig(name="one_cycle", rise=rise), epochs=1, steps=steps)
    assert all(map(math.isfinite, seen))
    assert seen[1] == pytest.approx(max(seen), rel=0.1)


def test_plateau_lowers_when_the_validation_loss_stays():
    seen = rates(ScheduleConfig(name="plateau", patience=0, gamma=0.5), val_losses=[1.0, 1.0, 0.5, 0.5])
    assert seen == pytest.approx([1.0] * 10 + [0.5] * 10)


@pytest.mark.parametrize("name", ["constant", "step", "cosine", "polynomial", "plateau"])
def test_a_warm_up_longer_than_the_run_rises_to_its_end(name):
    seen = rates(ScheduleConfig(name=name, warmup_epochs=50, every=0.01))
    assert seen == sorted(set(seen))
    assert seen[-1] == pytest.approx(1.0)


def test_warm_up_rises_in_a_straight_line():
    seen = rates(ScheduleConfig(name="constant", warmup_epochs=1, warmup_start=0.2))
    assert seen == pytest.approx([0.2, 0.36, 0.52, 0.68, 0.84] + [1.0] * 15)


# ---- optimisers and losses


RATES = {"sgd": 0.1, "lars": 0.1, "lamb": 0.05, "muon": 0.05}


SETTINGS = {
    "sgd": {"lr", "momentum", "nesterov"},
    "adam": {"lr", "betas"},
    "adamw": {"lr", "betas"},
    "rmsprop": {"lr", "momentum", "alpha"},
    "rmsprop_tf": {"lr", "momentum", "alpha"},
    "lamb": {"lr", "betas"},
    "lars": {"lr", "momentum", "nesterov"},
    "muon": {"lr", "momentum", "nesterov"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_optimiser_is_the_one_that_is_named_as_its_settings_have_it(name):
    if name == "muon":
        pytest.importorskip("timm.optim.muon", reason="this timm has no Muon")
    known = {"lr": 0.3, "momentum": 0.7, "nesterov": True, "betas": (0.8, 0.95), "alpha": 0.77}
    given = {key: known[key] for key in SETTINGS[name]}
    made = optim.build(OptimConfig(name=name, **given), Net(), STAGES)
    assert type(made).__name__.lower().strip("_") == name.replace("_", "")
    assert all({key: group[key] for key in given} == given for group in made.param_groups)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_optimiser_learns(name):
    if name == "muon":
        pytest.importorskip("timm.optim.muon", reason="this timm has no Muon")
    assert make(optimizer=OptimConfig(name=name, lr=RATES.get(name, 0.01))).fit().history[-1]["val_top1"] > 0.8


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


# ---- the average of the weights


def test_the_average_follows_its_formula_and_is_what_is_judged_and_kept():
    seen, kept = [], []
    trainer = make(phases=(PhaseConfig(1),), ema=0.5)
    step = trainer.step

    def watched(images, targets):
        loss = step(images, targets)
        seen.append(trainer.model.head.weight.detach().clone())
        return loss

    start = trainer.model.head.weight.detach().clone()
    trainer.step = watched
    trainer.on_epoch = lambda report, is_best: kept.append(weights(trainer))
    trainer.fit()
    average = start
    for number, value in enumerate(seen, 1):
        decay = min(0.5, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * value
    torch.testing.assert_close(kept[0]["head.weight"], average)
    assert torch.equal(trainer.model.head.weight, seen[-1])  # training itself goes on with the plain ones


def test_a_fitted_decay_looks_back_on_a_twentieth_of_the_run():
    assert make(ema="auto").ema.decay == pytest.approx(1 - 1 / (0.05 * 30))


# ---- what may go wrong


class Breaking(Batches):
    """Batches of which one has no numbers in it, as often as `times` says."""

    def __init__(self, times: int):
        self.times = times

    def epoch(self, epoch, start=0):
        for step, (x, y) in enumerate(super().epoch(epoch, start), start):
            breaks = (epoch, step) == (1, 4) and self.times > 0
            self.times -= breaks
            yield (x * float("nan") if breaks else x), y


def test_on_request_a_run_that_diverges_goes_back_and_on_at_half_the_rate():
    told, rates = [], []
    trainer = make(rolls_back=True, tell=told.append, optimizer=OptimConfig(lr=0.1, momentum=0.9))
    trainer.image_feed = replace(trainer.image_feed, batches=Breaking(times=2))
    trainer.on_epoch = lambda report, is_best: rates.append(report.lr)
    trainer.fit()
    assert rates == pytest.approx([0.1, 0.025, 0.025])
    assert [line.partition(";")[2] for line in told] == [
        " back to epoch 2, step 0, and on at 0.5 times the rate",
        " back to epoch 2, step 0, and on at 0.25 times the rate",
    ]
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())


@pytest.mark.parametrize("name", ["constant", "one_cycle", "cosine"])
def test_after_going_back_the_whole_schedule_is_lower(name):
    def rates(times: int) -> list[float]:
        trainer, seen = make(rolls_back=True, schedule=ScheduleConfig(name=name)), []
        trainer.image_feed = replace(trainer.image_feed, batches=Breaking(times))
        step = trainer.step
        trainer.step = lambda x, y: seen.append(trainer.optimizer.param_groups[0]["lr"]) or step(x, y)
        trainer.fit()
        return seen

    plain, lower = rates(0), rates(1)
    assert lower[-20:] == pytest.approx([rate / 2 for rate in plain[-20:]])


def test_a_resumed_run_goes_back_to_where_it_was_resumed():
    saved, steps, told = [], iter(range(100)), []
    parts = make(save=lambda state: saved.append(copy.deepcopy(state)), should_stop=lambda: next(steps) >= 12)
    with pytest.raises(Interrupted):
        parts.fit()
    resumed = make(rolls_back=True, tell=told.append)
    resumed.image_feed = replace(resumed.image_feed, batches=Breaking(times=1))
    assert len(resumed.fit(saved[-1]).history) == 3
    assert told[0].endswith("back to epoch 2, step 2, and on at 0.5 times the rate")


def test_a_run_that_goes_on_diverging_is_given_up():
    told = []
    trainer = make(rolls_back=True, tell=told.append)
    trainer.image_feed = replace(trainer.image_feed, batches=Breaking(times=100))
    with pytest.raises(InputError, match=r"once more after 5 times half the rate; try a lower optim\.lr"):
        trainer.fit()
    assert [line.rpartition(" at ")[2] for line in told] == [f"{0.5**times:g} times the rate" for times in range(1, 6)]


def test_a_run_does_not_go_back_to_weights_that_overflow_in_validation():
    told, grown = [], []
    trainer = make(rolls_back=True, tell=told.append)
    head, step = trainer.model.head, trainer.step
    head.register_forward_hook(lambda *layer: layer[2] * head.weight.detach().abs().max().clamp(min=1) ** 2)

    def growing(images, targets):
        loss = step(images, targets)
        if trainer.progress.epoch == 1 and trainer.progress.step == 9 and not grown:
            grown.append(head.weight.data.fill_(1e18))  # a number still, as this step's loss was
        return loss

    trainer.step = growing
    history = trainer.fit().history
    assert [line.partition(";")[2] for line in told] == [" back to epoch 2, step 0, and on at 0.5 times the rate"]
    assert [report["epoch"] for report in history] == [1, 2, 3]
    assert all(math.isfinite(report["val_loss"]) for report in history)


def test_weights_that_are_not_finite_are_never_saved():
    saved = []
    trainer = make(save_minutes=0.0, save=lambda state: saved.append(copy.deepcopy(state["model"])))
    step = trainer.step

    def poisoned(images, targets):
        loss = step(images, targets)
        if trainer.progress.step == 6:
            trainer.model.head.weight.data[0, 0] = math.inf  # the loss of this step was still finite
        return loss

    trainer.step = poisoned
    with pytest.raises(InputError, match="a weight is not finite after epoch 1, step 7"):
        trainer.fit()
    assert saved
    assert all(torch.isfinite(state["head.weight"]).all() for state in saved)


def test_a_constant_that_is_not_finite_is_none_of_trainings_affair():
    trainer = make()
    trainer.model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    assert len(trainer.fit().history) == 3


def test_running_statistics_that_overflow_end_the_run():
    trainer = make()
    trainer.model.norm = nn.BatchNorm1d(2)
    step = trainer.step

    def overflown(images, targets):
        trainer.model.norm.running_var[0] = math.inf
        return step(images, targets)

    trainer.step = overflown
    with pytest.raises(InputError, match="a running statistic is not finite after epoch 1, step"):
        trainer.fit()


@pytest.mark.parametrize(("name", "lr"), [("sgd", 0.1), ("rmsprop", 0.01)])
def test_steps_that_fp16_leaves_out_to_find_its_scale_are_no_divergence(name, lr):
    trainer = make(precision="fp16", optimizer=OptimConfig(name=name, lr=lr), schedule=ScheduleConfig(name="cosine"))
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    before, states = weights(trainer), []
    trainer.save = lambda state: states.append(state["scaler"]["scale"])
    trainer.should_stop = lambda: trainer.progress.step == 1
    with pytest.raises(Interrupted):
        trainer.fit()
    assert torch.equal(before["head.weight"], trainer.model.head.weight)
    assert states == [2.0**23]
    trainer.should_stop = lambda: False
    assert trainer.fit().history[-1]["val_top1"] > 0.7


def test_gradients_that_are_finite_at_no_scale_of_fp16_end_the_run():
    trainer = make(precision="fp16")
    trainer.model.body[0].weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(InputError, match="in fp16 the gradient is finite at no scale, up to epoch 3, step 10"):
        trainer.fit()


@pytest.mark.parametrize("phases", [THREE_EPOCHS, (PhaseConfig(1, ("head",)), PhaseConfig(1))], ids=["one", "two"])
def test_a_net_that_torch_has_compiled_trains_as_it_does_plain(phases):
    """Its length cannot be asked for, nor so whether it is true."""
    plain, compiled = (make(phases, ema="auto", compile=compile) for compile in (False, True))
    plain.fit()
    compiled.fit()
    for ours, theirs in zip(weights(compiled).values(), weights(plain).values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


class Hungry(Net):
    """Takes `room` images at once, and not one more, which it finds out when BatchNorm has seen them."""

    def forward(self, x):
        outputs = super().forward(x) if len(x) > 1 else None  # of one pixel BatchNorm takes no statistics
        if self.training and len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return outputs


def test_out_of_memory_splits_the_batch_and_the_steps_stay_the_same():
    told = []
    plain, hungry = make(accumulate=2), make(tell=told.append)
    hungry.model.__class__, hungry.model.room = Hungry, 8
    plain.on_epoch = lambda report, is_best: setattr(plain, "accumulate", 4)
    hungry.on_epoch = lambda report, is_best: setattr(hungry.model, "room", 4)
    plain.fit()
    hungry.fit()
    assert told == [
        "out of memory with 16 images at once: from here 8 at once; a step still sees 16",
        "out of memory with 8 images at once: from here 4 at once; a step still sees 16",
    ]
    assert same(weights(plain), weights(hungry))


def test_a_batch_in_parts_is_the_batch_where_classes_weigh_differently():
    classes = torch.tensor([0.6, 3.0])
    whole, parts = (make(loss=losses.build(LossConfig(), class_weights=classes), accumulate=n) for n in (1, 4))
    for trainer in (whole, parts):
        trainer.model.eval()  # BatchNorm sees parts
        trainer._seed_dropout = lambda: None
    images, targets = next(Batches().epoch(0))
    losses_seen = [trainer._accumulate_gradients(images, targets).item() for trainer in (whole, parts)]
    assert losses_seen[0] == pytest.approx(losses_seen[1], rel=1e-5)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_the_rate_told_is_that_of_what_moves():
    trainer = make((PhaseConfig(1, ("head",), {"head": 0.01}),))
    trainer.fit()
    assert trainer.progress.history[0]["lr"] == pytest.approx(0.001)


def test_where_one_image_is_too_much_it_says_so():
    trainer = make()
    trainer.model.__class__, trainer.model.room = Hungry, 0
    with pytest.raises(InputError, match=r"out of memory with 1 image at once; set train\.grad_checkpointing true"):
        trainer.fit()


def test_batch_norm_that_sees_a_single_number_says_what_to_change():
    with pytest.raises(InputError, match="of each channel, of 1 image at once; take a larger"):
        make(accumulate=16).fit()
    assert len(make(accumulate=16, keep_statistics=True).fit().history) == 3


def test_another_error_is_not_taken_for_want_of_memory():
    trainer = make()
    trainer.image_feed = replace(trainer.image_feed, forward=lambda x: trainer.model(x[:, :1]))
    trainer.feed = trainer.image_feed
    with pytest.raises(RuntimeError, match="channels"):
        trainer.fit()


# ---- further losses


def test_bce_takes_each_class_by_itself():
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    shares = 0.9 * nn.functional.one_hot(targets, 3).float() + 0.1 / 3
    expected = nn.functional.binary_cross_entropy_with_logits(logits, shares)
    loss = losses.build(LossConfig(name="bce", label_smoothing=0.1))
    assert loss(logits, targets) == pytest.approx(expected.item())
    assert loss(logits, nn.functional.one_hot(targets, 3).float()) == pytest.approx(expected.item())


def test_a_teacher_counts_by_its_weight_and_is_not_taught():
    teacher, images = Net(), torch.randn(4, 2, 1, 1)
    loss = losses.build(LossConfig(teacher="x", teacher_weight=0.7, temperature=3.0), teacher=teacher)
    logits, targets = torch.randn(4, 2, requires_grad=True), torch.tensor([0, 1, 1, 0])
    soft = (teacher.eval()(images) / 3).softmax(1)
    apart = (soft * (soft.log() - (logits / 3).log_softmax(1))).sum(1).mean()
    expected = 0.3 * nn.functional.cross_entropy(logits, targets) + 0.7 * 9 * apart
    given = loss.train()(logits, targets, images)
    assert given.item() == pytest.approx(expected.item(), rel=1e-5)
    given.backward()
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())


def test_a_net_that_says_what_its_teacher_says_has_nothing_to_learn_from_it():
    teacher, images = Net().eval(), torch.randn(4, 2, 1, 1)
    loss = losses.build(LossConfig(teacher="x", teacher_weight=1.0), teacher=teacher)
    assert loss(teacher(images), torch.zeros(4, dtype=torch.long), images).item() == pytest.approx(0, abs=1e-6)
