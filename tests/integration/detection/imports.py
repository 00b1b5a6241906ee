"""What another system would send: boxes on registered photos, with vectors of a model of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from kith.common.v1 import types_pb2
from kith.detection.v1 import faces_pb2 as pb
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.detection.client import DetectionClient
from tests.integration.library import random_vectors

FOREIGN = "foreign"
DIMENSION = 32
VECTORS = random_vectors(64, DIMENSION, seed=3)
Box = tuple[float, float, float, float]


def imported(
    asset_id: str, box: Box = (10, 20, 80, 100), vector: int = 0, *, name: str = "", confidence: float = 0.9
) -> pb.ImportedFace:
    """One face, with the vector of that number."""
    x, y, width, height = box
    return pb.ImportedFace(
        asset_id=asset_id,
        box=types_pb2.BoundingBox(x=x, y=y, width=width, height=height),
        confidence=confidence,
        embedding=VECTORS[vector].tolist(),
        external_id=name,
    )


def message(
    faces: Iterable[pb.ImportedFace] = (), *, model_version: str = FOREIGN, library_id: str = ""
) -> pb.ImportFacesRequest:
    return pb.ImportFacesRequest(library_id=library_id, model_version=model_version, faces=faces)


async def send(client: DetectionClient, messages: Sequence[pb.ImportFacesRequest]) -> pb.ImportFacesResponse:
    """One stream of these messages."""

    async def stream() -> AsyncIterator[pb.ImportFacesRequest]:
        for each in messages:
            yield each

    async with translate_errors("detection"):
        return await client.faces.ImportFaces(stream())


async def make_collections(base: Foundation) -> None:
    """What an operator does before the first import of a model."""
    await base.collections.create_missing(FOREIGN, DIMENSION)
