"""Model card: what somebody who finds an exported network should know, in Markdown.

In the format of the Hugging Face hub: YAML between two lines of dashes, then text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlkit.card import Card
from tlkit.errors import few, printable

if TYPE_CHECKING:
    from tlkit.export.formats import Format

LICENCES = {"apache-2.0": "apache-2.0", "bsd-3-clause": "bsd-3-clause", "mit": "mit"}
"""Those that the hub has a word for, as weight sets write them in small letters."""


def model_card(card: Card, form: Format, compared: Mapping[str, Any], steps: Sequence[str]) -> str:
    """Write the card of an export, from the head's card and what comparing it has shown.

    `steps` are those of its preprocessing, in words.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    validation = card.metrics.get("validation")
    scores = validation if isinstance(validation, dict) else {}
    licence = LICENCES.get(card.weights.licence.lower(), "other")
    environment = Environment(
        loader=PackageLoader("tlkit.export", ""),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown; names are made harmless by `named`
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    environment.filters["named"] = _named
    environment.filters["quoted"] = json.dumps
    return environment.get_template("README.md.jinja").render(
        card=card,
        form=form,
        compared=compared,
        steps=steps,
        licence=licence,
        accuracy=scores.get("accuracy"),
        interval=scores.get("accuracy_95"),
        classes=few([_named(one) for one in card.classes], most=40),
    )


def _named(text: str) -> str:
    """A name that Markdown and HTML take as it is."""
    shown = printable(text).replace("\n", " ")
    return "".join(f"\\{one}" if one in r"\`*_{}[]<>()#+-.!|&~" else one for one in shown)
