"""A directory and ports for each test of the local stack."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.directory import StackDirectory
from deploy.local.ports import FREE_RANGE, find_free_base
from deploy.local.stopping import stop_stack


@pytest.fixture(scope="session")
def free_ports() -> range:
    """Where tests look for ports: ``KITH_TEST_PORTS=first-last``, else anywhere below the kernel's own range."""
    given = os.environ.get("KITH_TEST_PORTS")
    if given is None:
        return FREE_RANGE
    first, last = given.split("-")
    return range(int(first), int(last) + 1)


@pytest.fixture
def directory() -> Iterator[StackDirectory]:
    """A directory with a space in its path that any user can reach; what still runs in it at the end is stopped."""
    with tempfile.TemporaryDirectory(prefix="kith stack ") as folder:
        Path(folder).chmod(0o755)
        place = StackDirectory.at(Path(folder) / "d")
        yield place
        stop_stack(place)


@pytest.fixture
def base(free_ports: range) -> int:
    """The first of fifty free ports."""
    return find_free_base(free_ports)
