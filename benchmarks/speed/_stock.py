"""The stock path: SpikingJelly's own spiking ResNet-18 with its own layers."""

from __future__ import annotations

from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import spiking_resnet
from torch import Tensor, nn


class Stock(nn.Module):
    """SpikingJelly's ``spiking_resnet18`` with a CIFAR stem, as its tutorials use it.

    Multi-step LIF neurons, ATan surrogate, detached reset; the image is repeated T times, the logits are
    averaged over time and the state is reset in every call. The library fixes the first stage at 64 channels,
    so the stages are made anew by its own methods.

    Args:
        width: channels of the first stage.
        timesteps: T.
    """

    def __init__(self, *, width: int, timesteps: int = 4, num_classes: int = 10) -> None:
        super().__init__()
        self.timesteps = timesteps
        settings = {
            "spiking_neuron": neuron.LIFNode,
            "surrogate_function": surrogate.ATan(),
            "detach_reset": True,
        }
        net = spiking_resnet.spiking_resnet18(**settings)
        net.inplanes = width
        net.conv1 = layer.Conv2d(3, width, 3, 1, 1, bias=False)
        net.bn1 = layer.BatchNorm2d(width)
        net.maxpool = nn.Identity()
        for stage in range(4):
            blocks = net._make_layer(
                spiking_resnet.BasicBlock, width * 2**stage, 2, stride=min(stage, 1) + 1, **settings
            )
            setattr(net, f"layer{stage + 1}", blocks)
        net.fc = layer.Linear(8 * width, num_classes)
        functional.set_step_mode(net, "m")
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, 3, H, W)."""
        functional.reset_net(self.net)
        logits: Tensor = self.net(x.unsqueeze(0).repeat(self.timesteps, 1, 1, 1, 1)).mean(0)
        return logits
