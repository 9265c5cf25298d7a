"""The weights that a U-Net of some settings has, by name and shape: what a checkpoint is checked against without torch."""

from __future__ import annotations

from lungshift.learn.settings import NetworkSettings, Norm

Shape = tuple[int, ...]


def weight_shapes(network: NetworkSettings) -> dict[str, Shape]:
    """Name and shape of every tensor in the state of ``learn.unet.UNet``, in no particular order."""
    widths = [network.width << level for level in range(network.levels + 1)]
    shapes: dict[str, Shape] = {"last.weight": (1, network.width, 1, 1), "last.bias": (1,)}
    for level, (before, after) in enumerate(zip([network.channels, *widths], widths, strict=False)):
        shapes |= _two_convolutions(f"down.{level}", before, after, network.norm)
    for step, after in enumerate(widths[-2::-1]):
        shapes |= {f"grow.{step}.weight": (2 * after, after, 2, 2), f"grow.{step}.bias": (after,)}
        shapes |= _two_convolutions(f"up.{step}", 2 * after, after, network.norm)
    return shapes


def first_difference(expected: dict[str, Shape], found: dict[str, Shape]) -> str | None:
    """In words, the first weight by name that is not as it should be; None if all are."""
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            return f"{name} should be {expected.get(name, 'absent')} and is {found.get(name, 'absent')}"
    return None


def _two_convolutions(block: str, before: int, after: int, norm: Norm) -> dict[str, Shape]:
    """Convolution at 0, its normalisation at 1, the second pair at 3 and 4; a normalisation takes the place of the bias."""
    shapes: dict[str, Shape] = {}
    for at, channels in ((0, before), (3, after)):
        shapes[f"{block}.{at}.weight"] = (after, channels, 3, 3)
        if norm == "none":
            shapes[f"{block}.{at}.bias"] = (after,)
            continue
        shapes |= {f"{block}.{at + 1}.{name}": (after,) for name in ("weight", "bias")}
        if norm == "batch":
            shapes |= {f"{block}.{at + 1}.{name}": (after,) for name in ("running_mean", "running_var")}
            shapes[f"{block}.{at + 1}.num_batches_tracked"] = ()
    return shapes
