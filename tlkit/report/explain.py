"""Explain: where on an image a class was seen, as a class activation map.

In: a `Head`, images. Out: for each an `Explanation`, and the picture that shows it.
Where a linear layer stands on the average of a map, the map is exact (CAM: Zhou et al. 2015,
arXiv 1512.04150): its mean is the class's score. Elsewhere, for token networks too, it is Grad-CAM
(Selvaraju et al. 2016, arXiv 1610.02391), by the grad-cam library.
A map says what the score hangs on and not why; it is as coarse as the network's last map.
The network sees the very pixels that it sees in `predict`: a JPEG is decoded once for it and, where
its picture has to be larger, once for that.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tlkit.artifact import Head
from tlkit.backbone import InputSpec
from tlkit.data.geometry import detail
from tlkit.data.images import BadImage, Detail, Pixels, Unreadable, content, decode_each
from tlkit.data.transforms import plain
from tlkit.errors import OptionError, pick
from tlkit.files import shortened, write_bytes
from tlkit.model.assemble import Assembled
from tlkit.model.device import Compute, compute_for_answers
from tlkit.model.finite import check_scores
from tlkit.model.heads import Scale
from tlkit.predict.answers import probabilities_of
from tlkit.predict.dense import features_of_black, takes_the_mean
from tlkit.predict.run import Prediction
from tlkit.settings import with_own_settings

LONGEST_STEM = 240
"""Bytes of a picture's name: a number and an ending come to it, and most disks take 255."""

FEWEST = 4
"""Cells of a map that is shown: one cell says nothing of where."""

