"""The paper's U-Net (Maganaris et al., arXiv 2205.02152, figure 1; after Ronneberger et al. 2015), on one page.

Down: two 3x3 convolutions with ReLU, then 2x2 maximum pooling, ``levels`` times, the width doubling each time.
Up: a transposed 2x2 convolution that halves the width and doubles the size, the skip connection concatenated, two 3x3
convolutions with ReLU. A 1x1 convolution ends it. The sigmoid stays outside, as the losses want logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lungshift.errors import ProtocolError
from lungshift.learn.settings import Norm, Trainable

_GROUPS = 8


class UNet(nn.Module):
    """U-Net from (n, channel, row, column) to logits (n, 1, row, column); rows and columns divide by ``2**levels``.

    ``width`` is the number of filters of the first level (64 in the paper), ``norm`` follows every 3x3 convolution (none
    in the paper), and ``dropout`` is the share of whole feature maps silenced at the bottom.
    """

    def __init__(
        self, in_channels: int, width: int = 64, levels: int = 4, norm: Norm = "none", dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [width << level for level in range(levels + 1)]
        self.divisor = 1 << levels
        self.down = nn.ModuleList(
            _two_convolutions(before, after, norm)
            for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(2 * after, after, 2, stride=2) for after in widths[-2::-1])
        self.up = nn.ModuleList(_two_convolutions(2 * after, after, norm) for after in widths[-2::-1])
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 1, row, column) of ``x`` (n, channel, row, column).

        Raises:
            ProtocolError: Rows or columns do not divide by ``2**levels``.
        """
        self._require_divisible(x)
        skips = []
        for block in self.down[:-1]:
            x = block(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.dropout(self.down[-1](x))
        for grow, block in zip(self.grow, self.up, strict=True):
            x = block(torch.cat([skips.pop(), grow(x)], dim=1))
        logits: Tensor = self.last(x)
        return logits

    def frozen(self, trainable: Trainable) -> list[nn.Module]:
        """The layers that stay as they are where ``trainable`` says which training changes."""
        down = [self.down, self.dropout]
        return {"all": [], "decoder": down, "head": [*down, self.grow, self.up]}[trainable]

    def _require_divisible(self, x: Tensor) -> None:
        rows, columns = x.shape[-2:]
        if rows % self.divisor or columns % self.divisor:
            raise ProtocolError(
                f"The network was given {rows} x {columns} pixels, but it halves them again and again: both must be "
                f"multiples of {self.divisor}. Pad or crop the slices, or choose another size.",
                code="E_SIZE",
            )


def _two_convolutions(before: int, after: int, norm: Norm) -> nn.Sequential:
    parts: list[nn.Module] = []
    for channels in (before, after):
        parts += [
            nn.Conv2d(channels, after, 3, padding=1, bias=norm == "none"),
            _normalisation(norm, after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*parts)


def _normalisation(norm: Norm, channels: int) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.GroupNorm(min(_GROUPS, channels), channels)
