"""A spiking network whose units hear each other's last spikes, as an outsider would write it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tdsnn.kernels.lif import LIFConfig
from tdsnn.models._base import Model
from tdsnn.models._neurons import LIF, State


class Recurrent(Model):
    """One hidden layer of LIF units, all connected to all."""

    def __init__(
        self, *, width: int = 8, num_classes: int = 10, in_channels: int = 2, pixels: int = 256
    ) -> None:
        super().__init__(
            architecture="recurrent",
            arguments={"width": width},
            timesteps=4,
            num_classes=num_classes,
            in_channels=in_channels,
            mean=[0.5] * in_channels,
            std=[0.1] * in_channels,
            sheet_sizes_mm={},
        )
        self.to_hidden = nn.Linear(in_channels * pixels, 8 * width)
        self.between_hidden = nn.Linear(8 * width, 8 * width)
        self.hidden = LIF(LIFConfig(decay_input=False))
        self.fc = nn.Linear(8 * width, num_classes)

    def encode(self, x: Tensor) -> Tensor:
        return self.to_hidden(super().encode(x).flatten(1))

    def init_state(self, encoded: Tensor) -> State:
        return {"spikes": encoded.new_zeros(len(encoded), self.fc.in_features)}

    def step(self, encoded: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        after = dict(state)
        current = encoded + 3 * self.between_hidden(state["spikes"])
        after["spikes"] = self.hidden(current[None], after, "hidden")[0]
        return self.fc(after["spikes"]), after
