"""Imported faces that detection finds again: the same faces, from then on with vectors of our own."""

from __future__ import annotations

from contextlib import AsyncExitStack
from uuid import UUID

import numpy as np
from sqlalchemy import select

from kith.detection.v1 import assets_pb2
from kith.detection.v1 import faces_pb2 as pb
from services.detection.domain.migration import FaceVector
from services.detection.inference.faces import ModelInfo
from services.detection.repository.unembedded import add_vectors
from shared.db.tables_detection import face_embeddings
from shared.faces.embeddings import decode_embedding, encode_embedding
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.handlers import build_executor, open_looker
from tests.integration.detection.imports import DIMENSION, FOREIGN, VECTORS, imported, make_collections, message, send
from tests.integration.library import random_vectors


async def look_at(
    client: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, asset_id: str
) -> list[pb.Face]:
    """A session over one photo; answers its faces."""
    session = await client.create_session([asset_id])
    looker = open_looker(base, stack, running.settings.services.detection)
    await build_executor(base, looker).run_slice(UUID(session.job.id), 0)
    return await client.list_faces(asset_id)


async def read_vectors(client: DetectionClient, faces: list[pb.Face]) -> list[list[float]]:
    request = pb.BatchGetFacesRequest(face_ids=[face.id for face in faces], include_embeddings=True)
    answer = await client.faces.BatchGetFaces(request)
    return [list(answer.embeddings[face.id].values) for face in faces]


async def test_they_keep_their_ids_and_get_vectors_of_the_photo(
    detection: DetectionClient,
    running: Running,
    base: Foundation,
    stack: AsyncExitStack,
    album: Album,
    pack: ModelInfo,
) -> None:
    await detection.register({"seen": album.uri(1), "given": album.uri(1)})
    seen = await look_at(detection, running, base, stack, "seen")
    assert seen
    theirs = random_vectors(len(seen), pack.dimension)
    given = [
        pb.ImportedFace(asset_id="given", box=face.box, confidence=0.9, embedding=vector.tolist())
        for face, vector in zip(seen, theirs, strict=True)
    ]
    for face in given:
        face.box.x += 2
    sent = [message(given, model_version=pack.version)]
    assert (await send(detection, sent)).created == len(seen)
    before = await detection.list_faces("given")
    np.testing.assert_allclose(await read_vectors(detection, before), theirs, atol=1e-3)
    after = await look_at(detection, running, base, stack, "given")
    assert [face.id for face in after] == [face.id for face in before]
    assert {face.origin for face in after} == {pb.FACE_ORIGIN_IMPORTED}
    ours = await read_vectors(detection, sorted(seen, key=lambda face: face.box.x))
    by_place = sorted(after, key=lambda face: face.box.x)
    np.testing.assert_allclose(await read_vectors(detection, by_place), ours, atol=1e-3)
    # Sent again they are the same faces, and what the model made stays.
    assert (await send(detection, sent)).matched == len(seen)
    np.testing.assert_allclose(await read_vectors(detection, by_place), ours, atol=1e-3)
    photo = (await detection.assets.GetAsset(assets_pb2.GetAssetRequest(asset_id="given"))).asset
    assert (photo.face_count, photo.detection) == (len(seen), assets_pb2.ASSET_DETECTION_FACES)


async def test_a_vector_that_a_migration_made_is_not_imported_over(
    detection: DetectionClient, base: Foundation, album: Album
) -> None:
    await make_collections(base)
    await detection.register({f"photo-{n}": album.uri(n) for n in range(2)})
    given = [imported(f"photo-{n}", vector=n) for n in range(2)]
    await send(detection, [message(given)])
    face_ids = sorted((UUID(face.id) for face in await detection.list_faces()), reverse=True)
    ours = random_vectors(2, DIMENSION, seed=5)
    made = {face_id: FaceVector(encode_embedding(vector), 1.0) for face_id, vector in zip(face_ids, ours, strict=True)}
    async with base.database.transaction() as tx:
        await add_vectors(tx, "default", FOREIGN, made)
    given[0].embedding[:] = VECTORS[7].tolist()
    assert (await send(detection, [message(given)])).matched == 2
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(face_embeddings).order_by(face_embeddings.c.face_id.desc()))
    assert [row.imported for row in rows] == [False, False]
    np.testing.assert_allclose([decode_embedding(row.embedding) for row in rows], ours, atol=1e-3)
