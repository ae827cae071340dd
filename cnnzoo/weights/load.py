"""One loader for any file of weights: read, unwrap, fit to the net, report."""

import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnzoo.errors import InputError
from cnnzoo.registry import Entry
from cnnzoo.weights.table import Weights

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.", "model.")


@dataclass(frozen=True)
class LoadReport:
    """What became of a file's tensors."""

    loaded: tuple[str, ...]
    adapted: tuple[str, ...]  # the first convolution, to another number of channels
    initialised: tuple[str, ...]  # the head, where the number of classes differs

    def __str__(self) -> str:
        text = f"{len(self.loaded)} tensors loaded"
        if self.adapted:
            text += f", {', '.join(self.adapted)} adapted to the number of channels"
        if self.initialised:
            text += f", {', '.join(self.initialised)} left at random for the new classes"
        return text


def fetch(row: Weights) -> dict[str, Tensor]:
    """The tensors of a row: from torch hub's cache, or downloaded into it with a check of the hash."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        return torch.hub.load_state_dict_from_url(row.url, map_location="cpu", check_hash=True, weights_only=True)
    except RuntimeError as error:  # torch's word for a hash that does not match, and for a file cut short
        why = " ".join(str(error).split())
        raise InputError(f"{row.model} {row.tag}: {row.file} in {folder} is damaged ({why}); remove it") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise InputError(
            f"{row.model} {row.tag}: {row.file} is not in {folder} and could not be fetched ({error}); "
            f"fetch {row.url} elsewhere and put it there"
        ) from None


def unwrap(content: object, source: object) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, without the wrappers and prefixes that training scripts put around it."""
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise InputError(f"{source} holds no state dict")
    state = dict(content)
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def load_into(net: nn.Module, entry: Entry, state: Mapping[str, Tensor], source: object) -> LoadReport:
    """Fit a state dict to a net. The head may be of other classes, the first convolution of other channels; all else
    must match.

    Raises InputError that shows both sides, sorted, where it does not.
    """
    own, state = net.state_dict(), dict(state)
    adapted, initialised = [], []
    first = f"{entry.first_conv}.weight"
    for name in [name for name in state if name in own and state[name].shape != own[name].shape]:
        if name.startswith(f"{entry.head}."):
            initialised.append(name)
            del state[name]
        elif name == first and state[name].ndim == 4 and state[name].shape[2:] == own[name].shape[2:]:
            adapted.append(name)
            state[name] = adapt_channels(state[name], own[name].shape[1])
    for name in own:
        if name.endswith("num_batches_tracked") and name not in state:  # files from before PyTorch 0.4.1 lack them
            state[name] = torch.zeros_like(own[name], device="cpu")
    wrong = (own.keys() ^ state.keys()) - {*initialised}
    wrong |= {name for name in own.keys() & state.keys() if own[name].shape != state[name].shape}
    if wrong:
        wanted = [f"- {name} {tuple(own[name].shape)}" for name in sorted(wrong) if name in own]
        given = [f"+ {name} {tuple(state[name].shape)}" for name in sorted(wrong) if name in state]
        shown = wanted[:4] + given[:4]
        more = len(wanted) + len(given) - len(shown)
        raise InputError(
            f"{source} does not hold weights of {entry.name} (- wanted, + in the file): "
            f"{', '.join(shown)}{f' and {more} more' if more else ''}"
        )
    device = torch.get_default_device()
    state = {name: tensor.to(device, own[name].dtype) for name, tensor in state.items()}
    net.load_state_dict(state, strict=False, assign=True)
    return LoadReport(
        tuple(name for name in own if name not in {*adapted, *initialised}), tuple(adapted), tuple(initialised)
    )


def adapt_channels(kernel: Tensor, channels: int) -> Tensor:
    """`(O, C, k, k)` to `(O, channels, k, k)`: summed for one channel, else repeated and scaled to the same overall
    strength.
    """
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    given = kernel.shape[1]
    return kernel.repeat(1, -(-channels // given), 1, 1)[:, :channels] * (given / channels)
