"""Whether what a net does depends on the values that it is given, and not only what it answers. A leaf."""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@torch.inference_mode()
def decides_by_values(net: nn.Module, images: Tensor) -> bool:
    """Whether a net makes a number or a decision of Python's of what it computes from these images: a trace would keep
    that as it was, for whatever images come later. Shapes may be asked for, and numbers that are the net's own.
    """
    with _Watching(images) as watching:
        net(images)
    return watching.asked


class _Watching(TorchDispatchMode):
    def __init__(self, images: Tensor):
        super().__init__()
        self.asked = False
        self._derived = {id(images): images}  # kept, or another tensor might get its id

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        is_derived = any(id(given) in self._derived for given in tree_leaves((args, kwargs)))
        answers = func(*args, **kwargs)
        self.asked |= is_derived and isinstance(answers, (bool, int, float))
        if is_derived:
            self._derived.update((id(answer), answer) for answer in tree_leaves(answers))
        return answers
