"""The fast path of a trained net: the same answers, sooner. What it gives is checked against the plain net."""

import contextlib
import copy
import functools
import math
import os
import threading
import time
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from cnnzoo.device import BF16_GAIN, autocast, device_of, layout_on, pick_precision
from cnnzoo.errors import InputError, dimensions, expect, unknown
from cnnzoo.inference import forms, quantize
from cnnzoo.inference.cuda_graphs import Forward, Replayed
from cnnzoo.inference.fused import Fused

FEW = 100  # images that the plain net has answered before its fast form would be ready
# How far fast outputs may be from the plain net's: as a share of the largest one; in int8 the root mean square of it,
# as a share of their standard deviation.
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2, "int8": 0.3}
BATCH = 16  # images that int8 is compared with the plain net on at a time
PLANNED = 32  # images at most for which a form makes its plan on trial, rather than for a few
SIZES = 8  # image sizes that get fast forms, of which each holds the weights once more; others get the plain net
BRIEF = 2.0  # seconds that the images take in fp32 on a CPU, below which trying bf16 costs what it would spare
TF32 = 5e-3  # tolerance in fp32 on CUDA, whose convolutions have 10 bits of fraction unless torch is told otherwise


@functools.cache
def _count_fused_steps() -> None:
    """From now on weights count the steps of fused optimisers as changes, as torch has them count all others."""

    def count(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for weight in (weight for group in optimizer.param_groups if group.get("fused") for weight in group["params"]):
            if weight.grad is not None:
                torch.autograd.graph.increment_version(weight)

    register_optimizer_step_post_hook(count)


class Optimized(nn.Module):
    """A net in eval mode that answers faster: `(B, C, H, W)` float32 in, `(B, K)` float32 out, no gradients; a list of
    float32 maps where the net gives one, as with `features_only`.

    On a CPU onnxruntime does the work in fp32 and int8, which fuses layers and lays weights out for the processor;
    elsewhere a copy does whose weights are converted once, BatchNorm folded into convolutions, channels-last. In bf16
    on a CPU both are tried, the copy with its layers fused, since some processors multiply in it twice as fast as
    in fp32 and others (Sapphire Rapids without AMX) no faster; bf16 must be clearly ahead, so that a photo asked for
    twice gets the same answer. The first images of each size are given to the plain net as well; it does the work where
    it is faster, or where the others do not agree with it.

    Threads may share it: the first to come with a size chooses, and others wait for that. What is chosen is a process's
    own, and goes when the net's weights change, or move to another device; so copies and forked processes choose anew.
    """

    def __init__(self, net: nn.Module, precision: str, compiled: bool = False, settles: bool = False):
        super().__init__()
        self.net = net.eval()
        self.precision, self.compiled, self.settles = precision, compiled, settles
        self.to_come = math.inf  # images, as far as is known
        self.agreement: float | None = None  # in int8: share of the calibration images that get the plain net's class
        self._in_8_bits: dict[tuple[int, ...], bytes] = {}  # graphs, by the size of images
        self._gives_several = False
        for name in ("preprocessing", "classes", "num_classes", "temperature", "entry"):
            if hasattr(net, name):
                setattr(self, name, getattr(net, name))
        self.eval()
        self._begin()

    def train(self, mode: bool = True) -> "Optimized":
        return super().train(False)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._by_size: dict[tuple[int, ...], Forward] = {}
        self._look_at_weights()

    def _look_at_weights(self) -> None:
        _count_fused_steps()
        self._places = [own for part in self.net.modules() for own in (part._parameters, part._buffers) if own]
        self._weights = self._tensors()  # kept, so that none that takes the place of one can have its memory
        self._standing = self._stands()

    def _tensors(self) -> list[Tensor]:
        return [tensor for own in self._places for tensor in own.values() if tensor is not None]

    def _stands(self) -> tuple:
        """What a choice was made for, and ends with: this process, the net's mode, and the values of its weights."""
        values = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in self._tensors()]
        return os.getpid(), self.net.training, values

    def __getstate__(self) -> dict:
        """What copies and pickles have of it, which is neither locks nor functions."""
        own = ("_lock", "_by_size", "_places", "_weights", "_standing")
        return {k: v for k, v in vars(self).items() if k not in own}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._begin()

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        if x.dtype != torch.float32:
            raise InputError(f"images are {x.dtype}, but must be torch.float32, as the net's preprocessing gives them")
        size = tuple(x.shape[1:])
        # Looked up after that is known: another thread may see meanwhile that the weights have changed.
        run = self._by_size.get(size) if self._standing == self._stands() else None
        with autocast(x.device, "fp32"):  # the precision is the net's own, whatever it is asked within
            if run is None:
                with self._lock:
                    run = self._chosen(size, x)
            answers = run(x)
        return answers if self._gives_several else answers[0]

    def _chosen(self, size: tuple[int, ...], x: Tensor) -> Forward:
        """How images of this size are answered: known, or chosen now. One thread at a time."""
        if self._standing != (now := self._stands()):
            if self._standing[-1] != now[-1]:
                self._in_8_bits = {}
            self._by_size = {}
            self._look_at_weights()
        if size in self._by_size:
            return self._by_size[size]
        if self.precision == "int8":
            run = self._from_8_bits(size)
        else:
            # It may be in training, which is not to be disturbed: a copy answers, without dropout.
            is_trained = any(module.training for module in self.net.modules())
            net = copy.deepcopy(self.net).eval() if is_trained else self.net
            if len(self._by_size) == SIZES or not len(x):  # by no images no form is told from another
                return functools.partial(self._answers, net)
            run = self._fastest(net, x)
        self._by_size[size] = run
        return run

    def _from_8_bits(self, size: tuple[int, ...]) -> Forward:
        if not self._in_8_bits:
            raise InputError("the net's weights have changed since int8 was calibrated; optimise it anew")
        if size not in self._in_8_bits:
            calibrated = " or ".join(map(dimensions, self._in_8_bits))
            raise InputError(f"int8 was calibrated on images of {calibrated}, but is given {dimensions(size)}")
        return forms.session(self._in_8_bits[size], in_8_bits=True)

    def _answers(self, net: nn.Module, images: Tensor) -> list[Tensor]:
        answers = net(images.contiguous(memory_format=layout_on(images.device)))
        self._gives_several = not isinstance(answers, Tensor)
        return forms.floats(answers)

    def _fastest(self, net: nn.Module, images: Tensor) -> Forward:
        """The fastest of the plain net and of those forms of it for images of this size that agree with it."""
        on_cpu = images.device.type == "cpu"
        # On a CPU a few images tell which form is fastest; on a GPU they tell how fast kernels are launched.
        few = images[:4] if on_cpu else images
        plain, started = forms.plain(net), time.perf_counter()
        wanted = self._answers(net, few)
        took = (time.perf_counter() - started) / len(few)
        in_tf32 = self.precision == "fp32" and images.device.type == "cuda"
        share = TF32 if in_tf32 else TOLERANCE[self.precision]
        allowed = [share * max(answer.abs().max().item(), 1.0) for answer in wanted]
        shown = images if len(images) <= PLANNED else few  # so that a plan in 16 bits is made for all of them
        # A graph may take the number of images for fixed: of one more than threads, one of these gets two.
        other = [0] * (torch.get_num_threads() + 1)
        at_once, in_a_graph = [(shown, wanted)], [(few, wanted), (few[other], [answer[other] for answer in wanted])]
        agreeing = {plain: torch.float32}

        def agrees(run: Forward, part: Tensor, answers: list[Tensor]) -> bool:
            """Whether it gives these answers to the first of the images."""
            triples = zip(run(part), answers, allowed, strict=True)
            # No comparison with NaN is true, so that a form which gives any is passed over.
            return all((given[: len(own)] - own).abs().max().item() <= most for given, own, most in triples)

        @functools.cache
        def needed(run: Forward) -> float:
            """Seconds for an image, as they count."""
            on_trial = on_cpu and agreeing[run] != torch.float32
            sample = shown if on_trial else few
            return forms.timed(run, sample) / len(sample) * (BF16_GAIN if on_trial else 1)

        for run, dtype in self._forms(net, images):
            trials = in_a_graph if on_cpu and dtype == torch.float32 else at_once
            with contextlib.suppress(Exception):  # what does not compile, has no kernel in 16 bits, or fails in a graph
                if all(agrees(run, *trial) for trial in trials):
                    agreeing[run] = dtype
            if on_cpu and run in agreeing and (dtype != torch.float32 or needed(run) * self.to_come < BRIEF):
                break

        others = [run for run in agreeing if run is not plain]
        fastest = min(others, key=needed, default=plain)
        if fastest is not plain and took < 2 * needed(fastest):  # or it need not be timed
            fastest = min(plain, fastest, key=needed)
        if not self.settles or agreeing[fastest] == torch.float32:
            return fastest
        return forms.settled(fastest, next((run for run in others if agreeing[run] == torch.float32), plain))

    def _forms(self, net: nn.Module, images: Tensor) -> Iterator[tuple[Forward, torch.dtype]]:
        """The functions to choose from, and what each computes in; on a CPU that in fp32 first."""
        kind = images.device.type
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        if kind == "cpu":
            if graph := forms.exported(net, images[:1]):
                yield forms.session(graph), torch.float32
            if dtype == torch.float32:
                return
        fast = forms.converted(net, dtype)
        # Traced, what torch.fx cannot follow may do for all images what it did for the first.
        fuses = kind == "cpu" and isinstance(fast, fx.GraphModule)
        for net in (Fused(fast), fast) if fuses else (fast,):  # the slower one if that fails
            run = forms.floats_of(net, dtype, layout_on(images.device))
            if kind == "cuda":
                run = torch.compile(run) if self.compiled else Replayed(run)
            yield run, dtype

    @torch.inference_mode()
    def calibrate(self, images: Tensor) -> None:
        """Make the int8 form for images of this size, and tell how far it agrees with the plain net."""
        if len(self._answers(self.net, images[:1])) > 1:
            raise InputError("this net gives several answers to an image, and int8 is for one; take precision fp32")
        graph = forms.exported(self.net, images[:1])
        if graph is None:
            raise InputError("this net cannot be exported to ONNX, which int8 needs; take precision fp32")
        graph = quantize.quantized(graph, images)
        runs = (forms.plain(self.net), forms.session(graph, in_8_bits=True))
        wanted, given = (torch.cat([run(part)[0] for part in images.split(BATCH)]) for run in runs)
        self.agreement = (wanted.argmax(1) == given.argmax(1)).double().mean().item()
        error = ((given - wanted).square().mean().sqrt() / wanted.std().clamp(min=1e-12)).item()
        if not error <= TOLERANCE["int8"]:
            raise InputError(
                f"in int8 this net answers too differently: by {error:.0%} of its outputs' deviation, where "
                f"{TOLERANCE['int8']:.0%} are allowed, and with another class for {1 - self.agreement:.1%} of the "
                f"images; take precision fp32"
            )
        self._in_8_bits[tuple(images.shape[1:])] = graph


