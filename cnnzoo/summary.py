"""The layer table of a net: output shapes, parameters, multiply-adds, activations, receptive fields, found by one pass
on the meta device.
"""

import copy
import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cnnzoo import zoo
from cnnzoo.checkpoint import Run
from cnnzoo.errors import InputError, dimensions
from cnnzoo.receptive_field import Field, Watch, pair, tensors
from cnnzoo.shown import Shown, Table

MOST = 100_000  # pixels of a side; torch cannot count the activations of very many more
_TEXTS = ("layer", "kind", "kernel", "output")
COLUMNS = (*_TEXTS, "params", "macs", "activations", "bytes", "receptive_field", "stride")


@dataclass(frozen=True)
class Row:
    """A layer in the table."""

    layer: str  # the submodule's name
    kind: str  # its class
    kernel: str  # of a convolution or a pooling, as papers write it: 11x11/4 pad 2 groups 2
    output: tuple[int, ...]  # of one image, without the batch
    params: int  # trainable
    macs: int  # multiply-adds of convolutions and products of matrices
    activations: int  # numbers in the output
    receptive_field: int | None  # pixels of the image's side that one place of the output sees; None: the whole image
    stride: int | None  # pixels of the image from one place to the next; None where the output has no places

    @property
    def bytes(self) -> int:
        """What the activations take as float32."""
        return 4 * self.activations


@dataclass(frozen=True)
class Summary(Shown):
    """Rows in the order in which the layers run. `str()` is a table, and a notebook shows one."""

    name: str
    input_size: tuple[int, int, int]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # on figures told elsewhere
    channels_last: bool = False  # outputs are printed HxWxC
    paper_names: Mapping[str, str] = field(default_factory=dict)  # to layers that are called otherwise

    @property
    def total(self) -> Row:
        """Sums of the columns; output, receptive field and stride are the last layer's."""
        rows = self.rows
        return replace(
            rows[-1],
            layer="total",
            kind="",
            kernel="",
            params=sum(row.params for row in rows),
            macs=sum(row.macs for row in rows),
            activations=sum(row.activations for row in rows),
        )

    def compact(self) -> "Summary":
        """The table as papers and lectures print it: the image first, then a row for each layer together with the
        BatchNorm, activation and dropout after it, whose outputs are counted once; outputs are HxWxC, and layers are
        called as in the paper, by names that `cnnzoo.visualize` takes, too.
        """
        if self.channels_last:
            return self
        rows = [Row("input", "", "", self.input_size, 0, 0, math.prod(self.input_size), 1, 1)]
        for row in self.rows:
            layer = rows[-1]
            is_behind = row.activations == layer.activations and row.receptive_field in (layer.receptive_field, None)
            if row.macs == 0 and is_behind:
                kind = layer.kind if row.kind in _IDLE else "+".join(filter(None, (layer.kind, row.kind)))
                rows[-1] = replace(layer, kind=kind, params=layer.params + row.params)
            else:
                rows.append(row)
        named = {layer: name for name, layer in self.paper_names.items()}
        rows = (replace(row, layer=named.get(row.layer, row.layer)) for row in rows)
        return replace(self, rows=tuple(rows), channels_last=True)

    @property
    def title(self) -> str:
        return f"{self.name}, input {self._size(self.input_size)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data: name, input size, the rows and their total as dictionaries, notes."""
        rows, total = [asdict(row) for row in self.rows], asdict(self.total)
        plain = {"name": self.name, "input_size": list(self.input_size), "rows": rows, "total": total}
        return plain | {"notes": list(self.notes)}

    def to_csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for row in (*self.rows, self.total):
            writer.writerow(self._cells(row, "{}"))
        return text.getvalue()

    def to_markdown(self) -> str:
        return self._table().to_markdown()

    def _repr_markdown_(self) -> str:
        return f"**{self.title}**\n\n{self.to_markdown()}"

    def _table(self) -> Table:
        *rows, total = (self._cells(row, "{:,}") for row in (*self.rows, self.total))
        return Table(COLUMNS, rows, _TEXTS, total, self.title, [f"Note: {note}." for note in self.notes])

    def _cells(self, row: Row, number: str) -> list[str]:
        counts = [number.format(count) for count in (row.params, row.macs, row.activations, row.bytes)]
        sees = "whole image" if row.receptive_field is None else number.format(row.receptive_field)
        stride = "" if row.stride is None else number.format(row.stride)
        return [row.layer, row.kind, row.kernel, self._size(row.output), *counts, sees, stride]

    def _size(self, shape: tuple[int, ...]) -> str:
        return dimensions((*shape[1:], shape[0]) if self.channels_last else shape)


# After another layer they change no number.
_IDLE = ("Dropout", "DropPath", "Identity", "NoHead", "GlobalPool", "Flatten")


