"""Local response normalisation, for AlexNet and the first GoogLeNet."""

import torch
from torch import Tensor, nn
from torch.overrides import wrap_torch_function


@wrap_torch_function(lambda x, *figures: (x,))  # so that rules of gradients and torch.fx see it as one function
def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """What `torch.nn.functional.local_response_norm` computes, of maps `(B, C, H, W)`.

    There the squares are averaged over neighbouring channels by a pooling in 3D, which was most of GoogLeNet's step on
    a CPU in bf16. A convolution by a band matrix adds them up sooner.
    """
    channels, like = int(x.shape[1]), {"dtype": x.dtype, "device": x.device}
    # fp16 holds no squares of numbers above 256; a power of two rounds nothing.
    small, scale = (x * 2**-8, 2**16) if x.dtype == torch.float16 else (x, 1)
    band = torch.ones(channels, channels, **like).triu(-(size // 2)).tril((size - 1) // 2) * (alpha / size * scale)
    sums = nn.functional.conv2d(small * small, band[:, :, None, None], torch.full((channels,), k, **like))
    if beta != 0.75:
        return x * sums**-beta
    # A power takes ten times as long as two roots; a division by them made GoogLeNet's layers, fused in bf16 on a CPU,
    # answer 0.7 times as many photos.
    root = sums.rsqrt()
    return x * (root * root.sqrt())


class LocalResponseNorm(nn.LocalResponseNorm):
    """Maps `(B, C, H, W)` over a power of the squares of their neighbours along C: Krizhevsky, Sutskever, Hinton,
    NIPS 2012, section 3.3. As in PyTorch and Caffe, `alpha` is divided by `size`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def multiply_adds(self, output: Tensor) -> int:
        return 0  # tables of nets count none here, and it has no filters to learn