def optimize(
    model: nn.Module, precision: str = "auto", *, calibration: Tensor | None = None, compile: bool = False
) -> nn.Module:
    """The fast inference form of a net, on the net's own device.

    Args:
        model: a net that takes `(B, C, H, W)` float32; it is put into eval mode and otherwise left alone. One that is
            optimised already is returned as it is.
        precision: fp32, bf16, fp16, int8, or auto: bf16 where the processor computes in it, else fp32. Of images whose
            two likeliest classes are too close for bf16 to tell, auto gives fp32's answer. Asked for bf16, a
            CPU answers in fp32 unless bf16 is clearly faster. In fp32 outputs agree within 1e-4 of the largest
            one (on CUDA, which computes in TF32, within 5e-3), in bf16 within 5e-2; where they do not, the plain net
            answers. int8 is for CPUs, and told by its mean deviation, see `calibration`.
        calibration: for int8, a hundred images or more, `(N, C, H, W)` float32 as the net sees them; they need no
            labels, but must be of all the kinds to come: calibrated on flowers alone, GoogLeNet loses 13 points on
            other photos. What each layer makes of them sets the range of its 8 bits (Jacob et al.: Quantization and
            Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR 2018, section 2).
        compile: on CUDA, through torch.compile, which takes about a minute for each size and so pays for many
            thousands of images.

    Returns:
        A module for the same images and the same float32 outputs, without gradients, with the net's
        `preprocessing`, `classes` and `num_classes`; in int8 with `agreement`, the share of the calibration images for
        which it names the plain net's class, and for images of their size alone. Threads may share it, and it may be
        copied and pickled. When the net's weights change, by training or from a file, so do its answers; in int8 it
        refuses then. Layers that are replaced by others it does not see, nor what is written into a weight's `.data`:
        optimise the net anew.

    Raises:
        InputError: for an unknown precision, or another than that of a net optimised already; for a net without
            weights, or not in float32; for int8 without calibration, without the onnx library, on another device than
            a CPU, or if it deviates by more than 0.3 of the outputs' standard deviation.
    """
    expect(model, nn.Module, "a net is wanted, such as cnnzoo.load gives of a run")
    if precision not in ("auto", *TOLERANCE):
        raise unknown("precision", precision, ("auto", *TOLERANCE))
    if isinstance(model, Optimized):
        if precision not in ("auto", model.precision):
            was = f"the net was optimised for {model.precision}"
            raise InputError(f"{was}; give the plain net for precision {precision}")
        return model
    kinds = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()}
    kinds -= {"float32"}
    if kinds:
        raise InputError(f"the net is in {min(kinds)}; give net.float(), and what it is to compute in as precision")
    if not any(True for _ in model.parameters()):
        raise InputError(f"{type(model).__name__} has no weights, so there is nothing to optimise")
    if (precision == "int8") != (calibration is not None):
        raise InputError(
            "precision int8 needs calibration: a hundred images or more like those to come, (N, C, H, W) float32 as "
            "the net sees them"
            if precision == "int8"
            else f"calibration is for precision int8, not for {precision}"
        )
    if calibration is not None:
        _check_calibration(calibration)
    device = device_of(model)
    settles = precision == "auto"
    if settles:
        precision = pick_precision("auto", device)
    fast = Optimized(model, precision, compile, settles)
    if precision == "int8":
        if device.type != "cpu":
            raise InputError(f"int8 runs on a CPU, but the net is on {device}; take bf16, or the device cpu")
        with autocast(device, "fp32"):
            fast.calibrate(calibration)
    return fast


def _check_calibration(images: Tensor) -> None:
    expect(images, Tensor, "calibration is a tensor of images (N, C, H, W)")
    if images.ndim != 4 or not len(images):
        raise InputError(f"calibration is {tuple(images.shape)}, but must be images (N, C, H, W)")
    if images.dtype != torch.float32:
        raise InputError(f"calibration is {images.dtype}, but must be torch.float32, as the net sees images")
    if not images.isfinite().all():
        raise InputError("calibration holds numbers that are not finite (NaN or inf)")
