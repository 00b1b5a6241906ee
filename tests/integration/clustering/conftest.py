"""The clustering service with its neighbours, in the test's own event loop, on real sockets."""

from __future__ import annotations

import pytest

from services.clustering import jobs
from services.clustering.grouping.pipeline import group_faces
from tests.integration.clustering.kit import Kith, start_kith
from tests.integration.conftest import Running


@pytest.fixture
async def kith(running: Running) -> Kith:
    """A persons server, a clustering server and its worker."""
    return await start_kith(running)


@pytest.fixture
def grouping_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Group in a thread of the test: a new process takes seconds to import what it needs."""
    monkeypatch.setattr(jobs, "group_in_process", group_faces)
