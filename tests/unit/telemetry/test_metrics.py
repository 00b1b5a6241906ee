"""Metrics live in their own registry and are served over HTTP."""

from __future__ import annotations

import asyncio
import urllib.request

import pytest

from shared.telemetry.metrics import Metrics, serve_metrics


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        return str(reply.read().decode())


@pytest.mark.asyncio
async def test_what_is_counted_is_served() -> None:
    metrics = Metrics()
    metrics.job_slices.labels("detect", "succeeded").inc()
    metrics.outbox_lag_seconds.set(1.5)
    endpoint = serve_metrics(metrics, host="127.0.0.1", port=0)
    try:
        text = await asyncio.to_thread(fetch, endpoint.port)
    finally:
        await endpoint.close()
    assert 'kith_job_slices_total{kind="detect",outcome="succeeded"} 1.0' in text
    assert "kith_outbox_lag_seconds 1.5" in text


def test_two_in_one_process_do_not_meet() -> None:
    one, other = Metrics(), Metrics()
    one.faces.inc()
    assert other.registry.get_sample_value("kith_faces_total") == 0


@pytest.mark.asyncio
async def test_a_taken_port_is_said_clearly() -> None:
    endpoint = serve_metrics(Metrics(), host="127.0.0.1", port=0)
    try:
        with pytest.raises(OSError, match=rf"metrics: cannot listen on 127\.0\.0\.1:{endpoint.port}"):
            serve_metrics(Metrics(), host="127.0.0.1", port=endpoint.port)
    finally:
        await endpoint.close()
