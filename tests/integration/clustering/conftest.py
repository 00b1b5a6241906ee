"""The clustering service with its neighbours, in the test's own event loop, on real sockets."""

from __future__ import annotations

import pytest

from services.clustering import jobs
from services.clustering.computing import CentroidComputer
from services.clustering.domain.model import ClusteringDeps
from services.clustering.grouping.increment import place_faces
from services.clustering.grouping.pipeline import group_faces
from services.clustering.wiring import build_deps
from shared.foundation import Foundation
from tests.integration.clustering.following import INTERVAL_S, People
from tests.integration.clustering.kit import Kith, crowd, start_kith
from tests.integration.conftest import Running
from tests.integration.foundations.clock import StillClock
from tests.integration.library import SeededFaces, seed_faces


@pytest.fixture
async def kith(running: Running) -> Kith:
    """A persons server, a clustering server and its worker."""
    return await start_kith(running)


@pytest.fixture
def grouping_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Group in a thread of the test: a new process takes seconds to import what it needs."""
    monkeypatch.setattr(jobs, "group_in_process", group_faces)
    monkeypatch.setattr(jobs, "place_in_process", place_faces)


@pytest.fixture
def clock() -> StillClock:
    """For what computes centroids: an interval passes when a test says so."""
    return StillClock()


@pytest.fixture
def deps(base: Foundation, clock: StillClock) -> ClusteringDeps:
    """With that clock."""
    made = build_deps(base)
    settings = made.settings.model_copy(update={"centroid_interval_s": INTERVAL_S, "centroid_poll_s": 0.05})
    return ClusteringDeps(clock, made.ids, settings, made.quality, made.suggestions)


@pytest.fixture
def computer(base: Foundation, deps: ClusteringDeps) -> CentroidComputer:
    """One worker's."""
    return CentroidComputer(base.database, deps)


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    """Twelve faces, six and six alike."""
    return await seed_faces(base, crowd(6, 6), with_collections=False)


@pytest.fixture
def people(base: Foundation) -> People:
    """The persons service without its server."""
    return People(base)
