"""All servers, with the collections of two models whose faces are put there by a test."""

from __future__ import annotations

import pytest

from services.clustering import jobs
from services.clustering.grouping.pipeline import group_faces
from shared.config import ModelSettings, Provider, Settings
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.detection.conftest import DEMO_PACK
from tests.integration.exclusions.lookalikes import DIMENSION, NEXT
from tests.integration.exclusions.servers import Servers, start_servers
from tests.integration.library import MODEL


@pytest.fixture
async def settings(settings: Settings) -> Settings:
    """With a pack, which the detection server needs to start; more faces may be looked for at any time."""
    model = ModelSettings(pack=str(DEMO_PACK), provider=Provider.CPU)
    suggestions = settings.suggestions.model_copy(update={"auto_find_more_gap_s": 0.0})
    return settings.model_copy(update={"model": model, "suggestions": suggestions})


@pytest.fixture
async def servers(running: Running, base: Foundation, monkeypatch: pytest.MonkeyPatch) -> Servers:
    """Everything runs; groups are made in a thread, as a new process takes seconds to import what it needs."""
    monkeypatch.setattr(jobs, "group_in_process", group_faces)
    for version in (MODEL, NEXT):
        await base.collections.create_missing(version, DIMENSION)
    return await start_servers(running)
