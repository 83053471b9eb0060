"""Weights: what a backbone's numbers are, where they come from, and what they expect to see.

In: a backbone's `WeightSet`s and the user's choice (a set's name, `default`, `none`, a file).
Out: `Weights`, a state dict with its `InputSpec`, which a plugin's `build` loads into its network.
Downloading is left to the library that publishes the weights; this is the only module that
calls `torch.load`, and only with `weights_only=True`.
Not here: which network the weights belong to (plugins), how it is cut and trained (model/).

torch is imported inside functions, so that plugins can declare their sets without it.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tlkit.errors import (
    TlkitError,
    WeightsError,
    address,
    briefly,
    install_command,
    listing,
    machine_error,
    pick,
    raise_machine_error,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

StateDict = Mapping[str, "Tensor"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CROP_MODES = ("center", "pad", "squash", "border")

PREPROCESSING = 2
"""Version of the preprocessing rules (data/geometry.py): 1 is that of tlkit 0.1.0, which rounded
otherwise than torchvision and timm do. A head goes on with the version that it was fitted with."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a set of weights expects to see. It belongs to the weights, not to the network."""

    crop_px: int
    """Height of the image given to the network; its width too, unless `crop_width_px` is set."""
    resize_px: int
    """What the image is scaled to before it is cropped; of what, `crop_mode` says."""
    mean: tuple[float, ...]
    """Per channel (RGB), on pixels scaled to [0, 1]."""
    std: tuple[float, ...]
    """Per channel (RGB), on pixels scaled to [0, 1]."""
    interpolation: str = "bilinear"
    """`bilinear` or `bicubic`; antialiased where an image shrinks."""
    channels: int = 3
    crop_mode: str = "center"
    """`center`: the shorter side is scaled to `resize_px`, then the middle is cropped.
    `pad`: the same, and what is smaller than the crop gets a black border.
    `squash`: the image is scaled to `resize_px` whatever its shape is, then the middle is cropped.
    `border`: the longer side is scaled to `resize_px`, and what lacks is filled with the mean.
    `center`, `squash` and `border` are timm's words."""
    crop_width_px: int = 0
    """Width of the image given to the network; 0 where it is a square."""
    resize_width_px: int = 0
    """Width that belongs to `resize_px` where the image is no square; 0 where it is one."""
    preprocessing: int = PREPROCESSING
    """Version of the preprocessing rules. Leave it out: only heads of tlkit 0.1.0 have another."""

    def __post_init__(self) -> None:
        sound = (
            self._sizes_fit()
            and len(self.mean) == len(self.std) == self.channels
            and all(one > 0 for one in self.std)
            and self.interpolation in ("bilinear", "bicubic")
            and self.crop_mode in CROP_MODES
            and self.preprocessing in range(1, PREPROCESSING + 1)
        )
        if not sound:
            raise WeightsError(
                "an input specification does not hold together",
                found=str(self),
                expected="0 < crop_px <= resize_px (any two for the crop modes pad and border), "
                "both widths or neither, one mean and one positive std per channel, "
                f"interpolation bilinear or bicubic, crop mode {', '.join(CROP_MODES)}",
                do="correct the weight set in the backbone's plugin",
            )

    def _sizes_fit(self) -> bool:
        if (self.crop_width_px > 0) != (self.resize_width_px > 0):
            return False
        pairs = zip(self.size, self.resize_size, strict=True)
        return all(
            crop > 0 and resize > 0 and (crop <= resize or self.crop_mode in ("pad", "border"))
            for crop, resize in pairs
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image given to the network."""
        return self.crop_px, self.crop_width_px or self.crop_px

    @property
    def resize_size(self) -> tuple[int, int]:
        """Height and width that the image is scaled to or fitted to before it is cropped."""
        return self.resize_px, self.resize_width_px or self.resize_px

    @property
    def size_in_words(self) -> str:
        """Return the size of the network's input for people: 224, or 1024 x 768."""
        return _in_words(self.size)

    @property
    def resize_in_words(self) -> str:
        """Return what an image is scaled to, for people: 256 px."""
        return f"{_in_words(self.resize_size)} px"

    @property
    def scaling_in_words(self) -> str:
        """Return how an image is scaled, for people: bicubic, or bicubic squash."""
        mode = "" if self.crop_mode == "center" else f" {self.crop_mode}"
        return f"{self.interpolation}{mode}"

    def as_of_0_1_0(self) -> InputSpec:
        """Return what tlkit 0.1.0 took this for: it knew squares from the middle alone."""
        return replace(
            self,
            crop_mode="center",
            resize_px=max(self.crop_px, self.resize_px),
            crop_width_px=0,
            resize_width_px=0,
            preprocessing=1,
        )


def _in_words(size: tuple[int, int]) -> str:
    height, width = size
    return str(height) if height == width else f"{height} x {width}"


class Source(Protocol):
    """Where a set of weights comes from. A plugin may bring its own."""

    def where(self) -> str:
        """The place in words: a path, a package, an address."""

    def on_disk(self) -> bool:
        """Whether `fetch` needs no network."""

    def fetch(self) -> StateDict:
        """The state dict, in the network's own key names. May download, with progress shown."""


@dataclass(frozen=True, kw_only=True)
class WeightSet:
    """One published set of weights of a backbone."""

    name: str
    input: InputSpec
    source: Source
    licence: str
    classes: int | None
    """K, the classes of the trained classifier; None where the weights never had one."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A chosen weight set, read: what a plugin's `build` gets."""

    name: str
    """The set's name, `none`, or `file`."""
    input: InputSpec
    licence: str
    classes: int | None
    state: StateDict | None
    """None for `none`: the network keeps its random initialisation."""

    def load_into(self, network: nn.Module, *, leave: Sequence[str] = ()) -> None:
        """Copy the state into `network`; every tensor must fit, by name and by shape.

        `leave` names prefixes of tensors that the file has and the network does not want
        (auxiliary classifiers, for one). Raises `WeightsError` with every misfit.
        """
        if self.state is None:
            return
        given = {k: v for k, v in self.state.items() if not k.startswith(tuple(leave))}
        wanted = network.state_dict()
        # Files older than torch 0.4.1 lack BatchNorm's counter of batches, which changes no output.
        faults = [
            f"missing: {name}"
            for name in wanted
            if name not in given and not name.endswith("num_batches_tracked")
        ]
        faults += [f"not in the network: {name}" for name in given if name not in wanted]
        faults += [
            f"{name}: {tuple(value.shape)}, the network has {tuple(wanted[name].shape)}"
            for name, value in given.items()
            if name in wanted and value.shape != wanted[name].shape
        ]
        if faults:
            raise WeightsError(
                f"the weights '{self.name}' do not fit the network",
                found=listing(faults, most=8),
                expected=f"{len(wanted)} tensors with the network's names and shapes",
                do="choose the backbone that the weights were made for, or another weight set",
            )
        network.load_state_dict(given)


@dataclass(frozen=True)
class WeightFile:
    """A file of the user's: `.safetensors`, or a state dict that `weights_only` accepts."""

    path: Path

    def where(self) -> str:
        return str(self.path)

    def on_disk(self) -> bool:
        return self.path.is_file()

    def fetch(self) -> StateDict:
        return read_state(self.path)


@dataclass(frozen=True)
class PackageFile:
    """A file inside an installed package."""

    package: str
    """The import name."""
    inside: str
    """Path below the package's folder."""
    distribution: str
    """What to install, for the error when it is missing."""

    def path(self) -> Path | None:
        """The file, or None when the package is not installed. Imports nothing."""
        from importlib.util import find_spec

        spec = find_spec(self.package)
        if spec is None or spec.origin is None:
            return None
        return Path(spec.origin).parent / self.inside

    def where(self) -> str:
        return f"package {self.distribution}, {self.inside}"

    def on_disk(self) -> bool:
        path = self.path()
        return path is not None and path.is_file()

    def fetch(self) -> StateDict:
        path = self.path()
        if path is None:
            raise WeightsError(
                f"the package {self.distribution} is not installed",
                found=f"no module {self.package}",
                expected=f"{self.inside} inside it",
                do=install_command(self.distribution) or "tell the author of the plugin",
            )
        return read_state(path)


@dataclass(frozen=True)
class TorchHubFile:
    """A file that torchvision publishes, in torch.hub's cache or downloaded into it."""

    url: str

    def path(self) -> Path:
        """Where torch.hub keeps the file."""
        import torch

        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rsplit("/", 1)[-1]

    def where(self) -> str:
        return str(self.path())

    def on_disk(self) -> bool:
        return self.path().is_file()

    def fetch(self) -> StateDict:
        from http.client import HTTPException

        import torch

        path = self.path()
        if not path.is_file():
            self._refuse_unwritable(path)
            try:
                # The file name carries the first digits of its digest: torch.hub checks them.
                torch.hub.download_url_to_file(
                    self.url, str(path), hash_prefix=_hash_in_name(path), progress=True
                )
            except (OSError, RuntimeError, HTTPException) as error:
                raise not_here(self.url, str(path), error) from error
        return read_state(path)

    def _refuse_unwritable(self, path: Path) -> None:
        """Raise `WeightsError` where a download has no place."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise WeightsError(
                "the weights are not on this machine, and there is no place to download them to",
                found=f"{path.parent}: {briefly(error)}",
                expected="a folder that can be written",
                do=f"set TORCH_HOME to one, or fetch {self.url} elsewhere: --weights FILE",
            ) from error


def _hash_in_name(path: Path) -> str | None:
    """The digest's first digits in a name like `vgg16-397923af.pth`; None where it has none."""
    tail = path.stem.rsplit("-", 1)[-1]
    return tail if len(tail) >= 8 and all(c in "0123456789abcdef" for c in tail) else None


def _refuse_packed(path: Path) -> None:
    """Raise `WeightsError` for an archive whose parts are larger than they look.

    torch.save packs nothing: what is packed, or lists a part twice, was put together to fill the
    memory of its reader. What is an archive is decided as torch does, which reads some that
    `zipfile` does not.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except zipfile.BadZipFile as error:
        found = briefly(error)
    else:
        packed = sum(one.compress_type != zipfile.ZIP_STORED for one in parts)
        size = sum(one.file_size for one in parts)
        found = f"{packed} packed parts, {size} bytes in a file of {path.stat().st_size}"
        if not packed and size <= path.stat().st_size:
            return
    raise WeightsError(
        f"the weight file {path} is refused",
        found=found,
        expected="an archive as torch.save writes it, which packs nothing",
        do="save it again with torch.save, or as safetensors",
    )


def not_here(address: str, place: str, error: Exception) -> TlkitError:
    """Return the error for weights that are not here: not reachable, or no room for them."""
    return machine_error(error) or WeightsError(
        "the weights are not on this machine, and could not be downloaded",
        found=f"nothing at {place}\nand {address} could not be fetched: {briefly(error)}",
        expected="the file on the disk, or a network",
        do=f"1. connect to the network and run the command again, or\n"
        f"2. fetch {address} elsewhere and put it at {place}, or\n"
        "3. use what is here: --weights FILE, --weights none, or another --backbone "
        "(`tlkit backbones NAME` tells which weights are on the disk)",
    )


def read_state(path: Path) -> StateDict:
    """The state dict in a file: safetensors by its ending, else a pickle of tensors alone.

    A state dict wrapped as {"state_dict": ...} or {"model": ...} is unwrapped.
    Raises `WeightsError`: no such file, cut off, not weights, or it holds code.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _refuse_packed(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"the weight file {path} is refused",
            found="something other than tensors: loading it would run code, or it is cut off",
            expected="a state dict (torch.save(model.state_dict(), ...)) or a .safetensors file",
            do="save it again as a plain state dict, or as safetensors",
        ) from error
    except FileNotFoundError as error:
        raise WeightsError(
            f"there is no weight file {address(path) or path}",
            found="an address on a network" if address(path) else "nothing at that path",
            expected="a .safetensors file or a state dict",
            do="fetch it first, and name the file" if address(path) else "correct the path",
        ) from error
    except WeightsError:
        raise
    except Exception as error:  # readers raise whatever the broken bytes lead them to
        raise_machine_error(error)
        raise WeightsError(
            f"the weight file {path} cannot be read",
            found=briefly(error),
            expected="a whole .safetensors file, or a whole state dict",
            do="download or save it again",
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise WeightsError(
            f"the weight file {path} holds no state dict",
            found=f"a {type(state).__name__}",
            expected="names mapped to tensors",
            do="save it with torch.save(model.state_dict(), path)",
        )
    return state


@dataclass(frozen=True)
class Unpublished:
    """The source of weights that nobody has published."""

    def where(self) -> str:
        return "nowhere: the network is trained from scratch"

    def on_disk(self) -> bool:
        return False

    def fetch(self) -> StateDict:
        raise WeightsError(
            "this network has no published weights",
            found="a request to load them",
            expected="--weights none, or a file",
            do="train it from scratch",
        )


def untrained(spec: InputSpec) -> WeightSet:
    """The only weight set of a network without published weights: its input, and random numbers."""
    return WeightSet(name="none", input=spec, source=Unpublished(), licence="", classes=None)


def obtain(sets: Sequence[WeightSet], choice: str) -> Weights:
    """The chosen weights, read from where they are.

    `choice` is `default` (the first set), a set's name, `none`, or a path.
    A file is read with the first set's `InputSpec`: it is taken to be a variant of it.
    """
    weights, source = _chosen(sets, choice)
    if source is None:
        return weights
    if offline() and not isinstance(source, WeightFile) and not source.on_disk():
        raise not_here("the place where they are published", source.where(), Offline())
    return replace(weights, state=source.fetch())


class Offline(OSError):
    """Why nobody was asked."""

    def __str__(self) -> str:
        return "TLKIT_OFFLINE is set"


def offline() -> bool:
    """Whether the user forbids the network."""
    return os.environ.get("TLKIT_OFFLINE", "") not in ("", "0")


def unread(sets: Sequence[WeightSet], choice: str) -> Weights:
    """The chosen weights without their numbers: enough to build a network of their shape.

    Nothing is read or downloaded. Raises `WeightsError` for a file that is not there.
    """
    weights, source = _chosen(sets, choice)
    if isinstance(source, WeightFile) and not source.on_disk():
        source.fetch()  # which says what is wrong with the path
    return weights


def _chosen(sets: Sequence[WeightSet], choice: str) -> tuple[Weights, Source | None]:
    """The weights but for their state, and where that is; None where it is random."""
    first = sets[0]
    table = {"default": first, **{one.name: one for one in sets}}
    if is_random(sets, choice):
        blank = Weights(name="none", input=first.input, licence="", classes=None, state=None)
        return blank, None
    if choice not in table and looks_like_file(choice):
        own = Weights(
            name="file",
            input=first.input,
            licence="as the file's maker says",
            classes=None,
            state=None,
        )
        return own, WeightFile(Path(os.path.expanduser(choice)))
    chosen = pick(table, choice, "weight set", also=", none, or a file (.safetensors, .pth, .pt)")
    published = Weights(
        name=chosen.name,
        input=chosen.input,
        licence=chosen.licence,
        classes=chosen.classes,
        state=None,
    )
    return published, chosen.source


def is_random(sets: Sequence[WeightSet], choice: str) -> bool:
    """Whether a weights choice means random numbers."""
    return choice == "none" or (choice == "default" and sets[0].name == "none")


def looks_like_file(choice: str) -> bool:
    """Whether a weights choice is meant as a path: by its ending, a separator, or being one."""
    endings = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
    return choice.endswith(endings) or "/" in choice or "\\" in choice or os.path.isfile(choice)


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, types, shapes and bytes: equal where the tensors are bitwise equal.

    The order in which the tensors come does not matter.
    """
    import torch

    def part(name: str, value: Tensor) -> DigestPart:
        plain = value.detach().cpu().contiguous()
        numbers = plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b""
        return name, str(plain.dtype), tuple(plain.shape), [numbers]

    return digest_of_bytes(part(*one) for one in sorted(tensors, key=lambda pair: pair[0]))


DigestPart = tuple[str, str, tuple[int, ...], Iterable["bytes | memoryview"]]
"""A tensor: its name, its type as torch writes it, its shape, its bytes in pieces."""


def digest_of_bytes(parts: Iterable[DigestPart]) -> str:
    """The digest of tensors that are given as bytes, sorted by their names."""
    total = hashlib.sha256()
    for name, kind, shape, pieces in parts:
        total.update(f"{name}\0{kind}\0{shape}\0".encode())
        for piece in pieces:
            total.update(piece)
    return total.hexdigest()


def torchvision_sets(enum: Any, *, without_classifier: Sequence[str] = ()) -> tuple[WeightSet, ...]:
    """The weight sets of a torchvision `WeightsEnum`, the default first.

    `without_classifier` names the sets whose classifier was never trained.
    Everything comes from torchvision's own table, so that it cannot drift from it.
    """
    ordered = sorted(enum, key=lambda one: one is not enum.DEFAULT)
    sets = []
    for one in ordered:
        preset = one.transforms()
        sets.append(
            WeightSet(
                name=one.name,
                input=InputSpec(
                    crop_px=preset.crop_size[0],
                    resize_px=preset.resize_size[0],
                    mean=tuple(preset.mean),
                    std=tuple(preset.std),
                    interpolation=preset.interpolation.value,
                ),
                source=TorchHubFile(one.url),
                licence="BSD-3-Clause (torchvision); trained on ImageNet-1k",
                classes=None if one.name in without_classifier else len(one.meta["categories"]),
            )
        )
    return tuple(sets)


def with_input(sets: Iterable[WeightSet], **changes: Any) -> tuple[WeightSet, ...]:
    """The same sets with fields of their `InputSpec` replaced."""
    return tuple(replace(one, input=replace(one.input, **changes)) for one in sets)
