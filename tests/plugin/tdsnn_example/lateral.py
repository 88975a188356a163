"""A spiking network whose units hear the last spikes of their neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tdsnn.models import LIF, LIFConfig, Model, SheetSpec, State


class Lateral(Model):
    """One layer of LIF units on a sheet, tokens with input from the image and from the tokens around them."""

    def __init__(
        self,
        *,
        width: int = 8,
        timesteps: int = 4,
        num_classes: int = 10,
        in_channels: int = 1,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.25,),
    ) -> None:
        arguments = {"width": width, "timesteps": timesteps, "num_classes": num_classes}
        arguments |= {"in_channels": in_channels, "mean": list(mean), "std": list(std)}
        super().__init__(
            architecture="lateral",
            arguments=arguments,
            timesteps=timesteps,
            num_classes=num_classes,
            in_channels=in_channels,
            mean=mean,
            std=std,
            sheet_specs=[SheetSpec("hidden", 4.0, "tokens")],
        )
        self.from_image = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.from_neighbours = nn.Conv2d(width, width, 3, padding=1)
        self.hidden = LIF(LIFConfig(decay_input=False))
        self.classify = nn.Linear(width, num_classes)

    def encode(self, x: Tensor) -> Tensor:
        return self.norm(self.from_image(super().encode(x)))

    def init_state(self, encoded: Tensor) -> State:
        return {"spikes": encoded.new_zeros(encoded.shape)}

    def step(self, encoded: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        after = dict(state)
        current = encoded + self.from_neighbours(state["spikes"])
        tokens = self.hidden(current.flatten(2).mT[None], after, "hidden")[0]
        after["spikes"] = tokens.mT.unflatten(2, encoded.shape[2:])
        return self.classify(tokens.mean(1)), after