def summary(
    model_or_name: nn.Module | Run | str | Path, input_size: int | tuple[int, int, int] | None = None
) -> Summary:
    """The layer table of a net, of a name in the registry or of a run's net, for one image of `input_size` (C, H, W),
    as in eval mode.

    None is that of the net's own preprocessing, which without weights is the registry's; a number is the side of a
    square. The net itself is left alone. A module that is made of others has a row where it has parameters or
    multiply-adds of its own, after theirs.

    Raises InputError for an unknown name, for a size that is none or that the net cannot take, for a net that is not of
    the registry without an `input_size`, and for one whose forward pass asks for values.
    """
    if isinstance(model_or_name, nn.Module):
        net = model_or_name
    elif run := zoo.find_run(model_or_name):
        net = zoo.load(run)
    else:
        with torch.device("meta"):
            net = zoo.create(os.fspath(model_or_name))
    entry, input_size = getattr(net, "entry", None), _input_size(net, input_size)
    try:
        net = _without_values(net).eval()
    except ValueError as error:  # of lazy layers, which torch explains at length
        raise InputError(f"{zoo.called(net)} has layers without sizes; give it an image first") from error
    image = torch.empty(1, *input_size, device="meta")
    watch, counter = Watch(image), FlopCounterMode(display=False)
    rows: list[Row] = []
    counted: set[int] = set()
    running = [0]  # operations of each module that runs, outermost first, without those of modules within it

    def take() -> None:
        """What was computed since the last time is the innermost one's."""
        running[-1] += counter.get_total_flops()
        counter.flop_counts.clear()

    def begin(module: nn.Module, args) -> None:
        take()
        running.append(0)

    def record(layer: str):
        def end(module: nn.Module, args, outputs) -> None:
            # Those of modules within it, too, that never run but are used, as in nn.MultiheadAttention.
            mine = {id(p): p for p in module.parameters() if id(p) in watch.taken}
            mine |= {id(p): p for p in module.parameters(recurse=False)}
            own = [p for key, p in mine.items() if p.requires_grad and key not in counted]
            counted.update(mine)
            take()
            flops = running.pop()
            output = next(tensors([outputs]), None)
            if output is not None and output.ndim and (own or flops or not any(module.children())):
                params = sum(p.numel() for p in own)
                rows.append(_row(layer, module, tuple(output.shape[1:]), params, flops // 2, watch.field(output)))

        return end

    for layer, module in net.named_modules():
        module.register_forward_pre_hook(begin)
        module.register_forward_hook(record(layer))
    with torch.no_grad(), counter, watch:
        try:
            net(image)
        except InputError:
            raise
        except Exception as error:  # a net of the user's own may do anything
            why = str(error).partition("\n")[0]
            told = f"{zoo.called(net)} cannot be followed without values, for an image of {dimensions(input_size)}"
            raise InputError(f"{told}: {why}") from error
    if entry is None:
        return Summary(type(net).__name__, input_size, tuple(rows))
    return Summary(entry.name, input_size, tuple(rows), entry.notes, paper_names=entry.paper_names)


def _without_values(net: nn.Module) -> nn.Module:
    """A copy on the meta device; unlike those that `to` moves there, tied weights stay tied, and plain tensors move."""
    plain = (value for module in net.modules() for value in vars(module).values() if isinstance(value, Tensor))
    empty = {id(tensor): tensor.detach().to("meta") for tensor in (*net.buffers(), *plain)}
    empty |= {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in net.parameters()}
    return copy.deepcopy(net, empty)


def _input_size(net: nn.Module, given: int | Sequence[int] | None) -> tuple[int, int, int]:
    """(C, H, W) of what `summary` was given. Raises InputError as it does."""
    if given is None:
        if not (hasattr(net, "entry") or hasattr(net, "preprocessing")):
            raise InputError("say for which input_size (C, H, W)")
        height, width, channels = zoo.preprocessing(net).shape
        return (channels, height, width)
    size = (getattr(net, "in_chans", 3), given, given) if isinstance(given, Integral) else given
    if not (isinstance(size, Sequence) and len(size) == 3 and all(map(_is_length, size))):
        raise InputError(f"input_size is {size!r}, but must be three whole numbers (C, H, W), or one: the side")
    if max(size) > MOST:
        raise InputError(f"input_size is {dimensions(size)}, but may have {MOST:,} pixels on a side at most")
    return tuple(size)


def _is_length(value: object) -> bool:
    return isinstance(value, Integral) and value > 0


def _row(layer: str, module: nn.Module, output: tuple[int, ...], params: int, macs: int, field: Field) -> Row:
    size, stride = max(field.size), max(field.stride)
    sees_all = math.isinf(size)
    return Row(
        layer,
        type(module).__name__,
        _kernel(module),
        output,
        params,
        # A layer that is not computed as it is meant says itself what it takes.
        module.multiply_adds(output) if hasattr(module, "multiply_adds") else macs,
        math.prod(output),
        receptive_field=None if sees_all else size,
        stride=None if sees_all or len(output) < 3 else stride,
    )


def _kernel(module: nn.Module) -> str:
    """The window that a convolution or a pooling slides over its input, as papers write it; "" of what has none."""
    if not hasattr(module, "kernel_size"):
        return ""
    text = dimensions(pair(module.kernel_size))
    for name, sign, usual in (
        ("stride", "/", 1),
        ("padding", " pad ", 0),
        ("dilation", " dilation ", 1),
        ("groups", " groups ", 1),
    ):
        value = getattr(module, name, usual)
        sides = value if isinstance(value, str) else dimensions(dict.fromkeys(pair(value)))  # "same" is a padding, too
        text += f"{sign}{sides}" if sides != str(usual) else ""
    return text
