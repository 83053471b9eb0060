"""Origin: the command and the versions that the head is from, by its card."""

from __future__ import annotations

from dataclasses import asdict

from tlkit.report.part import Made, Part, Subject


def origin(subject: Subject) -> Made:
    """What it takes to make the same head again."""
    card = subject.cards[0]
    return Made(
        data={
            "command": subject.command or None,
            "created": card.created,
            "backbone": card.backbone,
            "plugin": {"distribution": card.distribution, "version": card.distribution_version},
            "weights": asdict(card.weights),
            "input": asdict(card.input),
            "precision": card.precision,
            "options": dict(card.options),
            "images": dict(card.images),
            "versions": dict(card.versions),
            "heads": [one.tensors_sha256 for one in subject.cards],
        },
    )


ORIGIN = Part(
    name="origin",
    title="Where it comes from",
    make=origin,
    template="origin.html",
    keys={
        "command": "of the fit; null where the run folder does not say",
        "created": "UTC, ISO 8601",
        "backbone": "its name",
        "plugin": "distribution and version that bring it",
        "weights": "that the backbone had before the fit: name, licence, classes, digest",
        "input": "size, resize, mean, std, interpolation, channels",
        "precision": "that it was fitted in",
        "options": "all of them, with what auto became",
        "images": "learnt from, validated on, left out",
        "versions": "of tlkit and of the libraries",
        "heads": "the digest of each head's tensors",
    },
)
