"""Fixtures of the tests of people."""

from __future__ import annotations

import pytest

from services.persons.server import start
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.persons.client import PersonsClient
from tests.integration.persons.forgetting import World
from tests.integration.persons.forgotten import index_world


@pytest.fixture
async def client(running: Running) -> PersonsClient:
    """A persons server, called."""
    return PersonsClient(await running.server("persons", start))


@pytest.fixture
async def world(client: PersonsClient, base: Foundation) -> World:
    """Somebody to be forgotten, of whom there is something in every store."""
    return await index_world(client, base)
