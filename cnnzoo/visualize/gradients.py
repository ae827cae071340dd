"""Which pixels an answer rests on, by gradients of a class's logit, and by covering the image piece by piece.

Each function takes a net as `untouched` has it, images `(B, C, H, W)` float32 as the net wants them, and classes `(B,)`
int64, and gives maps `(B, H, W)` float32. What an image's map is does not depend on the other images of the batch.
"""

import torch
from torch import Tensor, nn

from cnnzoo.errors import InputError
from cnnzoo.visualize.rules import RELU, TANH, Ruled

AT_ONCE = 16  # images to a pass: more are no faster on a CPU
STEPS = (32, 64, 128, 256)  # of integrated gradients, one after the other until the sum is right
GAP = 0.05  # relative error of the sum that is small enough


def gradient(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """How much a pixel matters at all: the largest absolute gradient of its channels (Simonyan, Vedaldi, Zisserman:
    Deep Inside Convolutional Networks, 2013, arXiv 1312.6034, section 3.1).
    """
    return _strongest(_of_pixels(net, x, target))


def smoothgrad(net: nn.Module, x: Tensor, target: Tensor, samples: int = 25, noise: float = 0.15) -> Tensor:
    """The same of the mean gradient over `samples` images with noise, whose standard deviation is `noise` times the
    spread of the image's values (Smilkov, Thorat, Kim, Viégas, Wattenberg: SmoothGrad, 2017, arXiv 1706.03825, section
    3.2: 10 to 20 %, and little changes beyond 50 samples). The noise is always the same.
    """
    spread = noise * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
    generator = torch.Generator().manual_seed(0)  # on the CPU, so that every device sees the same
    total = torch.zeros_like(x)
    for _ in range(samples):
        draw = torch.randn(x.shape[1:], generator=generator, dtype=torch.float32).to(x.device)
        total += _of_pixels(net, x + spread * draw, target)
    return _strongest(total / samples)


def integrated(net: nn.Module, x: Tensor, target: Tensor, steps: int | None = None) -> Tensor:
    """What each pixel adds to the logit, on the way from an image of the mean colour (0 where the net's input is
    normalised) to this one; an image's map adds up to the difference of the two logits (Sundararajan, Taly, Yan:
    Axiomatic Attribution for Deep Networks, 2017, arXiv 1703.01365, section 3, which starts from black). The integral
    is by Gauss and Legendre's rule with so many `steps`; None takes 32, and of an image whose sum is off by more than
    5 %, as it may be where a net has many kinks, twice as many, up to 256 (section 5).
    """
    if steps is not None:
        return _integral(net, x, target, steps)
    with torch.no_grad():
        rise = (net(x) - net(torch.zeros_like(x))).gather(1, target[:, None])[:, 0]
    found, off = torch.empty_like(x[:, 0]), torch.ones_like(target, dtype=torch.bool)
    for steps in STEPS:
        found[off] = _integral(net, x[off], target[off], steps)
        off = (found.sum((1, 2)) - rise).abs() > GAP * rise.abs()
        if not off.any():
            break
    return found


def _integral(net: nn.Module, x: Tensor, target: Tensor, steps: int) -> Tensor:
    from captum.attr import IntegratedGradients  # here, since captum takes a while to import

    batch = max(AT_ONCE, len(x))
    found = IntegratedGradients(net).attribute(x, target=target, n_steps=steps, internal_batch_size=batch)
    return found.detach().sum(1)


def input_x_gradient(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """What each pixel adds to the logit, were the net linear: the sum over channels of input times gradient (Shrikumar,
    Greenside, Shcherbina, Kundaje: Not Just a Black Box, 2016, arXiv 1605.01713).
    """
    return (x * _of_pixels(net, x, target)).sum(1)


_GUIDED = {
    RELU: lambda signal, x: signal.relu() * (x > 0),
    TANH: lambda signal, x: signal.relu() * (1 - x.tanh().square()),
}


def guided(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """As `gradient`, but of the gradient only what is positive passes an activation (guided backpropagation:
    Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for Simplicity, 2014, arXiv 1412.6806, section 4). The rule is
    the paper's for ReLU, and here the same for tanh.

    Raises InputError for a net with neither, in which it would be the plain gradient.
    """
    with Ruled(_GUIDED) as ruled:
        found = _strongest(_of_pixels(net, x, target))
    if not ruled.met:
        raise InputError("this net has neither ReLU nor tanh, at which guided backpropagation differs; take saliency")
    return found


def can_guide(net: nn.Module, x: Tensor) -> bool:
    """Whether `guided` takes the net."""
    with Ruled(_GUIDED) as ruled, torch.no_grad():
        net(x[:1])
    return ruled.met


def occlusion(net: nn.Module, x: Tensor, target: Tensor, window: int | None = None) -> Tensor:
    """How far the logit falls where a square of the mean colour covers a pixel, the mean over all squares that do
    (Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, 2013, arXiv 1311.2901, section 4.2).

    The square has a side of `window` pixels, by default a seventh of the image's, and moves by half of that.
    """
    from captum.attr import Occlusion

    channels, height, width = x.shape[1:]
    window = window or max(1, min(height, width) // 7)
    stride = max(1, window // 2)
    found = Occlusion(net).attribute(
        x,
        (channels, window, window),
        strides=(channels, stride, stride),
        target=target,
        perturbations_per_eval=max(1, AT_ONCE // len(x)),
    )
    return found[:, 0].float()  # the channels were covered together, and so are alike


def _of_pixels(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """The gradient of each image's logit with respect to the image, `(B, C, H, W)`."""
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        logits = net(x).gather(1, target[:, None])
        return torch.autograd.grad(logits.sum(), x)[0]


def _strongest(gradient: Tensor) -> Tensor:
    return gradient.abs().amax(1)
