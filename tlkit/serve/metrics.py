"""Metrics: what is counted of a server, as Prometheus reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

ANSWERED, UNSURE, UNREADABLE = "answered", "unsure", "unreadable"

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def _registry() -> CollectorRegistry:
    """Of one server, not of the process: there may be several in one."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


@dataclass(frozen=True)
class Metrics:
    """The counters of one server."""

    registry: CollectorRegistry = field(default_factory=_registry)
    requests: Counter = field(init=False)
    seconds: Histogram = field(init=False)
    waiting: Gauge = field(init=False)
    images: Counter = field(init=False)
    batches: Histogram = field(init=False)

    def __post_init__(self) -> None:
        made = {
            "requests": Counter(
                "tlkit_requests", "Requests by path and status.", ("path", "status"),
                registry=self.registry,
            ),
            "seconds": Histogram(
                "tlkit_request_seconds", "Seconds until a request was answered.", ("path",),
                registry=self.registry,
            ),
            "waiting": Gauge(
                "tlkit_waiting_requests", "Requests that are read or answered now.",
                registry=self.registry,
            ),
            "images": Counter(
                "tlkit_images", "Images by what became of them.", ("result",),
                registry=self.registry,
            ),
            "batches": Histogram(
                "tlkit_batch_images", "Images that went through the network together.",
                buckets=BATCHES, registry=self.registry,
            ),
        }  # fmt: skip
        for name, one in made.items():
            object.__setattr__(self, name, one)

    def text(self) -> bytes:
        """All of them, in the text format of Prometheus."""
        return generate_latest(self.registry)
