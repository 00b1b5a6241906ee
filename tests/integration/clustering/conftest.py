"""The clustering service with its neighbours, in the test's own event loop, on real sockets."""

from __future__ import annotations

import pytest

from tests.integration.clustering.kit import Kith, start_kith
from tests.integration.conftest import Running


@pytest.fixture
async def kith(running: Running) -> Kith:
    """A persons server, a clustering server and its worker."""
    return await start_kith(running)
