"""The fully connected baseline that lectures contrast with convolutional nets.

Layer sizes are those of the 300-100-10 net in LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to
Document Recognition, Proceedings of the IEEE 86(11), 1998, section III.C. B = batch.

    layer   output   parameters
    input   28x28
    fc1     300         235,500
    fc2     100          30,100
    fc3     10            1,010
"""

from torch import Tensor, nn

from cnnzoo.errors import at_least
from cnnzoo.models._base import Net
from cnnzoo.registry import Stage, register


class MLP(Net):
    """Two hidden layers on the flattened image, which must be `image_size` x `image_size`."""

    head_name = "fc3"

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        drop_rate: float = 0.0,
        image_size: int = 28,
        hidden: tuple[int, int] = (300, 100),
    ):
        super().__init__()
        at_least("image_size", image_size)
        for width in hidden:
            at_least("each of hidden", width)
        self.in_chans = in_chans
        self.image_size = self.min_size = image_size
        self.fc1 = nn.Linear(in_chans * image_size**2, hidden[0])
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(hidden[0], hidden[1])
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(drop_rate)
        self.fc3 = nn.Linear(hidden[1], num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.relu1(self.fc1(x.flatten(1)))  # (B, 300)
        x = self.relu2(self.fc2(x))  # (B, 100)
        return x[:, :, None, None]  # (B, 100, 1, 1)

    def forward_head(self, f: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.dropout(f.flatten(1))
        return x if pre_logits else self.fc3(x)


register(
    "mlp",
    paper="LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, "
    "Proc. IEEE 86(11), 1998, section III.C",
    year=1998,
    input_size=(1, 28, 28),
    num_classes=10,
    params=266_610,
    macs=266_200,
    min_size=28,
    stages=(Stage("stage1", ("fc1", "relu1"), (300,)), Stage("stage2", ("fc2", "relu2"), (100,))),
    first_conv="fc1",
    differences=("ReLU and softmax with cross-entropy instead of the scaled tanh and the squared error of 1998",),
)(MLP)
