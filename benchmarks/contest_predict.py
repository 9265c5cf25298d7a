"""Those who predict: a scan and a lung mask as files in, a lesion mask as a file out; see ``benchmarks.turns``.

All compute the same U-Net with the same weights on the same pictures: 320 x 320, nearest neighbour, the paper's window and the lung mask
as two channels. Imports stay inside: each may live in its own environment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Work = Callable[[], Any]
Weights = dict[str, "np.ndarray"]

_LOW, _HIGH = -970.0, -150.0
_BATCH = 45


def lungshift(checkpoint: str, volume: str, lung: str, output: str, precision: str = "bf16") -> Work:
    """``predict_source`` and ``new_mask``: checks, CRC, reading back and fsync included; answers with the network's CPU seconds."""
    from lungshift.io.scan import open_scan
    from lungshift.io.writing import new_mask
    from lungshift.learn.checkpoint import load_checkpoint
    from lungshift.learn.prediction import Predictor, predict_source

    started = time.process_time()
    predictor = Predictor.of(load_checkpoint(Path(checkpoint)), "cpu", precision)
    start_s, engine = time.process_time() - started, _Timed(predictor.engine)
    predictor = Predictor(predictor.checkpoint, engine)

    def work() -> dict[str, Any]:
        engine.seconds, slices = 0.0, 0
        source = open_scan(Path(volume), lung=Path(lung))
        with new_mask(output, source.geometry, like=volume) as writer:
            for found in predict_source(predictor, source):
                writer.write(found.index, found.lesion)
                slices += 1
        return {"network_s": engine.seconds, "slices": slices, "start_s": start_s, **predictor.describe()}

    return work


class _Timed:
    """An engine that counts the CPU seconds of its network."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.batch, self.seconds = engine, engine.batch, 0.0
        self.bottom, self.describe = engine.bottom, engine.describe

    def logits(self, images: np.ndarray) -> np.ndarray:
        started = time.process_time()
        logits: np.ndarray = self._engine.logits(images)
        self.seconds += time.process_time() - started
        return logits


def keras(weights: str, volume: str, lung: str, output: str, size: int) -> Work:
    """The paper's way: ``get_fdata``, everything in memory, ``model.predict`` in batches of 45, nibabel writes. No checks, no fsync."""
    import nibabel as nib
    import numpy as np

    model = _keras_model(dict(np.load(weights).items()), size)

    def work() -> None:
        scan = nib.load(volume)
        ct, mask = scan.get_fdata(), nib.load(lung).get_fdata()
        alive = np.flatnonzero(mask.any(axis=(0, 1)))
        down = ((np.arange(size) + 0.5) * (len(ct) / size)).astype(int)
        back = ((np.arange(len(ct)) + 0.5) * (size / len(ct))).astype(int)
        images = np.empty((len(alive), size, size, 2), np.float32)
        for channel, array in enumerate((np.clip((ct - _LOW) / (_HIGH - _LOW), 0, 1), mask)):
            images[..., channel] = array[..., alive][down][:, down].transpose(2, 1, 0)
        found = model.predict(images, batch_size=_BATCH, verbose=0)[..., 0] > 0
        lesion = np.zeros(ct.shape, np.uint8)
        lesion[..., alive] = found.transpose(2, 1, 0)[back][:, back]
        nib.save(nib.Nifti1Image(lesion, scan.affine), output)

    return work


def _keras_model(weights: Weights, size: int) -> Any:
    import keras as k

    width, levels = weights["down.0.0.weight"].shape[0], 1 + max(int(n.split(".")[1]) for n in weights if n[0] == "g")
    layers: dict[str, Any] = {}

    def convolution(x: Any, name: str) -> Any:
        filters, _, side, _ = weights[f"{name}.weight"].shape
        activation = None if name == "last" else "relu"
        layers[name] = k.layers.Conv2D(filters, side, padding="same", activation=activation)
        return layers[name](x)

    inputs = x = k.Input((size, size, 2))
    skips = []
    for level in range(levels + 1):
        for at in (0, 3):
            x = convolution(x, f"down.{level}.{at}")
        if level < levels:
            skips.append(x)
            x = k.layers.MaxPooling2D()(x)
    for step in range(levels):
        layers[f"grow.{step}"] = k.layers.Conv2DTranspose(width << (levels - 1 - step), 2, strides=2)
        x = k.layers.Concatenate()([skips.pop(), layers[f"grow.{step}"](x)])
        for at in (0, 3):
            x = convolution(x, f"up.{step}.{at}")
    model = k.Model(inputs, convolution(x, "last"))
    for name, layer in layers.items():
        layer.set_weights([weights[f"{name}.weight"].transpose(2, 3, 1, 0), weights[f"{name}.bias"]])
    return model


def monai(weights: str, volume: str, lung: str, output: str, size: int) -> Work:
    """MONAI's way, as its bundles do it: dictionary transforms, ``SliceInferer`` over torch in fp32, inverse resize, ``SaveImaged``."""
    import numpy as np
    import torch
    from monai import transforms as t
    from monai.data import MetaTensor
    from monai.inferers import SliceInferer

    torch.set_num_threads(1)
    network, names = _torch_model({n: torch.from_numpy(w) for n, w in np.load(weights).items()}), ["volume", "lung"]
    before = t.Compose(
        [
            t.LoadImaged(names),
            t.EnsureChannelFirstd(names),
            t.ScaleIntensityRanged("volume", _LOW, _HIGH, 0.0, 1.0, clip=True),
            t.Resized(names, (size, size, -1), mode="nearest-exact"),
            t.ConcatItemsd(names, "image", dim=0),
        ]
    )
    folder, name = os.path.split(output)
    save = t.SaveImage(
        folder, output_postfix="", output_ext=".nii.gz", separate_folder=False, output_dtype=np.uint8, print_log=False
    )
    infer = SliceInferer(roi_size=(size, size), sw_batch_size=8, spatial_dim=2, progress=False)

    def work() -> None:
        data = before({"volume": volume, "lung": lung})
        image = data["image"]
        alive = image[1].any(dim=0).any(dim=0).nonzero()[:, 0]
        lesion = torch.zeros((1, *image.shape[1:]), dtype=torch.uint8)
        with torch.inference_mode():
            found = infer(image[None][..., alive], network)[0] > 0
        lesion[..., alive] = torch.as_tensor(found, dtype=torch.uint8)
        own = data["volume"].meta["spatial_shape"]
        whole = t.Resize([int(n) for n in own], mode="nearest-exact")(lesion.float())
        meta = {"affine": data["volume"].meta["original_affine"], "filename_or_obj": name}
        save(MetaTensor(torch.as_tensor(whole), affine=torch.as_tensor(meta["affine"]), meta=meta))

    return work


def _torch_model(weights: dict[str, Any]) -> Any:
    """The same U-Net in plain torch."""
    import torch

    from lungshift.learn.unet import UNet

    levels = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("grow"))
    network = UNet(2, len(weights["down.0.0.weight"]), levels)
    network.load_state_dict({name: torch.as_tensor(weight) for name, weight in weights.items()})
    return network.eval()
