"""Parts: a timm model taken apart into features, neck, classifier and stages.

In: a model as timm builds it, with its weights loaded. Out: a `Network`.
timm's models share four methods (`forward_features`, `forward_head`, `get_classifier`,
`reset_classifier`), and nothing here looks further than these. Imported by `build` alone, because
it needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tlkit.backbone import InputSpec, Network
from tlkit.errors import PluginError

METHODS = ("forward_features", "forward_head", "get_classifier", "reset_classifier")


# Models whose `forward_features` gives a list, one tensor for each scale: for these, features go up
# to the pooled vector, given as a map of one pixel.
MULTI_SCALE = ("CoaT", "CrossVit", "EfficientViM")

# Models with two classifiers that both read the pooled vector; timm averages their logits.
TWO_ON_ONE_VECTOR = ("LevitDistilled", "EfficientFormer", "EfficientFormerV2", "SwiftFormer")

# Models whose answer is no function of the pooled vector, and why.
NOT_OF_THE_VECTOR = {
    "VOLO": "its answer adds votes of the single tokens to that of its classifier",
    "VisionTransformerDistilled": "its two classifiers read one token each, and the pooled vector "
    "is the mean of these tokens",
    "PoolingVisionTransformer": "its two classifiers read one token each, and the pooled vector "
    "is the mean of these tokens",
}


class Features(nn.Module):
    """A timm model without its classifier: (B, 3, H, W) -> (B, F, h, w) or tokens (B, T, F)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.multi_scale = _multi_scale(model)
        self.channels_last = _channels_last(model)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.model.forward_features(images)
        if self.multi_scale:
            pooled: Tensor = self.model.forward_head(found, pre_logits=True)
            return pooled[:, :, None, None]
        return found.permute(0, 3, 1, 2) if self.channels_last and found.ndim == 4 else found