PX = 448
"""Side of a picture, at least."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Where on one image a class was seen."""

    prediction: Prediction
    """Of the plain view."""
    target: str
    """The class that is explained."""
    map: NDArray[np.float32]
    """(h, w) over the plain view, from 0 to 1, its largest number; 0 throughout where nothing on
    the image speaks for the class."""
    cells: tuple[int, int]
    """(h, w) of the network's own map, of which `map` may be an enlargement."""
    exact: bool
    """Whether the map's mean is the class's score (CAM); else it is Grad-CAM."""
    square: Pixels
    """The plain view in colour, at least `PX` pixels wide."""

    def overlay(self) -> Pixels:
        """The square with the map on it, from blue to red: (PX, PX, 3)."""
        height, width = self.square.shape[:2]
        smooth = cv2.resize(self.map, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        heat = cv2.applyColorMap(np.round(255 * smooth).astype(np.uint8), cv2.COLORMAP_TURBO)
        heat = cv2.cvtColor(heat, cv2.COLOR_BGR2RGB)
        # What is cold stays a photo.
        share = 0.15 + 0.45 * smooth[:, :, None]
        mixed: Pixels = np.round(self.square * (1 - share) + heat * share).astype(np.uint8)
        return mixed


@with_own_settings
def explain(
    head: Head, paths: Sequence[Path], *, target: str = "", device: str = "auto"
) -> Iterator[Explanation | BadImage]:
    """An explanation for each path in order; of the likeliest class, where no `target` is named.

    Raises `UnknownName` for a class that the head does not know, and `OptionError` where the
    network has no map to show, or the library is missing.
    """
    explained = explainer(head, device=device)
    if target:
        pick(dict.fromkeys(head.classes), target, "class")
    for path in paths:
        try:
            image = explained.decode(content(path).data)
        except Unreadable as error:
            yield BadImage(path=path, reason=str(error))
            continue
        yield explained(path, image, target)


Seen = tuple[Tensor, NDArray[np.float32], tuple[int, int]]
See = Callable[[Tensor, int | None], Seen]
"""One image (1, channels, H, W) uint8, and the class, or None for the likeliest -> logits (C,),
map (h, w), and how many cells the map had before it was enlarged."""


@dataclass(frozen=True, kw_only=True)
class Explainer:
    """Explains one image after the other. Made by `explainer`."""

    head: Head
    compute: Compute
    see: See
    exact: bool
    """Whether the maps are CAM."""

    @property
    def sizes(self) -> frozenset[Detail]:
        """`at_least_px` of what an image has to be decoded to."""
        return frozenset({detail(self.head.model.spec), PX})

    def decode(self, data: bytes) -> dict[Detail, Pixels]:
        """Decode what a file holds to all of these sizes. Raises `Unreadable`."""
        return decode_each(data, self.sizes)

    def __call__(self, path: Path, image: Mapping[Detail, Pixels], target: str) -> Explanation:
        """Explain an image, decoded to all `sizes`, for a class, or "" for the likeliest.

        Raises `UnknownName` for the class, and `AnswerError` where what the head gives is no
        number.
        """
        head, spec = self.head, self.head.model.spec
        known = {name: number for number, name in enumerate(head.classes)}
        wanted = pick(known, target, "class") if target else None
        pixels = plain(spec, image[detail(spec)])
        square = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        with self.compute.arithmetic():
            logits, shown, cells = self.see(self.compute.send(square), wanted)
        soft = probabilities_of(head, logits.cpu()[None], [path])[0].numpy()
        check_scores(shown[None], head.path, [path])
        prediction = Prediction(path=path, classes=head.classes, probabilities=soft)
        return Explanation(
            prediction=prediction,
            target=target or prediction.label,
            map=_scaled(shown),
            cells=cells,
            exact=self.exact,
            square=_large(spec, image[PX]),
        )


def explainer(head: Head, *, device: str = "auto") -> Explainer:
    """What explains one image after the other. Raises `OptionError` as `explain` does."""
    compute = compute_for_answers(device, fitted=head.card.precision)
    model = head.model.eval()
    compute.place(model)
    averaged = _averaged(model)
    return Explainer(
        head=head,
        compute=compute,
        see=averaged or _by_gradient(model, str(head.path)),
        exact=averaged is not None,
    )


def _averaged(model: Assembled) -> See | None:
    """How a linear head on an average is explained; None where it is not one."""
    layers = model.head.get_submodule("layers")
    scale = model.head.get_submodule("scale")
    if not (type(layers) is nn.Linear and isinstance(scale, Scale)):
        return None
    with torch.inference_mode():
        features = features_of_black(model, *model.spec.size)
        averages = takes_the_mean(model.neck, features)
    if features.ndim != 4 or features[0, 0].numel() < FEWEST:
        return None
    if not (isinstance(model.body, nn.Identity) and averages):
        return None
    weight, shift, factor = layers.weight, scale.shift[:, None, None], scale.factor[:, None, None]

    def see(image: Tensor, wanted: int | None) -> Seen:
        with torch.inference_mode():
            found = model.features(model.normalise(image))
            logits = model.head(model.neck(found))[0]
            target = int(logits.argmax()) if wanted is None else wanted
            places = (found[0] - shift) * factor
            shown = torch.einsum("f,fhw->hw", weight[target], places).cpu().numpy()
            return logits, shown, (shown.shape[0], shown.shape[1])

    return see


def _by_gradient(model: Assembled, name: str) -> See:
    """How any other network is explained."""
    if find_spec("pytorch_grad_cam") is None:
        raise OptionError(
            f"the network of {name} needs a package that is not installed to be explained",
            found="no grad-cam",
            expected="the extra tlkit[explain]: its head is not linear on an average",
            do="pip install 'tlkit[explain]'",
        )
    rest = nn.Sequential(model.features, model.neck, model.body, model.head)
    layer, cells = _layer(model, rest)
    if layer is None:
        raise OptionError(
            f"the network of {name} has nothing that could be shown on an image",
            found=f"no stage whose output is a map of at least {FEWEST} places, or tokens on a "
            "square grid, that the score hangs on: what it pools away says nothing of where",
            expected="a convolutional network, or one of tokens on a square grid",
            do="explain with another backbone",
        )

    def see(image: Tensor, wanted: int | None) -> Seen:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        inputs = model.normalise(image).requires_grad_()
        cam: Any = GradCAM(model=rest, target_layers=[layer], reshape_transform=_as_map)
        try:
            targets = None if wanted is None else [ClassifierOutputTarget(wanted)]
            shown = cam(input_tensor=inputs, targets=targets)[0]
            return cam.outputs[0].detach(), np.asarray(shown, np.float32), cells
        finally:
            cam.activations_and_grads.release()

    return see


def _layer(model: Assembled, rest: nn.Module) -> tuple[nn.Module | None, tuple[int, int]]:
    """The last module whose output has places on which the score hangs, and the map's (h, w).

    None where no module has.

    Behind the last block of a transformer only the class token counts: the others have no gradient.
    """
    stages = [part for parts in model.stages.values() for part in parts]
    asked = [model.features, *(one for one in reversed(stages) if isinstance(one, nn.Module))]
    outputs: dict[int, Tensor] = {}
    is_square = model.spec.size[0] == model.spec.size[1]

    def keep(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.retain_grad()
            outputs[id(module)] = output

    hooks = [one.register_forward_hook(keep) for one in {id(m): m for m in asked}.values()]
    try:
        device = model.normalise.mean.device
        noise = torch.Generator().manual_seed(0)
        image = torch.randn(1, model.spec.channels, *model.spec.size, generator=noise).to(device)
        rest(image.requires_grad_()).max().backward()
    finally:
        for hook in hooks:
            hook.remove()
        rest.zero_grad()
    for one in asked:
        output = outputs.get(id(one))
        if output is None or output.grad is None or output.ndim not in (3, 4):
            continue
        grid = _as_map(output.grad)[0]
        height, width = grid.shape[1:]
        # Maps of a square image are square: a tensor of attention heads, for one, is none. How
        # tokens of another image lie side by side is not known.
        is_map = height == width if is_square else output.ndim == 4
        if is_map and height * width >= FEWEST and int((grid.abs().sum(dim=0) > 0).sum()) > 1:
            return one, (height, width)
    return None, (0, 0)


def _as_map(found: Tensor) -> Tensor:
    """Maps with their channels second; tokens (B, T, F) -> (B, F, s, s), without those before."""
    if found.ndim == 4:
        # Images are square, and so are maps: (B, h, w, F) is told by its sides.
        channels_last = found.shape[1] == found.shape[2] != found.shape[3]
        return found.permute(0, 3, 1, 2) if channels_last else found
    side = math.isqrt(found.shape[1])
    behind = found[:, found.shape[1] - side**2 :].mT
    return behind.reshape(*behind.shape[:2], side, side)


def _scaled(shown: NDArray[np.float32]) -> NDArray[np.float32]:
    """What speaks for the class, as shares of its largest number."""
    positive = np.maximum(shown, 0).astype(np.float32)
    top = float(positive.max())
    return positive / top if top > 0 else positive


def _large(spec: InputSpec, image: Pixels) -> Pixels:
    """The plain view as people want to see it."""
    times = max(1, math.ceil(PX / spec.crop_px))
    larger = replace(
        spec, crop_px=times * spec.crop_px, resize_px=times * spec.resize_px,
        crop_width_px=times * spec.crop_width_px, resize_width_px=times * spec.resize_width_px,
        channels=3, mean=(spec.mean * 3)[:3], std=(1.0,) * 3,
    )  # fmt: skip
    return plain(larger, image)


def picture_names(paths: Sequence[Path]) -> list[str]:
    """For each image the name of its picture: its own, numbered where several would have one."""
    stems = [shortened(path.stem, LONGEST_STEM) for path in paths]
    if len({one.casefold() for one in stems}) == len(stems):
        return [f"{one}.png" for one in stems]
    return [f"{number:05d}-{one}.png" for number, one in enumerate(stems, start=1)]


def picture(one: Explanation) -> bytes:
    """The overlay as a PNG."""
    file = io.BytesIO()
    Image.fromarray(one.overlay()).save(file, format="PNG")
    return file.getvalue()


def write_picture(one: Explanation, path: Path) -> None:
    """Write the overlay as a PNG. Raises `DiskError`."""
    write_bytes(path, picture(one))
