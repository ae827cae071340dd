"""Gradients by other rules than calculus, in any net.

What the net calls is caught on its way (torch.overrides), be it from a module or as a function, so that no net silently
escapes a rule, and none is touched.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Under each of these names a net may call what the first does.
RELU = (torch.relu, functional.relu, torch.relu_, Tensor.relu, Tensor.relu_)
TANH = (torch.tanh, functional.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_)

# What goes back through a function, `(signal, input) -> signal`, where a gradient would be the signal times a slope.
Rule = Callable[[Tensor, Tensor], Tensor]


class Ruled(TorchFunctionMode):
    """Within, what is called goes forward as ever, and back by the rules, where there is one for a function.

    A function that would work in place gives a new tensor. `met` says whether any function with a rule was called.
    """

    def __init__(self, rules: Mapping[tuple[Callable, ...], Rule]):
        super().__init__()
        self.met = False
        self._rules = {name: (names[0], rule) for names, rule in rules.items() for name in names}

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function not in self._rules:
            return function(*args, **kwargs)
        self.met = True
        forward, rule = self._rules[function]
        options = {name: value for name, value in kwargs.items() if name not in ("input", "inplace")}
        x, *more = args if args else (kwargs["input"],)
        if function is functional.relu:
            more = []  # whether in place
        return _ByRule.apply(x, lambda x: forward(x, *more, **options), rule)


class _ByRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Callable[[Tensor], Tensor], rule: Rule) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rule = rule
        return forward(x)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None, None]:
        return ctx.rule(signal, *ctx.saved_tensors), None, None
