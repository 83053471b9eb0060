"""Assemble: a backbone's parts and a head become one module, which is cut where training begins.

In: a `Network`, how a head is attached, what is frozen. Out: `Assembled`, and a `Cut` of it into a
frozen part (run once per view, stored in the bank) and a trained part (run in the loop).
Not here: the kinds of heads (heads.py), running (device.py), the loop (train/).

    uint8 images -> normalise -> features -> neck -> body -> head -> logits

    attach    body                              head on
    replace   nothing                           D, in place of the classifier
    last      the classifier but its last layer its last layer's inputs
    append    the whole classifier              its K outputs
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlkit.backbone import InputSpec, Network
from tlkit.errors import OptionError, PluginError, raise_machine_error, unknown
from tlkit.model.familiar import Familiar

FREEZE = ("features", "backbone", "none")


class Normalise(nn.Module):
    """(B, channels, H, W) uint8 -> float, scaled to [0, 1], less the mean, by the std."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        shape = (1, spec.channels, 1, 1)
        self.register_buffer("mean", torch.tensor(spec.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(shape), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() / 255 - self.mean) / self.std

    def inverse(self, inputs: Tensor) -> Tensor:
        """What the network sees -> (B, channels, H, W) uint8, for showing; exactly what it was."""
        return ((inputs * self.std + self.mean) * 255).round().clamp(0, 255).to(torch.uint8)


class Pool(nn.Module):
    """Feature map (B, F, h, w) or tokens (B, T, F) -> (B, D).

    avg and max give D = F, avgmax the two one behind the other, D = 2F, flatten every value.
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, features: Tensor) -> Tensor:
        # Places last, channels before them: tokens come the other way round.
        places = features.mT if features.ndim == 3 else features.flatten(2)
        if self.how == "avg":
            return places.mean(dim=2)
        if self.how == "max":
            return places.amax(dim=2)
        if self.how == "avgmax":
            return torch.cat([places.mean(dim=2), places.amax(dim=2)], dim=1)
        return features.flatten(1)

    def extra_repr(self) -> str:
        return self.how


class Pools(nn.Module):
    """Feature map -> the vectors of several necks, one behind the other."""

    def __init__(self, necks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.necks = nn.ModuleList(necks)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([neck(features) for neck in self.necks], dim=1)


class Assembled(nn.Module):
    """(B, channels, H, W) uint8 -> logits (B, C)."""

    def __init__(self, network: Network, neck: nn.Module, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.spec = network.input
        self.stages = dict(network.stages)
        self.normalise = Normalise(network.input)
        self.features = network.features
        self.neck = neck
        self.body = body
        self.head = head
        self.familiar: Familiar | None = None
        """What tells whether an image is like those that the head has learnt from."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.neck(self.features(self.normalise(images)))))
        return logits

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """The modules in the order in which data passes; features stage by stage if they can be."""
        yield "normalise", self.normalise
        if _stage_by_stage(self.features, self.stages):
            for name, stage in self.features.named_children():
                yield f"features.{name}", stage
        else:
            yield "features", self.features
        yield "neck", self.neck
        yield "body", self.body
        yield "head", self.head


def _stage_by_stage(
    features: nn.Module, stages: dict[str, Sequence[nn.Module | nn.Parameter]]
) -> bool:
    """Whether the features are a Sequential of exactly the stages, in order."""
    if type(features) is not nn.Sequential:
        return False
    children = dict(features.named_children())
    return list(children) == list(stages) and all(
        len(parts) == 1 and parts[0] is children[name] for name, parts in stages.items()
    )


def assemble(
    network: Network, make: Callable[[int], nn.Module], *, attach: str, pool: str
) -> Assembled:
    """Join the network's parts and a head; `make` builds the head for the width that it finds.

    Raises `OptionError` where the classifier that `attach` needs is missing or does not fit.
    """
    neck = network.neck if pool == "keep" else Pool(pool)
    body = _body(network, attach)
    width = _width(network, neck, body, pool)
    return Assembled(network, neck, body, make(width))


def _body(network: Network, attach: str) -> nn.Module:
    if attach == "replace":
        return nn.Identity()
    classifier = network.classifier
    if classifier is None:
        raise OptionError(
            f"--attach {attach} needs the backbone's own classifier",
            found=network.why_no_classifier or "weights that never had a trained one",
            expected="a classifier that reads the vector of the neck",
            do="use --attach replace, or another "
            + (
                "--backbone" if network.why_no_classifier else "weight set (`tlkit backbones NAME`)"
            ),
        )
    if attach == "append":
        return classifier
    if isinstance(classifier, nn.Linear):
        return nn.Identity()
    if (
        isinstance(classifier, nn.Sequential)
        and type(classifier).forward is nn.Sequential.forward
        and len(classifier)
        and isinstance(classifier[-1], nn.Linear)
    ):
        # Not classifier[:-1]: a class of its own may not be made from its layers.
        return nn.Sequential(OrderedDict(list(classifier.named_children())[:-1]))
    raise OptionError(
        "--attach last needs a classifier that ends in a linear layer",
        found=f"a classifier of the kind {type(classifier).__name__}",
        expected="Linear, or Sequential ending in Linear",
        do="use --attach replace or --attach append",
    )


def _width(network: Network, neck: nn.Module, body: nn.Module, pool: str) -> int:
    """What one image has become before the head, found by passing an empty one through."""
    spec = network.input
    parts = (network.features, neck, body)
    # Of a network that was placed already, where it is.
    where = next((one.device for part in parts for one in part.parameters()), None)
    image = torch.zeros(1, spec.channels, *spec.size, device=where)
    modes = [[(one, one.training) for one in part.modules()] for part in parts]
    try:
        with torch.no_grad():
            for part in parts:
                part.eval()
            vector = neck(network.features(image))
            try:
                vector = body(vector)
            except RuntimeError as error:
                raise_machine_error(error)
                raise OptionError(
                    f"--pool {pool} does not fit the classifier that is kept",
                    found=f"vectors of {vector.shape[1]} numbers from the pooling",
                    expected="what the backbone's classifier was trained on",
                    do="use --pool keep, or --attach replace",
                ) from error
    finally:
        for mode in modes:
            for module, training in mode:
                module.training = training
    if vector.ndim != 2:
        raise PluginError(
            "the backbone breaks the contract",
            found=f"a neck that gives {tuple(vector.shape)}",
            expected="(B, D)",
            do="tell the plugin's author; `tlkit.testing` has the checks",
        )
    return int(vector.shape[1])


@dataclass(frozen=True, kw_only=True)
class Cut:
    """An assembled model in two: what never changes, and what is trained."""

    model: Assembled
    frozen: nn.Sequential
    """uint8 images -> what the bank stores."""
    trained: nn.Sequential
    """What the bank stores -> logits."""
    still: tuple[nn.Module, ...]
    """Frozen modules inside the trained part: they stay in eval mode."""
    at: str
    """The first trained part; `normalise` never, the first stage where nothing is frozen."""

    @property
    def has_bank(self) -> bool:
        """Whether anything worth storing is frozen."""
        return len(self.frozen) > 1

    @property
    def head_only(self) -> bool:
        """Whether the head alone is trained."""
        return self.at == "head"

    def training(self, on: bool) -> None:
        """Training or evaluation mode. What is frozen is in evaluation mode in both."""
        self.model.eval()
        if on:
            self.trained.train()
            for module in self.still:
                module.eval()

    def open_stages(self) -> dict[str, Sequence[nn.Module | nn.Parameter]]:
        """The stages of the features that are trained, in order."""
        return {
            name: parts
            for name, parts in self.model.stages.items()
            if any(one.requires_grad for part in parts for one in parameters_of(part))
        }

    def open_norms(self) -> list[nn.Module]:
        """The BatchNorms of the backbone that are not frozen."""
        still = {id(inner) for one in self.still for inner in one.modules()}
        model = self.model
        return [
            module
            for part in (model.features, model.neck, model.body)
            for module in part.modules()
            if isinstance(module, _BatchNorm)
            and id(module) not in still
            and any(one.requires_grad for one in module.parameters())
        ]

    @contextmanager
    def holding(
        self, parts: Sequence[nn.Module | nn.Parameter], *, statistics: bool
    ) -> Iterator[None]:
        """Training mode in which these parts too stay as they are, until the block ends.

        `statistics` keeps those of the backbone's BatchNorms, whose scale and shift still learn.
        """
        self.training(True)
        if statistics:
            for module in self.open_norms():
                module.eval()
        held = []
        for part in parts:
            if isinstance(part, nn.Module):
                part.eval()
            held += [one for one in parameters_of(part) if one.requires_grad]
        for one in held:
            one.requires_grad_(False)
        try:
            yield
        finally:
            for one in held:
                one.requires_grad_(True)

    def trained_tensors(self) -> dict[str, Tensor]:
        """Names in the model -> the parameters that are trained, and the buffers beside them."""
        frozen = {
            id(tensor)
            for module in (self.frozen, *self.still)
            for tensor in (*module.parameters(), *module.buffers())
        }
        frozen |= {id(one) for one in self.model.parameters() if not one.requires_grad}
        state = self.model.state_dict(keep_vars=True)
        return {name: value for name, value in state.items() if id(value) not in frozen}

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy trained tensors, by their names, back into the model."""
        with torch.no_grad():
            for name, one in self.trained_tensors().items():
                one.copy_(tensors[name])

    def frozen_tensors(self) -> dict[str, Tensor]:
        """Names in the model -> every tensor that a fit leaves as it is."""
        trained = self.trained_tensors()
        state = self.model.state_dict(keep_vars=True)
        return {name: value for name, value in state.items() if name not in trained}


def parameters_of(part: nn.Module | nn.Parameter) -> Iterator[nn.Parameter]:
    """The parameters of a stage's part, which may be one itself."""
    return part.parameters() if isinstance(part, nn.Module) else iter((part,))


def cut(model: Assembled, freeze: str) -> Cut:
    """Freeze as told and cut where the first trained part begins.

    `freeze`: `features`, `backbone` (all but the head), `none`, or `to:STAGE` (the stages up to
    and with that one). Raises `UnknownName` for another word or stage.
    """
    still = _frozen_modules(model, freeze)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for one in still:
        for parameter in parameters_of(one):
            parameter.requires_grad_(False)
    modules = {id(inner) for one in still if isinstance(one, nn.Module) for inner in one.modules()}
    parts = list(model.parts())
    border = 1
    if freeze != "none":
        for _, part in parts[1:-1]:
            if id(part) not in modules and any(p.requires_grad for p in part.parameters()):
                break
            if id(part) not in modules and _not_yet(part, model, freeze):
                break
            border += 1
    result = Cut(
        model=model,
        frozen=nn.Sequential(*(part for _, part in parts[:border])),
        trained=nn.Sequential(*(part for _, part in parts[border:])),
        still=tuple(one for one in still if isinstance(one, nn.Module)),
        at=parts[border][0],
    )
    result.training(False)
    return result


def _not_yet(part: nn.Module, model: Assembled, freeze: str) -> bool:
    """Whether a part without parameters belongs to the trained side.

    Dropout in a classifier that is trained does, though it has nothing to train.
    """
    return part is model.body and freeze != "backbone" and any(True for _ in part.children())


def _frozen_modules(model: Assembled, freeze: str) -> list[nn.Module | nn.Parameter]:
    """The modules, and the parameters outside any stage's module, that the word freezes."""
    if freeze == "none":
        return []
    if freeze in ("features", "backbone"):
        return [model.features, model.neck, *([model.body] if freeze == "backbone" else [])]
    kind, _, stage = freeze.partition(":")
    if kind != "to" or not stage:
        raise unknown((*FREEZE, "to:STAGE"), freeze, "part to freeze")
    names = list(model.stages)
    if stage not in names:
        raise unknown([f"to:{one}" for one in names], freeze, "part to freeze")
    return [part for name in names[: names.index(stage) + 1] for part in model.stages[name]]
