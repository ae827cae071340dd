"""How much of a net is silent: the zeros that its ReLUs leave."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cnnzoo.errors import InputError, counted
from cnnzoo.telling import Tell
from cnnzoo.visualize import drawing
from cnnzoo.visualize.gradients import AT_ONCE
from cnnzoo.visualize.hooks import Layer, untouched
from cnnzoo.visualize.rules import RELU
from cnnzoo.visualize.subject import Model, Pretrained, Subject


@dataclass(frozen=True)
class Sparsity(drawing.Result):
    """How many zeros the ReLUs of a net leave, in the order in which they run."""

    layers: tuple[str, ...]
    zeros: np.ndarray  # (L, B): the share of activations that are 0, for each layer and picture
    silent: np.ndarray  # (L,): the share of channels that are 0 everywhere, for all pictures
    name: str  # the net's

    def __str__(self) -> str:
        shares = self.zeros.mean(1)
        pictures = self.zeros.shape[1]
        return (
            f"zeros after {len(self.layers)} ReLUs of {self.name}, {counted(pictures, 'picture')}: "
            f"{shares[0]:.0%} after {self.layers[0]}, {shares[-1]:.0%} after {self.layers[-1]}"
        )

    def to_dict(self) -> dict:
        values = {"layers": list(self.layers), "zeros": self.zeros.mean(1).tolist()}
        return values | {"silent_channels": self.silent.tolist(), "pictures": self.zeros.shape[1]}

    def figure(self):
        from matplotlib.figure import Figure  # here, since matplotlib takes a while to import

        figure = Figure((8, 5), dpi=110, layout="constrained")
        axes = figure.subplots()
        depth, shares = np.arange(len(self.layers)), self.zeros.mean(1)
        axes.plot(depth, shares, "o-", label="activations that are 0, mean over pictures")
        if self.zeros.shape[1] > 1:
            axes.fill_between(
                depth, self.zeros.min(1), self.zeros.max(1), alpha=0.2, label="least to most of a picture"
            )
        axes.plot(depth, self.silent, "s--", label="channels that are 0 everywhere")
        axes.set(title=self.name, xlabel="after", ylabel="share", ylim=(-0.02, 1.02))
        every = math.ceil(len(self.layers) / 40)  # names that can be read beside each other
        axes.set_xticks(depth[::every], self.layers[::every], rotation=90, fontsize=7)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        axes.grid(alpha=0.3)
        return figure


def sparsity(
    model_or_run: Model,
    pictures: str | Path | Sequence,
    *,
    pretrained: Pretrained = False,
    size: int | None = None,
    device: str = "auto",
    tell: Tell = print,
) -> Sparsity:
    """The share of zeros after each ReLU, be it a module or a function that one calls.

    Args:
        model_or_run: a net, a run, or a net's name; see `Subject.open`.
        pictures: files, folders, PIL images or uint8 arrays; see `Subject.look`.
        pretrained: weights for a net's name.
        size: the height and width that pictures are brought to; None is the net's own.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given a line on pictures that cannot be read, which are left out.

    Raises:
        InputError: for a net without a ReLU, and where no picture can be read.
    """
    subject = Subject.open(model_or_run, pretrained, device)
    looked = subject.look(pictures, size, tell)
    calls: Counter[str] = Counter()  # in a pass
    zeros: dict[str, list[Tensor]] = {}  # in the order of the calls; (B,) of each batch
    silent: dict[str, Tensor] = {}  # (C,) bool, in all pictures so far

    def count(name: str, output: Tensor) -> None:
        is_zero = (output == 0).flatten(2) if output.ndim > 2 else (output == 0)[:, :, None]  # (B, C, places)
        calls[name] += 1
        layer = name if calls[name] == 1 else f"{name}, call {calls[name]}"
        zeros.setdefault(layer, []).append(is_zero.float().mean((1, 2)))
        everywhere = is_zero.all(2).all(0)
        silent[layer] = silent.get(layer, everywhere) & everywhere

    with untouched(subject.net) as net, torch.no_grad(), _Caught(net, count):
        for x in looked.x.split(AT_ONCE):
            calls.clear()
            net(x)
    if not zeros:
        raise InputError(f"{subject.name} has no ReLU, so none of its activations is 0 by design")
    shares = torch.stack([torch.cat(parts) for parts in zeros.values()])
    everywhere = torch.stack([channels.float().mean() for channels in silent.values()])
    return Sparsity(tuple(zeros), shares.cpu().numpy(), everywhere.cpu().numpy(), subject.name)


class _Caught(TorchFunctionMode):
    """Within, `count` is given each ReLU's name and output: a module's path, or that of the module that calls a
    function, followed by relu.
    """

    def __init__(self, net: nn.Module, count: Callable[[str, Tensor], None]):
        super().__init__()
        self._count = count
        self._running = [Layer("", net)]  # outermost first
        for layer in map(Layer._make, net.named_modules()):
            layer.module.register_forward_pre_hook(lambda *_, layer=layer: self._running.append(layer))
            layer.module.register_forward_hook(lambda *_: self._leave())

    def _leave(self) -> None:  # gives nothing, which else would stand for the module's output
        self._running.pop()

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        output = function(*args, **(kwargs or {}))
        name, module = self._running[-1]
        if isinstance(module, nn.ReLU | nn.ReLU6):
            if function in (*RELU, functional.hardtanh):  # ReLU6 calls the latter
                self._count(name, output)
        elif function in (*RELU, functional.relu6):
            self._count(f"{name}.relu".lstrip("."), output)
        return output
