"""The whole stack as its own processes, once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.drawing import draw_album
from demo.truth import Truth, read_album
from deploy.local.stack import RunningStack, StackOptions, start_stack

SEED = 11


@dataclass(frozen=True, slots=True)
class Whole:
    """A running stack, and a drawn album it may read. ``photos`` is the folder its uris may point into."""

    stack: RunningStack
    truth: Truth
    photos: Path


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """Stores, four servers, four workers, and an album of a few people."""
    folder = tmp_path_factory.mktemp("whole")
    photos = folder / "photos"
    draw_album(SEED, people=6, photos=60, out=photos)
    options = StackOptions(directory=folder / "stack", port_base=0, photos=(photos,), fsync=False)
    with start_stack(options) as stack:
        yield Whole(stack, read_album(photos), photos)
