"""Metrics: what is counted of a server, as Prometheus reads it."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The counters of one server."""

    registry: CollectorRegistry
    """Of one server, not of the process: there may be several in one."""
    requests: Counter
    seconds: Histogram
    waiting: Gauge
    images: Counter
    batches: Histogram

    def text(self) -> bytes:
        """All of them, in the text format of Prometheus."""
        return generate_latest(self.registry)


def metrics() -> Metrics:
    """New ones, all at nought."""
    into = CollectorRegistry()
    ProcessCollector(registry=into)
    return Metrics(
        registry=into,
        requests=Counter(
            "tlkit_requests", "Requests by path and status.", ("path", "status"), registry=into
        ),
        seconds=Histogram(
            "tlkit_request_seconds", "Seconds until it was answered.", ("path",), registry=into
        ),
        waiting=Gauge(
            "tlkit_waiting_requests", "Requests that are read or answered now.", registry=into
        ),
        images=Counter(
            "tlkit_images", "Images by what became of them.", ("result",), registry=into
        ),
        batches=Histogram(
            "tlkit_batch_images", "Images that went through the network together.",
            buckets=BATCHES, registry=into,
        ),
    )  # fmt: skip
