"""The laws of rows that a package brings: heads, policies, presets, parts of reports.

In: a `HeadKind`, `Policy`, `Preset` or `Part`. Out: nothing, or a `PluginError` that says what is
wrong.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from tlkit.backbone import InputSpec
from tlkit.errors import PluginError, briefly

if TYPE_CHECKING:
    from tlkit.data.transforms import Preset
    from tlkit.model.heads import HeadKind
    from tlkit.predict.tta import Policy
    from tlkit.report.part import Part


def check_row(row: HeadKind | Policy | Preset | Part) -> None:
    """Hold a row against all that is asked of its kind. Raises `PluginError`.

    A head: logits for every width and number of classes; every parameter learns; eval is
    deterministic; its tensors are all that it is; it has the options that it says, and no other;
    `convex` only if lbfgs can solve it.
    A policy: views that can be cut at several input sizes, with every option that it takes.
    A preset: pixels as the network takes them from images of any shape; a view is a function of
    the seed, the image's number and its own, whatever was asked before; `distinct` is what it says.
    A part of reports: a name that a page can link to, and a template; a report shows the rest.
    """
    from tlkit.data.transforms import Preset
    from tlkit.model.heads import HeadKind
    from tlkit.predict.tta import Policy
    from tlkit.report.part import Part

    try:
        if isinstance(row, HeadKind):
            _head(row)
        elif isinstance(row, Policy):
            _policy(row)
        elif isinstance(row, Preset):
            _preset(row)
        elif isinstance(row, Part):
            _part(row)
        else:
            raise _wrong("a row is of another kind", type(row).__name__, "a row of a table")
    except PluginError:
        raise
    except Exception as error:  # a stranger's code
        raise _wrong("its code fails", briefly(error), "no error") from error


def _wrong(about: str, found: str, expected: str) -> PluginError:
    return PluginError(about, found=found, expected=expected, do="correct the row")


def _must(holds: bool, about: str, found: object, expected: str) -> None:
    if not holds:
        raise _wrong(about, str(found), expected)


def _head(kind: HeadKind) -> None:
    import torch

    from tlkit.model.heads import SOLVABLE, is_solvable

    torch_state = torch.random.get_rng_state()
    try:
        for width, classes in ((7, 2), (320, 11)):
            layers = kind.make(width, classes, 16, 0.5)
            vectors = torch.randn(6, width)
            logits = layers(vectors)
            _must(
                tuple(logits.shape) == (6, classes),
                "a head gives something else than a logit per class",
                tuple(logits.shape), f"(6, {classes}) of (6, {width})",
            )  # fmt: skip
            logits.square().sum().backward()
            idle = [name for name, one in layers.named_parameters() if one.grad is None]
            _must(not idle, "a head has parameters that do not learn", idle, "a gradient for each")
            layers.eval()
            once, again, alone = layers(vectors), layers(vectors), layers(vectors[:1])
            _must(
                torch.equal(once, again) and torch.allclose(once[:1], alone, atol=1e-5),
                "a head in eval mode gives one image two answers",
                "logits that differ", "no chance, and no word of the other images of a batch",
            )  # fmt: skip
            _must(
                not kind.convex or is_solvable(layers),
                "a head is not convex", type(layers).__name__, SOLVABLE,
            )  # fmt: skip
            twin = kind.make(width, classes, 16, 0.5).eval()
            twin.load_state_dict(layers.state_dict())
            _must(
                torch.equal(twin(vectors), once),
                "a head is not what its tensors say", "another answer, loaded into another one",
                "all that it learns or draws in its state_dict",
            )  # fmt: skip
        plain = repr(kind.make(7, 3, 16, 0.5))
        for name, other in (("hidden", (7, 3, 17, 0.5)), ("dropout", (7, 3, 16, 0.25))):
            _must(
                (repr(kind.make(*other)) != plain) == (name in kind.uses),
                f"a head says otherwise whether it uses {name}", sorted(kind.uses),
                f"{name} among `uses` if it has an effect, and else not",
            )  # fmt: skip
    finally:
        torch.random.set_rng_state(torch_state)


def _spec(px: int, channels: int = 3) -> InputSpec:
    half = (0.5,) * channels
    return InputSpec(crop_px=px, resize_px=px + px // 7, mean=half, std=half, channels=channels)


def _policy(policy: Policy) -> None:
    from tlkit.options import PredictOptions
    from tlkit.predict.tta import held_views

    every = {"scales": ("auto", "300,400"), "grid": (1, 4), "mirror": (True, False)}
    taken = {name: values for name, values in every.items() if name in policy.uses}
    other = policy.uses - every.keys()
    _must(not other, "a policy takes what is no option", sorted(other), "of scales, grid, mirror")
    for px, values in product((32, 224), product(*taken.values())):
        options: dict[str, Any] = dict(zip(taken, values, strict=True))
        held_views(policy, "of this row", _spec(px), PredictOptions(**options))


def _preset(preset: Preset) -> None:
    import numpy as np

    from tlkit.data.transforms import held_look, plain

    random = np.random.default_rng(0)
    shapes = ((64, 48), (48, 300), (90, 33), (5, 4))
    images = [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    for spec in (_spec(32), _spec(56), _spec(32, channels=1)):
        look, again = (held_look(preset, "of this row", spec, 3, "auto") for _ in range(2))
        views = [(n, v) for n in range(len(images)) for v in range(4)]
        seen = {one: look(images[one[0]], *one).copy() for one in views}
        same = all(np.array_equal(seen[n, v], again(images[n], n, v)) for n, v in reversed(views))
        _must(
            same, "a preset gives a view twice, and not the same",
            "pixels that depend on what was asked before",
            "a function of the seed, the image's number and the view's",
        )  # fmt: skip
        if preset.distinct is not None:
            _must(
                np.array_equal(seen[0, 0], plain(spec, images[0])),
                "the first view of a preset is not the plain one", "other pixels",
                "tlkit.data.transforms.plain(spec, image), or distinct=None",
            )  # fmt: skip
            count = preset.distinct
            repeats = all(
                np.array_equal(look(images[0], 0, v), look(images[0], 9, v + count))
                for v in range(count)
            )
            _must(
                repeats, "a preset has other views than it says", "a view that does not come again",
                f"view {count} as view 0 for every image, or distinct=None",
            )  # fmt: skip


def _part(part: Part) -> None:
    from tlkit.report.html import environment
    from tlkit.report.page import NAME

    _must(
        NAME.fullmatch(part.name) is not None,
        "a part has a name that cannot be linked to", part.name,
        "lower-case letters, digits and hyphens",
    )  # fmt: skip
    environment().from_string(part.template)
