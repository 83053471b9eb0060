"""Parts: a timm model taken apart into features, neck, classifier and stages.

In: a model as timm builds it, with its weights loaded. Out: a `Network`.
timm's models share four methods (`forward_features`, `forward_head`, `get_classifier`,
`reset_classifier`), and nothing here looks further than these. Imported by `build` alone, because
it needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from timm.layers import ClassifierHead  # type: ignore[attr-defined]
from torch import Tensor, nn

from tlkit.backbone import InputSpec, Network
from tlkit.errors import PluginError

METHODS = ("forward_features", "forward_head", "get_classifier", "reset_classifier")


# Models whose `forward_features` gives a list, one tensor for each scale: for these, features go up
# to the pooled vector, given as a map of one pixel.
MULTI_SCALE = ("CoaT", "CrossVit", "EfficientViM")

# Models whose own answer adds a vote of the single tokens to that of the classifier.
VOTING = ("VOLO",)


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
    classifier = _classifier(model)
    model.reset_classifier(0)
    return Network(
        features=Features(model),
        neck=nn.Flatten() if _multi_scale(model) else Neck(model),
        classifier=classifier,
        stages=stages(model),
        input=spec,
    )


def _channels_last(model: nn.Module) -> bool:
    """Whether the model's maps are (B, h, w, F), as Swin's are."""
    return str(getattr(model, "output_fmt", "NCHW")) == "NHWC"


def _multi_scale(model: nn.Module) -> bool:
    return any(kind.__name__ in MULTI_SCALE for kind in type(model).__mro__)


def _classifier(model: Any) -> nn.Module | None:
    """The classifier as (B, D) -> (B, K), or None where there is none of that form.

    Distilled models have two, of two tokens each, and multi-scale ones have one per scale.
    """
    if type(model).__name__ in VOTING:
        return None
    found = model.get_classifier()
    if isinstance(found, ClassifierHead):  # it pools as well, and its pooling stays in the model
        found = found.fc
    if isinstance(found, nn.Conv2d):
        return _linear(found)
    if not isinstance(found, nn.Module) or isinstance(found, nn.Identity | nn.ModuleList):
        return None
    return found


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
