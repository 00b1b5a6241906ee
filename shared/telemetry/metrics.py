"""Metrics of one process, in its own registry, in the words of the product.

Built once by the process's wiring and passed to whoever counts. Labels have few values (a method, a status, a job kind),
never an id.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

RPC_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WORK_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class Metrics:
    """Every metric of Kith. A process uses those of its work; the others stay at zero or absent."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.rpc_calls = self._counter("kith_rpc_calls", "Calls ended.", "service", "method", "code")
        self.rpc_seconds = self._histogram(
            "kith_rpc_seconds",
            "From a call's first byte to its status.",
            RPC_BUCKETS_S,
            "service",
            "method",
            "code",
        )
        self.rpc_in_flight = self._gauge("kith_rpc_in_flight", "Calls being served.", "service", "method")
        self.rpc_refused = self._counter("kith_rpc_refused", "Calls refused before any work.", "reason")
        self.ready = self._gauge("kith_ready", "1 while a readiness check passes.", "check")

        self.job_slices = self._counter("kith_job_slices", "Job slices ended.", "kind", "outcome")
        self.job_slice_seconds = self._histogram(
            "kith_job_slice_seconds", "One slice, from lease to end.", WORK_BUCKETS_S, "kind"
        )
        self.job_items = self._counter("kith_job_items", "Items jobs have worked through.", "kind", "outcome")
        self.jobs_ended = self._counter("kith_jobs_ended", "Jobs that reached a terminal state.", "kind", "state")

        self.outbox_pending = self._gauge("kith_outbox_pending", "Outbox entries not yet in Qdrant.")
        self.outbox_lag_seconds = self._gauge("kith_outbox_lag_seconds", "Age of the oldest such entry.")
        self.outbox_relayed = self._counter("kith_outbox_relayed", "Outbox entries brought to Qdrant.", "outcome")

        self.people_to_settle = self._gauge("kith_people_to_settle", "Persons not yet brought up to their faces.")
        self.people_to_settle_seconds = self._gauge("kith_people_to_settle_seconds", "Age of the oldest such entry.")

        self.centroids_to_compute = self._gauge(
            "kith_centroids_to_compute", "Persons whose centroids do not follow their faces yet."
        )
        self.centroids_to_compute_seconds = self._gauge(
            "kith_centroids_to_compute_seconds", "Age of the oldest such entry."
        )

        self.detector_waiting = self._gauge("kith_detector_waiting", "Photos waiting for inference.")
        self.detector_running = self._gauge("kith_detector_running", "Photos in a run of the models.")
        self.detector_held_bytes = self._gauge("kith_detector_held_bytes", "Decoded photos held for inference.")
        self.detector_batch_photos = self._histogram(
            "kith_detector_batch_photos", "Photos taken from the queue at once.", BATCH_BUCKETS
        )
        self.detector_wait_seconds = self._histogram(
            "kith_detector_wait_seconds", "From a photo's place in the queue to its turn.", RPC_BUCKETS_S
        )
        self.model_info = self._gauge(
            "kith_model_info", "1 for the loaded model.", "pack", "model_version", "provider", "dimension"
        )
        self.detector_seconds = self._histogram(
            "kith_detector_seconds",
            "One photo, one stage (read, decode, detect).",
            RPC_BUCKETS_S,
            "stage",
        )
        self.faces = self._counter("kith_faces", "Faces found by the detector.")
        self.crops = self._counter(
            "kith_crops", "Crops asked for: kept from before, cut, or shared with a call at the same moment.", "outcome"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)


@dataclass(frozen=True, slots=True)
class MetricsEndpoint:
    """The running HTTP endpoint; a thread of its own, so a busy event loop still answers the scraper."""

    port: int
    server: WSGIServer
    thread: Thread

    async def close(self) -> None:
        """Stop answering and free the port."""
        await asyncio.to_thread(self.server.shutdown)
        self.server.server_close()
        self.thread.join()


def serve_metrics(metrics: Metrics, *, host: str, port: int) -> MetricsEndpoint:
    """Answer ``GET /metrics`` in Prometheus text. ``port`` 0 takes a free one. Raises ``OSError`` if it is taken."""
    try:
        server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    except OSError as error:
        raise OSError(error.errno, f"metrics: cannot listen on {host}:{port}: {error.strerror}") from error
    return MetricsEndpoint(port=int(server.server_port), server=server, thread=thread)
