"""timm: every model of pytorch-image-models, as timm/NAME or timm/NAME.TAG.

In: a name that timm lists. Out: a `Backbone` whose weight sets are timm's tags, with the
`InputSpec` of each tag's own `PretrainedCfg`. timm does the downloading and the translation of
foreign checkpoints; this plugin only asks first whether the file or the hub is there at all.
Next door: parts.py, which takes a built model apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from tlkit.backbone import Backbone, Family, InputSpec, Network, StateDict, Weights, WeightSet
from tlkit.errors import WeightsError, briefly, raise_machine_error, unknown
from tlkit.weights import not_here

# How long the hub may take to answer at all. Its own client tries six times, for 23 s a file.
ANSWER_S = 5.0

# The name of the only weight set of a model for which timm has none.
UNPUBLISHED = "untrained"

HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class TimmWeights:
    """The weights of one tag: in huggingface_hub's or torch.hub's cache, or downloaded by timm."""

    name: str
    """ARCHITECTURE.TAG"""

    def where(self) -> str:
        return str(self._cached() or self._place())

    def on_disk(self) -> bool:
        return self._cached() is not None

    def fetch(self) -> StateDict:
        import timm

        cached = self._cached()
        if cached is not None:
            # By its path, because huggingface_hub would ask the network about a file it has.
            # Hub files are in timm's own format, whatever `custom_load` says of the original.
            overlay = {"file": str(cached), "custom_load": cached.suffix == ".npz"}
            try:
                return _state(timm.create_model(self.name, True, pretrained_cfg_overlay=overlay))
            except Exception as error:  # safetensors, pickle, zip and torch each raise their own
                raise_machine_error(error)
                raise WeightsError(
                    f"the weight file {cached} cannot be read",
                    found=briefly(error),
                    expected=f"the weights of {self.name}",
                    do="delete it, and run the command again to download it anew",
                ) from error
        try:
            self._knock()
            return _state(timm.create_model(self.name, True))
        except Exception as error:  # the hub's client changes library, and so errors, by version
            raise not_here(self._address(), str(self._place()), error) from error

    def _cached(self) -> Path | None:
        """The file, where huggingface_hub or torch.hub would look for it."""
        from huggingface_hub import try_to_load_from_cache

        cfg = _cfg(self.name)
        if cfg.hf_hub_id:
            repository, _, revision = cfg.hf_hub_id.partition("@")
            for file in _files(cfg):
                found = try_to_load_from_cache(repository, file, revision=revision or None)
                if isinstance(found, str):
                    return Path(found)
            return None
        path = self._place()
        return path if path.is_file() else None

    def _place(self) -> Path:
        """Where a file that was fetched by hand is found."""
        import torch
        from huggingface_hub import constants

        cfg = _cfg(self.name)
        if cfg.hf_hub_id:
            repository, _, revision = cfg.hf_hub_id.partition("@")
            folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
            return folder / "snapshots" / (revision or "main") / _files(cfg)[0]
        return Path(torch.hub.get_dir()) / "checkpoints" / str(cfg.url).rsplit("/", 1)[-1]

    def _address(self) -> str:
        from huggingface_hub import constants

        cfg = _cfg(self.name)
        if cfg.hf_hub_id:
            repository, _, revision = cfg.hf_hub_id.partition("@")
            file = _files(cfg)[0]
            return f"{constants.ENDPOINT}/{repository}/resolve/{revision or 'main'}/{file}"
        return str(cfg.url)

    def _knock(self) -> None:
        """Raise quickly where nobody answers; any answer will do."""
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

        if _cfg(self.name).hf_hub_id:
            get_session().head(constants.ENDPOINT, timeout=ANSWER_S)


@dataclass(frozen=True)
class Unpublished:
    """The source of a model for which timm has no weights: the contract wants at least one set."""

    name: str

    def where(self) -> str:
        return "nowhere"

    def on_disk(self) -> bool:
        return False

    def fetch(self) -> StateDict:
        raise WeightsError(
            f"timm publishes no weights for {self.name}",
            found="no pretrained tag",
            expected="weights to start from",
            do="--weights none to train it from random weights, --weights FILE for your own, "
            "or another --backbone",
        )


def _files(cfg: Any) -> tuple[str, ...]:
    return (cfg.hf_hub_filename,) if cfg.hf_hub_filename else HUB_FILES


def _cfg(name: str) -> Any:
    """The `PretrainedCfg` of NAME or NAME.TAG."""
    from timm.models import PretrainedCfg, get_pretrained_cfg

    return get_pretrained_cfg(name) or PretrainedCfg()


def _state(model: Any) -> StateDict:
    state: StateDict = model.state_dict()
    return state


def _input(name: str) -> InputSpec:
    """The input of a tag, as `timm.data.create_transform` evaluates it."""
    cfg = _cfg(name)
    channels, height, width = cfg.input_size
    resize_px, resize_width_px = (int(side / cfg.crop_pct) for side in (height, width))
    mode = cfg.crop_mode if cfg.crop_mode in ("squash", "border") else "center"
    if mode == "center" and cfg.crop_pct > 1:
        mode = "pad"
    return InputSpec(
        crop_px=height,
        resize_px=resize_px,
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        interpolation="bicubic" if cfg.interpolation == "bicubic" else "bilinear",
        channels=channels,
        crop_mode=mode,
        crop_width_px=0 if width == height else width,
        resize_width_px=0 if width == height else resize_width_px,
    )


def _weights(name: str) -> tuple[WeightSet, ...]:
    import timm

    architecture, _, tag = name.partition(".")
    first = tag or _cfg(architecture).tag
    tags = [one.partition(".")[2] for one in timm.list_pretrained(architecture)]
    if not tags:
        return (
            WeightSet(
                name=UNPUBLISHED,
                input=_input(name),
                source=Unpublished(name),
                licence="none",
                classes=None,
            ),
        )
    return tuple(
        WeightSet(
            name=one,
            input=_input(f"{architecture}.{one}"),
            source=TimmWeights(f"{architecture}.{one}"),
            licence=_cfg(f"{architecture}.{one}").license or "unknown",
            classes=_cfg(f"{architecture}.{one}").num_classes or None,
        )
        for one in sorted(tags, key=lambda one: one != first)
    )


def _build(name: str, weights: Weights) -> Network:
    import timm

    from tlkit_timm.parts import network

    architecture = name.partition(".")[0]
    # A tag can change the network itself (classes, image size), so it is built by its full name.
    plain = weights.name in ("none", "file", UNPUBLISHED)
    full = name if plain else f"{architecture}.{weights.name}"
    model = timm.create_model(full)
    weights.load_into(model)
    return network(model, full, weights.input)


def _names() -> list[str]:
    import timm

    return [*timm.list_models(), *timm.list_pretrained()]


def _backbone(name: str) -> Backbone:
    known = _names()
    if name not in known:
        alike = get_close_matches(name, known, n=8, cutoff=0.0)
        raise unknown(alike, name, "timm model", also=f", or another of timm's {len(known)} names")
    return Backbone(
        name=f"timm/{name}",
        about=f"{name} of timm, pytorch-image-models (Wightman 2019)",
        weights=partial(_weights, name),
        build=partial(_build, name),
    )


def _on_disk() -> list[str]:
    """Names with their tags."""
    import torch
    from huggingface_hub import constants

    places = (Path(constants.HF_HUB_CACHE), Path(torch.hub.get_dir()) / "checkpoints")
    if not any(one.is_dir() and any(one.iterdir()) for one in places):
        return []  # before timm is imported, which takes seconds
    import timm

    return [one for one in timm.list_pretrained() if TimmWeights(one).on_disk()]


timm = Family(
    name="timm",
    about="Every model of timm, pytorch-image-models (Wightman 2019); a tag picks the weights",
    names=_names,
    backbone=_backbone,
    on_disk=_on_disk,
)