class Neck(nn.Module):
    """The same model's pooling: (B, F, h, w) or (B, T, F) -> (B, D)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # In a tuple, where nn.Module does not see it: the parameters belong to `Features`, and must
        # not be counted, frozen or saved a second time. deepcopy still keeps both halves on one
        # model, when they are copied together.
        self.shared = (model,)
        self.channels_last = _channels_last(model)

    def forward(self, found: Tensor) -> Tensor:
        (model,) = self.shared
        if self.channels_last and found.ndim == 4:
            found = found.permute(0, 2, 3, 1)
        pooled: Tensor = model.forward_head(found, pre_logits=True)  # type: ignore[operator]
        return pooled.flatten(1)


class Averaged(nn.Module):
    """Average the logits of several classifiers of one vector: (B, D) -> (B, K)."""

    def __init__(self, classifiers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(classifiers)

    def forward(self, vectors: Tensor) -> Tensor:
        return torch.stack([one(vectors) for one in self.classifiers]).mean(dim=0)


class PerScale(nn.Module):
    """Weigh the logits of classifiers that read one scale each: (B, D) -> (B, K).

    The vector is that of all scales, one behind the other. Without weights each counts the same.
    """

    def __init__(self, classifiers: Iterable[nn.Module], weights: Tensor | None = None) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(classifiers)
        self.widths = [int(one.in_features) for one in self.classifiers]  # type: ignore[arg-type]
        # A copy: the model keeps its own, which its features no longer use.
        self.weights = None if weights is None else nn.Parameter(weights.detach().clone())

    def forward(self, vectors: Tensor) -> Tensor:
        scales = zip(self.classifiers, vectors.split(self.widths, dim=1), strict=True)
        logits = torch.stack([classifier(vector) for classifier, vector in scales])
        if self.weights is None:
            return logits.mean(dim=0)
        return (self.weights.softmax(dim=0)[:, None, None] * logits).sum(dim=0)


def network(model: Any, name: str, spec: InputSpec) -> Network:
    """The model in parts. It is taken over: its classifier is removed."""
    missing = [method for method in METHODS if not hasattr(model, method)]
    if missing:
        raise PluginError(
            f"timm/{name} is no image classifier",
            found=f"a {type(model).__name__} without {', '.join(missing)}",
            expected="a model with timm's common methods",
            do="choose another --backbone",
        )
    classifier, why_none = _take_classifier(model)
    return Network(
        features=Features(model),
        neck=nn.Flatten() if _multi_scale(model) else Neck(model),
        classifier=classifier,
        stages=stages(model),
        input=spec,
        why_no_classifier=why_none,
    )


def _channels_last(model: nn.Module) -> bool:
    """Whether the model's maps are (B, h, w, F), as Swin's are."""
    return str(getattr(model, "output_fmt", "NCHW")) == "NHWC"


def _multi_scale(model: nn.Module) -> bool:
    return any(kind.__name__ in MULTI_SCALE for kind in type(model).__mro__)


def _take_classifier(model: Any) -> tuple[nn.Module | None, str]:
    """Remove the model's classifier; return it as (B, D) -> (B, K), or None and why there is none.

    What timm removes is the classifier, all of it: for some models `get_classifier` names only its
    last layer, without the BatchNorm in front.
    """
    given = model.get_classifier()
    modules = dict(model.named_modules())
    before = dict(_tensors(model))
    model.reset_classifier(0)
    left = {id(tensor) for _, tensor in _tensors(model)}
    removed = {name for name, tensor in before.items() if id(tensor) not in left}
    if not removed:
        return None, ""
    kind = type(model).__name__
    if kind in NOT_OF_THE_VECTOR and (isinstance(given, tuple) or kind == "VOLO"):
        return None, NOT_OF_THE_VECTOR[kind]
    joined = _joined(model, given)
    if joined is not None:
        return joined, ""
    still_there = {id(module) for module in model.modules()}
    for name, module in modules.items():
        # The outermost module that is the classifier and nothing else.
        inside = {tensor for tensor in before if tensor.startswith(f"{name}.")}
        if name and inside == removed and id(module) not in still_there:
            return _linear(module) if isinstance(module, nn.Conv2d) else module, ""
    return None, f"a {kind} has several classifiers, and tlkit does not know how timm joins them"


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer by name, each once."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _joined(model: Any, given: Any) -> nn.Module | None:
    """Several classifiers as one, where it is known how timm joins their answers."""
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if isinstance(given, tuple) and kinds & set(TWO_ON_ONE_VECTOR):
        return Averaged(given)
    if "CrossVit" in kinds:
        return PerScale(given)
    if "EfficientViMDistilled" in kinds:
        classifiers = zip(given, (model.weights, model.weights_dist), strict=True)
        return Averaged(PerScale(*one) for one in classifiers)
    if "EfficientViM" in kinds:
        return PerScale(given, model.weights)
    return None


def _linear(conv: nn.Conv2d) -> nn.Linear:
    """A 1 x 1 convolution over one pixel, as the linear layer that it is."""
    linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None)
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1))
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach())
    return linear


def stages(model: nn.Module) -> dict[str, tuple[nn.Module | nn.Parameter, ...]]:
    """The model's parts in the order of their definition, which is nearly always that of use.

    Containers are opened one level: layer1.0, layer1.1. What the model holds itself (class token,
    positions) comes first, as `embed`.
    """
    found: dict[str, tuple[nn.Module | nn.Parameter, ...]] = {}
    taken: set[nn.Parameter] = set()
    for name, part in _parts(model):
        parameters = tuple(part) if isinstance(part, list) else tuple(part.parameters())
        fresh = tuple(one for one in parameters if one not in taken)
        # A part that shares parameters with an earlier one is given by the rest of them.
        whole = isinstance(part, nn.Module) and len(fresh) == len(parameters)
        if fresh:
            found[name] = (part,) if whole else fresh  # type: ignore[assignment]
        taken.update(fresh)
    return found


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module | list[nn.Parameter]]]:
    """The model's children, containers opened, after the parameters that it holds itself."""
    yield "embed", list(model.parameters(recurse=False))
    for name, part in model.named_children():
        if not isinstance(part, nn.Sequential | nn.ModuleList):
            yield name, part
            continue
        yield name, list(part.parameters(recurse=False))
        for inner_name, inner in part.named_children():
            yield f"{name}.{inner_name}", inner
