"""The CIC network in PyTorch, written from its layer table, with random weights: what parity is measured against."""

from pathlib import Path

import torch
from torch import nn

from jaxcolor.color.palette import ab_bins

# (channels, convolutions, stride of the last one, dilation), then batch normalisation, for blocks 1 to 7.
TABLE = [(64, 2, 2, 1), (128, 2, 2, 1), (256, 3, 2, 1), (512, 3, 1, 1), (512, 3, 1, 2), (512, 3, 1, 2), (512, 3, 1, 1)]


class Twin(nn.Module):
    """Luminance [N, 1, H, W] to probabilities [N, 313, H/4, W/4]."""

    def __init__(self, width: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        before = 1
        for number, (channels, convolutions, stride, dilation) in enumerate(TABLE, start=1):
            channels, layers = round(channels * width), []
            for i in range(convolutions):
                step = stride if i == convolutions - 1 else 1
                layers += [nn.Conv2d(before, channels, 3, step, dilation, dilation), nn.ReLU()]
                before = channels
            setattr(self, f"model{number}", nn.Sequential(*layers, nn.BatchNorm2d(channels)))
        head = round(256 * width)
        self.model8 = nn.Sequential(
            nn.ConvTranspose2d(before, head, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(head, head, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(head, head, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(head, 313, 1),
        )
        self.model_out = nn.Conv2d(313, 2, 1, bias=False)
        self.model_out.weight.data = torch.from_numpy(ab_bins().T[:, :, None, None] / 110)
        self.apply(_randomise)
        self.eval()

    def forward(self, luminance: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.logits(luminance), dim=1)

    def logits(self, luminance: torch.Tensor) -> torch.Tensor:
        """What the Flax module returns: the probabilities before the softmax."""
        x = (luminance - 50) / 100
        for number in range(1, 9):
            x = getattr(self, f"model{number}")(x)
        return x


def _randomise(layer: nn.Module) -> None:
    """Scaled so that activations stay near 1 in every layer, and nothing is at its neutral value."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None:
        nn.init.normal_(layer.bias, 0, 0.2)
        inputs = layer.in_channels * (4 if isinstance(layer, nn.ConvTranspose2d) else layer.kernel_size[0] ** 2)
        nn.init.normal_(layer.weight, 0, (2 / inputs) ** 0.5)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.uniform_(layer.weight, 0.7, 1.4)
        nn.init.normal_(layer.bias, 0, 0.3)
        nn.init.normal_(layer.running_mean, 0.4, 0.2)
        nn.init.uniform_(layer.running_var, 0.5, 1.5)


def save(path: Path, width: float = 1 / 16, **changes: torch.Tensor | None) -> Path:
    """Save a twin's state dict with some entries replaced, or removed where None."""
    state = {**Twin(width).state_dict(), **{name.replace("__", "."): value for name, value in changes.items()}}
    torch.save({name: value for name, value in state.items() if value is not None}, path)
    return path
