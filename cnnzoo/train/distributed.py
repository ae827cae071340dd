"""A team of processes that train one net together, each on its share of every batch. torchrun starts them.

Every function here does nothing, or gives back what it was given, where the team is one process.
"""

import inspect
import json
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP

from cnnzoo.device import pick_device
from cnnzoo.errors import InputError, counted, quoted

# Each process keeps statistics of its own until an epoch ends; newer torch has a new name for the option.
_HAS_NEW_NAME = "forward_sync_buffers" in inspect.signature(DDP).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if _HAS_NEW_NAME else "broadcast_buffers"
MEETING = 0.02  # seconds between two looks for processes that have come
LETTING_GO = 0.2  # seconds in which gloo's threads free what they held
PATIENCE = timedelta(hours=2)  # that processes wait for the one that decodes, or that fits a probe


class Team:
    """This process's place among all of them."""

    def __init__(self, rank: int = 0, size: int = 1, host: dist.ProcessGroup | None = None):
        self.rank, self.size = rank, size
        self._host = host  # for what is agreed on without waiting for a device

    @property
    def is_first(self) -> bool:
        """Whether this one speaks and writes for all."""
        return self.rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any process raises it."""
        if self.size == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised, dist.ReduceOp.MAX, self._host)
        return tuple(map(bool, raised.tolist()))

    def mean(self, value: float) -> float:
        """The mean of the values that the processes have."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total, group=self._host)
        return total.item() / self.size

    def gather(self, rows: Tensor) -> Tensor:
        """`(N, …)` on the CPU: the rows of all processes, which may have different numbers of them, in order."""
        if self.size == 1:
            return rows
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(rows)]), self._host)
        longest = int(max(counts))
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.zeros_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded, self._host)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])

    def gather_lines(self, lines: list[str]) -> list[str]:
        """The lines of all processes."""
        if self.size == 1:
            return lines
        parts: list[list[str]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, lines, self._host)
        return [line for part in parts for line in part]

    def expect_alike(self, mine: Mapping[str, object]) -> None:
        """Raises InputError, in every process, where one of them does not begin as the first does: they would wait for
        each other in vain, or train by different rates. `mine` is what this process has, the most telling first.
        """
        if self.size == 1:
            return
        lines = self.gather_lines([json.dumps([platform.node(), {key: str(value) for key, value in mine.items()}])])
        (host, first), *others = map(json.loads, lines)
        for number, (place, other) in enumerate(others, 1):
            for key, here in first.items():
                if (there := other.get(key)) != here:
                    raise InputError(
                        f"process {number}, on {place}, differs from the first, on {host}: {key} is {there} there and "
                        f"{here} here; give all the same line, versions, run folder and images"
                    )

    @contextmanager
    def one_after_another(self) -> Iterator[None]:
        """The first process goes ahead, and the others find what it has left on the disk."""
        if not self.is_first:
            self.wait()
        try:
            yield
        finally:
            if self.is_first:
                self.wait()

    def wait(self) -> None:
        """Wait for all the others to get here."""
        if self.size > 1:
            dist.barrier(self._host)

    def wrap(self, model: nn.Module, forward: Callable, find_unused: bool = False) -> Callable:
        """`forward`, a form of the model, so that gradients are the mean over the processes. With `find_unused` nobody
        waits for those of layers that a step leaves out.
        """
        if self.size == 1:
            return forward
        module = forward if isinstance(forward, nn.Module) else model
        options = {"find_unused_parameters": find_unused, _SYNC_BUFFERS: False}
        return DDP(module, gradient_as_bucket_view=True, **options)

    def average(self, values: list[Tensor]) -> None:
        """Tensors, of which each process has its own values, become the mean of all."""
        if self.size == 1 or not values:
            return
        flat = torch.cat([value.reshape(-1).float() for value in values])
        dist.all_reduce(flat)
        parts = (flat / self.size).split([value.numel() for value in values])
        torch._foreach_copy_(values, [part.view_as(value) for part, value in zip(parts, values, strict=True)])


def gathers_gradients(forward: Callable, last: bool) -> AbstractContextManager:
    """The context of a part of a batch: processes exchange gradients at the last part only.

    Raises InputError if the step before left out parameters, and nobody had said that it may.
    """
    return _gathering(forward, last) if isinstance(forward, DDP) else nullcontext()


