"""The layer table of a net: output shapes, parameters, multiply-adds, activations, found by one pass on the meta
device.
"""

import copy
import csv
import io
from dataclasses import astuple, dataclass, fields

import torch
from torch import nn

from cnnzoo import zoo
from cnnzoo.errors import InputError


@dataclass(frozen=True)
class Row:
    layer: str  # the submodule's name
    kind: str  # its class
    output: tuple[int, ...]  # of one image, without the batch
    params: int  # trainable
    macs: int  # multiply-adds of convolutions and linear layers
    activations: int  # numbers in the output


@dataclass(frozen=True)
class Summary:
    """Rows in the order in which the layers run. `str()` is a table."""

    name: str
    input_size: tuple[int, int, int]
    rows: tuple[Row, ...]

    @property
    def total(self) -> Row:
        """Sums of the columns; `output` is the last layer's."""
        rows = self.rows
        return Row(
            "total",
            "",
            rows[-1].output,
            sum(r.params for r in rows),
            sum(r.macs for r in rows),
            sum(r.activations for r in rows),
        )

    def __str__(self) -> str:
        table = [[field.name for field in fields(Row)], *(_cells(row) for row in (*self.rows, self.total))]
        widths = [max(len(cells[i]) for cells in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
            for cells in table
        ]
        rule = "-" * len(lines[0])
        size = "x".join(map(str, self.input_size))
        return "\n".join([f"{self.name}, input {size}", lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def to_csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(field.name for field in fields(Row))
        for row in (*self.rows, self.total):
            values = list(astuple(row))
            values[2] = _size(row.output)
            writer.writerow(values)
        return text.getvalue()

    def to_markdown(self) -> str:
        head = [field.name for field in fields(Row)]
        lines = [head, ["---"] * 3 + ["---:"] * 3, *(_cells(row) for row in (*self.rows, self.total))]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def summary(model_or_name: nn.Module | str, input_size: tuple[int, int, int] | None = None) -> Summary:
    """The layer table of a net, or of a name in the registry, for one image of `input_size` (C, H, W), as in eval mode.

    None is the registry's input size for the net. The net itself is left alone.
    """
    if isinstance(model_or_name, str):
        entry = zoo.info(model_or_name)
        with torch.device("meta"):
            net = zoo.create(model_or_name)
    else:
        net, entry = model_or_name, getattr(model_or_name, "entry", None)
    if input_size is None and entry is None:
        raise InputError("say for which input_size (C, H, W)")
    input_size = tuple(input_size or entry.input_size)
    net = copy.deepcopy(net).to("meta").eval()
    rows: list[Row] = []
    counted: set[int] = set()

    def record(layer: str):
        def hook(module: nn.Module, args, output: torch.Tensor) -> None:
            shape = tuple(output.shape[1:])
            own = [p for p in module.parameters(recurse=False) if p.requires_grad and id(p) not in counted]
            counted.update(map(id, own))
            rows.append(
                Row(
                    layer,
                    type(module).__name__,
                    shape,
                    sum(p.numel() for p in own),
                    _macs(module, shape),
                    output[0].numel(),
                )
            )

        return hook

    for layer, module in net.named_modules():
        if not any(module.children()):
            module.register_forward_hook(record(layer))
    with torch.no_grad():
        net(torch.empty(1, *input_size, device="meta"))
    return Summary(entry.name if entry else type(net).__name__, input_size, tuple(rows))


def _macs(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Every weight of a kernel or matrix is used once at each place of the output; vectors (BatchNorm and the like) do
    not count.
    """
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim < 2:
        return 0
    places = shape[1] * shape[2] if len(shape) == 3 else 1
    return weight.numel() * places


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _cells(row: Row) -> list[str]:
    return [row.layer, row.kind, _size(row.output), f"{row.params:,}", f"{row.macs:,}", f"{row.activations:,}"]
