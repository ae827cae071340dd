"""Files whose tensors bear other names, or lie in another order, than ours: each rule takes such a state dict to ours.

A rule is a function from a state dict to the renamed one, in the same order, or None where the file is not of its kind.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]

_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")


def old_densenet(state: State) -> State | None:
    """torchvision's DenseNet files: "denselayer1.norm.1.weight", from when a module's name could hold a dot."""
    if not any(_DENSE_LAYER.search(name) for name in state):
        return None
    return {_DENSE_LAYER.sub(r"\1", name): tensor for name, tensor in state.items()}


_TIMM_VGG = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}


def timm_vgg(state: State) -> State | None:
    """timm's VGG, whose fully connected layers are convolutions under other names."""
    if "pre_logits.fc1.weight" not in state:
        return None
    return _renamed(state, _TIMM_VGG)


def to_timm_vgg(state: Mapping[str, Tensor]) -> State:
    """The way back: a VGG's state dict as timm's `vgg*` loads it, its fully connected layers as convolutions."""
    state = _renamed(dict(state), {ours: theirs for theirs, ours in _TIMM_VGG.items()})
    for layer, shape in (("pre_logits.fc1", (4096, 512, 7, 7)), ("pre_logits.fc2", (4096, 4096, 1, 1))):
        state[f"{layer}.weight"] = state[f"{layer}.weight"].reshape(shape)
    return state


def padded_both_sides(state: State) -> State | None:
    """CIFAR ResNets of akamaster/pytorch_resnet_cifar10, known by a head called linear and shortcuts without tensors.

    Where a stage doubles its channels, their shortcut puts half of the new ones, which are zeros, on either side of the
    old; the paper's puts all behind. A permutation of each stage's channels makes one net of the other.
    """
    stages = sorted({int(name[5]) for name in state if re.match(r"layer\d\.\d+\.conv1", name)})
    if "linear.weight" not in state or stages != [1, 2, 3] or any("shortcut" in name for name in state):
        return None
    order = {1: torch.arange(state["layer1.0.conv1.weight"].shape[0])}  # at each of our channels, which of theirs
    for stage in (2, 3):
        margin = len(order[stage - 1]) // 2
        old = order[stage - 1] + margin
        new = torch.tensor([c for c in range(4 * margin) if not margin <= c < 3 * margin])
        order[stage] = torch.cat([old, new])
    ours = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"layer(\d)\.(\d+)\.(\w+)\.(\w+)", name):
            stage, block, layer, _ = int(match[1]), int(match[2]), match[3], match[4]
            before = order[stage - 1] if block == 0 and stage > 1 else order[stage]
            if layer == "conv1":
                tensor = tensor[:, before]
            elif layer == "conv2" or (layer == "bn2" and tensor.ndim == 1):
                tensor = tensor[order[stage]]
        elif name == "linear.weight":
            tensor = tensor[:, order[3]]
        ours[name.replace("linear.", "fc.")] = tensor
    return ours


_CAFFE_STEM = {
    "conv1/7x7_s2": "conv1.conv",
    "conv2/3x3_reduce": "conv2.conv",
    "conv2/3x3": "conv3.conv",
    "loss3/classifier": "fc",
}
_CAFFE_BRANCHES = {
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "5x5_reduce": "branch3.0",
    "5x5": "branch3.1",
    "pool_proj": "branch4.1",
}


def caffe_googlenet(state: State) -> State | None:
    """BVLC's GoogLeNet: "inception_3a/5x5_reduce.weight" is "inception3a.branch3.0.conv.weight"."""
    if "inception_3a/1x1.weight" not in state:
        return None
    modules = dict(_CAFFE_STEM)
    for module in {name.rpartition(".")[0] for name in state}:
        block, slash, branch = module.partition("/")
        if slash and branch in _CAFFE_BRANCHES and block.startswith("inception_"):
            modules[module] = f"{block.replace('_', '')}.{_CAFFE_BRANCHES[branch]}.conv"
    return _renamed(state, modules)


RULES: tuple[Callable[[State], State | None], ...] = (old_densenet, timm_vgg, padded_both_sides, caffe_googlenet)


def _renamed(state: State, modules: Mapping[str, str]) -> State:
    def rename(name: str) -> str:
        module, _, own = name.rpartition(".")
        return f"{modules.get(module, module)}.{own}"

    return {rename(name): tensor for name, tensor in state.items()}
