"""The skip network in PyTorch, written from its layer table: what parity is measured against."""

from typing import Any

import torch
from torch import nn


def layer(before: int, after: int, size: int, stride: int = 1) -> nn.Sequential:
    """Reflected border, convolution, normalisation, leaky ReLU."""
    border = [nn.ReflectionPad2d(size // 2)] if size > 1 else []
    return nn.Sequential(*border, nn.Conv2d(before, after, size, stride), nn.BatchNorm2d(after), nn.LeakyReLU(0.2))


class Scale(nn.Module):
    """One scale and all coarser ones."""

    def __init__(self, before: int, channels: int, skip: int, scales: int) -> None:
        super().__init__()
        self.skip = layer(before, skip, 1)
        self.down = layer(before, channels, 3, 2)
        self.deep = layer(channels, channels, 3)
        self.inner = Scale(channels, channels, skip, scales - 1) if scales > 1 else nn.Identity()
        self.joined = nn.BatchNorm2d(channels + skip)
        self.merge = layer(channels + skip, channels, 3)
        self.mix = layer(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deep = self.inner(self.deep(self.down(x)))
        deep = nn.functional.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=False)
        joined = torch.cat([self.skip(x), deep[:, :, : x.shape[2], : x.shape[3]]], 1)
        return self.mix(self.merge(self.joined(joined)))


class Twin(nn.Module):
    """Noise [N, C, H, W] to a picture [N, 3, H, W].

    With ``residual`` the first three channels of the noise are a picture, centered and scaled, which is added.
    """

    def __init__(
        self,
        channels: int = 128,
        scales: int = 5,
        skip: int = 4,
        inputs: int = 32,
        seed: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.residual = residual
        self.scale = Scale(inputs, channels, skip, scales)
        self.out = nn.Conv2d(channels, 3, 1)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):  # nothing at its neutral value
                nn.init.uniform_(module.weight, 0.7, 1.4)
                nn.init.normal_(module.bias, 0, 0.3)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        drawn = self.out(self.scale(noise))
        if self.residual:
            planes = noise[:, :3] / torch.tensor([4.0, 8.0, 8.0], dtype=noise.dtype)[:, None, None] + 0.5
            drawn = drawn + torch.logit(planes, eps=0.01)
        return torch.sigmoid(drawn)

    def layers(self) -> dict[str, nn.Module]:
        """The layers under the names that they have in the Flax module."""
        named: dict[str, nn.Module] = {"out": self.out}
        scale, level = self.scale, 0
        while isinstance(scale, Scale):
            for name in ("skip", "down", "deep", "merge", "mix"):
                convolution, norm, _ = list(getattr(scale, name))[-3:]
                named |= {f"{name}{level}": convolution, f"{name}{level}_norm": norm}
            named[f"joined{level}"] = scale.joined
            scale, level = scale.inner, level + 1
        return named

    def arrays(self, gradients: bool = False) -> dict[str, Any]:
        """The parameters, or their gradients, as the Flax module has them."""

        def value(parameter: Any) -> Any:
            tensor = parameter.grad if gradients else parameter.detach()
            return (tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor).numpy()

        params = {
            name: {"kernel" if isinstance(m, nn.Conv2d) else "scale": value(m.weight), "bias": value(m.bias)}
            for name, m in self.layers().items()
        }
        return {"params": params}
