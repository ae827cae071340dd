"""FractalNet: its columns, and what drop-path drops."""

import pytest
import torch
from zoo_cases import on_meta

import cnnzoo
from cnnzoo.models.fractalnet import FractalBlock, Join


def block(columns=3, drop_path_rate=0.15):
    torch.manual_seed(0)
    return FractalBlock(columns, in_channels=3, out_channels=4, drop_rate=0.0, drop_path_rate=drop_path_rate)


def weights(join, paths, column=0):
    """What the join multiplies each of its paths by, in one draw."""
    return join(*torch.eye(paths), column=torch.tensor(column))


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "columns"), [("fractalnet20", 3), ("fractalnet40", 4)])
def test_column_c_has_2_to_the_c_convolutions(name, columns):
    net = on_meta(name)
    assert [len(units) for units in net.block1.columns] == [2**c for c in range(columns)]
    assert 5 * len(net.block1.columns[-1]) == int(name[-2:])  # the depth


def test_dropout_grows_from_block_to_block():
    def rates(**options):
        net = on_meta("fractalnet20", **options)
        return [getattr(net, f"block{i}").columns[0][0].dropout.p for i in range(1, 6)]

    assert rates() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert rates(drop_rate=0.2) == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


@torch.no_grad()
def test_block_of_three_columns_is_the_papers_expansion():
    net = block().eval()
    (shallow,), (middle1, middle2), (deep1, deep2, deep3, deep4) = net.columns
    half = (middle1(IMAGES) + deep2(deep1(IMAGES))) / 2
    by_hand = (shallow(IMAGES) + middle2(half) + deep4(deep3(half))) / 3
    assert by_hand.shape == (2, 4, 4, 4)
    assert torch.allclose(net(IMAGES), by_hand, atol=1e-6)


@pytest.mark.parametrize("rate", [0.15, 0.6])
@pytest.mark.parametrize("paths", [2, 3, 4])
def test_join_is_the_mean_of_at_least_one_path(paths, rate):
    torch.manual_seed(0)
    join = Join(rate)
    draws = torch.stack([weights(join, paths) for _ in range(500)])
    survivors = (draws > 0).sum(dim=1)
    assert set(survivors.tolist()) == set(range(1, paths + 1))
    assert torch.allclose(draws, (draws > 0) / survivors[:, None])


def test_paths_are_dropped_at_the_rate_and_the_last_one_is_anyones():
    torch.manual_seed(0)
    join = Join(0.15)
    dropped = torch.stack([weights(join, 3) == 0 for _ in range(4000)]).float().mean(dim=0)
    assert dropped.tolist() == pytest.approx([0.15 - 0.15**3 / 3] * 3, abs=0.02)


@pytest.mark.parametrize(("column", "expected"), [(-1, [0, 0, 1]), (-2, [0, 1, 0]), (-3, [1, 0, 0])])
def test_drawn_column_goes_on_alone(column, expected):
    assert weights(Join(0.15), 3, column).tolist() == expected


def test_join_is_the_mean_of_all_without_drop_path_and_in_eval_mode():
    even = pytest.approx([0.25] * 4)
    assert Join(0.9)(*torch.eye(4)).tolist() == even
    assert weights(Join(0.9).eval(), 4).tolist() == even


@torch.no_grad()
@pytest.mark.parametrize("column", [-1, -2, -3])
def test_global_sampling_is_the_column_alone(column):
    net = block()
    assert torch.equal(net(IMAGES, torch.tensor(column)), net.columns[column](IMAGES))


def test_half_of_the_batches_draw_a_column_and_all_columns_alike():
    torch.manual_seed(0)
    net = on_meta("fractalnet20").train()
    draws = torch.stack([net.draw_column(torch.empty(0)) for _ in range(4000)])
    shares = [(draws == column).float().mean().item() for column in (0, -1, -2, -3)]
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.03)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return cnnzoo.create("fractalnet20", drop_rate=0.0)


IMAGES32 = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_drop_path_acts_in_train_mode_only(net):
    net.eval()
    assert torch.equal(net(IMAGES32), net(IMAGES32))
    net.train()
    assert not all(torch.equal(net(IMAGES32), net(IMAGES32)) for _ in range(5))


@torch.no_grad()
def test_without_drop_path_training_joins_all(net):
    other = cnnzoo.create("fractalnet20", drop_rate=0.0, drop_path_rate=0.0)
    assert torch.equal(other(IMAGES32), other(IMAGES32))


@torch.no_grad()
def test_each_column_is_a_classifier_and_the_deepest_is_the_first_choice(net):
    net.eval()
    logits = [net.forward_column(IMAGES32, number) for number in range(3)]
    assert [tuple(one.shape) for one in logits] == [(2, 10)] * 3
    assert torch.equal(net.forward_column(IMAGES32), logits[2])
    assert not torch.equal(logits[2], net(IMAGES32))
    assert len({tuple(one.flatten().tolist()) for one in logits}) == 3


def test_every_parameter_has_a_gradient_whatever_is_dropped(net):
    net.train()
    for _ in range(2):
        net(IMAGES32).sum().backward()
        assert [name for name, p in net.named_parameters() if p.grad is None] == []
        net.zero_grad()