@contextmanager
def _gathering(forward: DDP, last: bool) -> Iterator[None]:
    with nullcontext() if last else forward.no_sync():
        try:
            yield
        except RuntimeError as error:
            if "find_unused_parameters" not in str(error):
                raise
            what = "a step left out some of the net's parameters, for whose gradients each process waits"
            raise InputError(f"{what}; set train.find_unused_parameters true") from None


@contextmanager
def joined(device: str) -> Iterator[tuple[Team, torch.device]]:
    """The team that torchrun started this process for, and its device; a team of one without torchrun.

    Raises InputError if there are fewer GPUs than processes on this machine, where something else than torchrun has set
    WORLD_SIZE, and if some of the processes do not come.
    """
    size, local, many = _place()
    if size == 1:
        yield Team(), pick_device(device)
        return
    place = _device(device, local, many)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    try:
        store, rank, _ = next(dist.rendezvous("env://", timeout=PATIENCE))
        if isinstance(store, dist.PrefixStore):  # by the restarts that this machine has counted, others may have others
            store = store.underlying_store
        store = dist.PrefixStore(_name_of_team(store, rank, size), store)
    except dist.DistError as error:
        raise InputError(f"the {size} processes of the team did not meet within {PATIENCE}: {quoted(error)}") from None
    backend = "nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        host = dist.new_group(backend="gloo", timeout=PATIENCE) if place.type == "cuda" else None
        yield Team(dist.get_rank(), size, host), place
    finally:
        # torch 2.6 holds Python's lock while it waits for gloo's threads to end, and these want it to free the last
        # tensors that Python made: both would wait for ever.
        time.sleep(LETTING_GO)
        dist.destroy_process_group()


def _name_of_team(store: dist.Store, rank: int, size: int) -> str:
    """A name on which exactly the processes agree that meet now.

    torchrun's store outlives a team, be it one that has lost a process or a fold's, and would lead to the addresses of
    processes that are gone. What these have left there nobody waits for, as each asks by a name of its own.
    """
    own, limit = uuid.uuid4().hex, time.monotonic() + PATIENCE.total_seconds()
    if rank:
        store.set(f"asks {rank}", own)
        name = store.get(own).decode()
        store.add(f"knows {name}", 1)
        return name
    while (known := store.add(f"knows {own}", 0)) < size - 1:
        if time.monotonic() > limit:
            raise dist.DistStoreError(f"only {known + 1} of {size} came")
        for asking in (f"asks {other}" for other in range(1, size)):
            if store.check([asking]):
                store.set(store.get(asking).decode(), own)
        time.sleep(MEETING)
    return own


def size() -> int:
    """How many processes torchrun started, this one among them. Raises InputError as `joined` does."""
    return _place()[0]


def _place() -> tuple[int, int, int]:
    """How many processes there are, which of those on this machine (from 0) this one is, and how many these are."""
    size, numbers = os.environ.get("WORLD_SIZE", "1"), ("RANK", "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if size == "1":
        return 1, 0, 1
    try:
        _ = os.environ["MASTER_ADDR"]  # a name, which torch would miss with a traceback
        size, _, _, local, many = (int(os.environ[name]) for name in ("WORLD_SIZE", *numbers))
        return size, local, many
    except (KeyError, ValueError):
        beside = f"{', '.join(numbers[:-1])} and {numbers[-1]}"
        raise InputError(
            f"WORLD_SIZE is {quoted(size)}, but there are not MASTER_ADDR and the whole numbers {beside} that "
            f"torchrun sets beside it; start the processes by torchrun, or take WORLD_SIZE out of the environment"
        ) from None


def _device(name: str, local: int, many: int) -> torch.device:
    """The device of this process: of several on a machine each has a GPU to itself, or all share the CPU."""
    gpus = torch.cuda.device_count()
    if name not in ("auto", "cuda", "cpu"):
        raise InputError(f"train.device is {name}, but each of {many} processes needs a device of its own; say auto")
    if name == "cpu" or (name == "auto" and not gpus):
        return torch.device("cpu")
    if many > gpus:
        fewer = f"--nproc-per-node {gpus}, or " if gpus else ""
        raise InputError(
            f"torchrun started {many} processes on this machine, which has {counted(gpus, 'GPU')}; "
            f"take {fewer}--train.device cpu"
        )
    return torch.device("cuda", local)
