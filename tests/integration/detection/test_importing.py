"""Faces of another system: matched, stored once, and never at the cost of what is there."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import func, select, update

from kith.common.v1 import types_pb2
from kith.detection.v1 import assets_pb2
from kith.detection.v1 import faces_pb2 as pb
from services.detection.convert.importing import from_import
from services.detection.domain.importing import store_imported
from services.detection.domain.model import DetectionDeps, PackDescription
from services.detection.inference.faces import ModelInfo
from services.detection.worker import start as start_worker
from shared.db.outbox import count_waiting
from shared.db.tables_detection import assets, face_embeddings, faces, models
from shared.errors import InvalidRequest, PreconditionFailed, Reason
from shared.faces.embeddings import decode_embedding
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.detection.client import DetectionClient, uuids, wait_relayed
from tests.integration.detection.conftest import Album
from tests.integration.detection.imports import (
    DIMENSION,
    FOREIGN,
    VECTORS,
    imported,
    make_collections,
    message,
    send,
)
from tests.integration.library import random_vectors

LEFT = (10.0, 20.0, 80.0, 100.0)
RIGHT = (300.0, 20.0, 80.0, 100.0)


@pytest.fixture
async def client(detection: DetectionClient, base: Foundation, album: Album) -> DetectionClient:
    """A server with a foreign model's collections and four photos nobody looked at."""
    await make_collections(base)
    await detection.register({f"photo-{n}": album.uri(n) for n in range(4)})
    return detection


async def read_vectors(base: Foundation) -> dict[tuple[UUID, str], tuple[np.ndarray, bool]]:
    """Every stored vector, and whether it was imported."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(face_embeddings))
    return {(row.face_id, row.model_version): (decode_embedding(row.embedding), row.imported) for row in rows}


async def get_asset(client: DetectionClient, asset_id: str) -> assets_pb2.Asset:
    return (await client.assets.GetAsset(assets_pb2.GetAssetRequest(asset_id=asset_id))).asset


async def count_outbox(base: Foundation) -> int:
    async with base.database.transaction() as tx:
        return (await count_waiting(tx))[0]


async def test_faces_are_stored_with_the_declared_model(
    client: DetectionClient, running: Running, base: Foundation
) -> None:
    long = imported("photo-0", RIGHT, 1)
    long.embedding[:] = (7 * VECTORS[1]).tolist()
    answer = await send(client, [message([imported("photo-0", LEFT), long]), message([imported("photo-1", vector=2)])])
    assert (answer.created, answer.matched, answer.failed) == (3, 0, 0)
    found = await client.list_faces()
    assert [(face.asset_id, face.box.x) for face in found] == [("photo-0", 10), ("photo-0", 300), ("photo-1", 10)]
    assert {(face.origin, face.model_version, face.state) for face in found} == {
        (pb.FACE_ORIGIN_IMPORTED, FOREIGN, pb.FACE_STATE_ACTIVE)
    }
    stored = await read_vectors(base)
    for face_id, vector in zip(uuids(found), VECTORS[:3], strict=True):
        assert stored[face_id, FOREIGN][0] @ vector > 0.999
    async with base.database.transaction() as tx:
        model = (await tx.rows(select(models)))[0]
        norms = [row.norm for row in await tx.rows(select(face_embeddings.c.norm).order_by(face_embeddings.c.face_id))]
    assert (model.model_version, model.state, model.dimension, model.thresholds) == (FOREIGN, "ACTIVE", DIMENSION, {})
    assert norms == pytest.approx([1, 7, 1])
    # Nobody has looked at the photo: a backfill still will.
    photo = await get_asset(client, "photo-0")
    assert (photo.face_count, photo.detection) == (2, assets_pb2.ASSET_DETECTION_NEVER)
    await running.worker(start_worker)
    await wait_relayed(base)
    assert (await client.check()).consistent


async def test_the_same_import_again_changes_nothing(client: DetectionClient, base: Foundation) -> None:
    messages = [message([imported("photo-0", LEFT), imported("photo-0", RIGHT, 1)]), message([imported("photo-1")])]
    await send(client, messages)
    before = [(face.id, face.box.x) for face in await client.list_faces()]
    vectors, waiting = await read_vectors(base), await count_outbox(base)
    again = await send(client, messages)
    assert (again.created, again.matched, again.failed) == (0, 3, 0)
    assert [(face.id, face.box.x) for face in await client.list_faces()] == before
    assert (await read_vectors(base)).keys() == vectors.keys()
    assert await count_outbox(base) == waiting == 3
    assert (await get_asset(client, "photo-0")).face_count == 2


async def test_two_imports_of_the_same_at_once_store_each_face_once(client: DetectionClient) -> None:
    messages = [message([imported(f"photo-{n}", LEFT, n) for n in order]) for order in ((0, 1, 2, 3), (3, 2, 1, 0))]
    answers = await asyncio.gather(*(send(client, [each] * 3) for each in messages))
    assert sum(answer.created for answer in answers) == 4
    assert sum(answer.matched for answer in answers) == 20
    assert len(await client.list_faces()) == 4


async def test_what_a_model_of_ours_made_stays(client: DetectionClient, base: Foundation) -> None:
    """A detected face keeps its vector, its state and its box; one that an import wrote is replaced by the next."""
    await send(client, [message([imported("photo-0", LEFT, 0), imported("photo-1", LEFT, 1)])])
    ours, theirs = uuids(await client.list_faces())
    async with base.database.transaction() as tx:
        await tx.execute(
            update(faces).where(faces.c.face_id == ours).values(origin="DETECTED", state="IGNORED", quality=0.5)
        )
        await tx.execute(update(face_embeddings).where(face_embeddings.c.face_id == ours).values(imported=False))
    near = (14.0, 24.0, 80.0, 100.0)
    answer = await send(client, [message([imported("photo-0", near, 5), imported("photo-1", near, 6)])])
    assert (answer.created, answer.matched) == (0, 2)
    stored = await read_vectors(base)
    assert stored[ours, FOREIGN][0] @ VECTORS[0] > 0.999
    assert stored[theirs, FOREIGN][0] @ VECTORS[6] > 0.999
    kept = (await client.faces.GetFace(pb.GetFaceRequest(face_id=str(ours)))).face
    assert (kept.state, kept.origin, kept.box.x, kept.quality.overall) == (
        pb.FACE_STATE_IGNORED,
        pb.FACE_ORIGIN_DETECTED,
        10,
        0.5,
    )


async def test_a_stored_face_gets_a_vector_of_another_known_model(client: DetectionClient, base: Foundation) -> None:
    await send(client, [message([imported("photo-0", LEFT)])])
    await base.collections.create_missing("coming", 16)
    async with base.database.transaction() as tx:
        values = {"library_id": "default", "model_version": "coming", "pack": "coming", "dimension": 16}
        await tx.execute(models.insert().values(**values, state="SHADOW", created_at=base.clock.now()))
    face = imported("photo-0", LEFT)
    face.embedding[:] = random_vectors(1, 16)[0].tolist()
    answer = await send(client, [message([face], model_version="coming")])
    assert (answer.created, answer.matched, answer.failed) == (0, 1, 0)
    assert {version: len(vector) for (_, version), (vector, _) in (await read_vectors(base)).items()} == {
        FOREIGN: DIMENSION,
        "coming": 16,
    }
    assert (await client.list_faces())[0].model_version == FOREIGN


async def test_faces_that_are_wrong_are_named_and_stop_nothing(client: DetectionClient, base: Foundation) -> None:
    nan = math.nan

    def with_vector(name: str, values: list[float]) -> pb.ImportedFace:
        face = imported("photo-1", name=name)
        face.embedding[:] = values
        return face

    half_marked = imported("photo-1", name="half marked")
    half_marked.landmarks.nose.x = 5
    wrong = [
        imported("nowhere", name="unknown"),
        imported("", name="unnamed"),
        imported("photo-1", (nan, 0, 10, 10), name="nowhere"),
        imported("photo-1", (0, 0, math.inf, 10), name="endless"),
        imported("photo-1", (0, 0, 10, 0), name="flat"),
        imported("photo-1", (0, 0, 10, nan), name="shapeless"),
        imported("photo-1", (0, nan, 10, 10), name="placeless"),
        imported("photo-1", (0, 0, 7.5, 100), name="narrow"),
        imported("photo-1", (-60, 0, 100, 100), name="left of it"),
        imported("photo-1", (0, -60, 100, 100), name="above it"),
        imported("photo-1", name="sure", confidence=1.5),
        with_vector("short", [1.0] * (DIMENSION - 1)),
        with_vector("none", []),
        with_vector("zero", [0.0] * DIMENSION),
        with_vector("nan", [nan] * DIMENSION),
        with_vector("large", [3e38] * DIMENSION),
        half_marked,
    ]
    long = imported("photo-1", name="x" * 129)
    sent = [*wrong[:6], imported("photo-0"), *wrong[6:]]
    answer = await send(client, [message(sent), message([imported("gone"), long])])
    assert (answer.created, answer.matched, answer.failed) == (1, 0, len(wrong) + 2)
    reasons = {failure.id: failure.reason for failure in answer.failures}
    assert reasons == {
        **{face.external_id: "INVALID_FIELD" for face in wrong[1:]},
        "unknown": "RESOURCE_NOT_FOUND",
        "1.0": "RESOURCE_NOT_FOUND",
        "1.1": "INVALID_FIELD",
    }
    assert len(await client.list_faces()) == 1


async def test_a_face_beside_a_photo_of_known_size_is_refused(client: DetectionClient, base: Foundation) -> None:
    async with base.database.transaction() as tx:
        await tx.execute(update(assets).where(assets.c.asset_id == "photo-0").values(width=400, height=300))
    boxes = {"edge": (350, 250, 98, 98), "right": (351, 0, 98, 98), "below": (0, 251, 98, 98)}
    given = [imported("photo-0", box, name=name) for name, box in boxes.items()]
    # Nobody knows yet how large the other one is.
    answer = await send(client, [message([*given, imported("photo-1", (5000, 0, 98, 98))])])
    assert {failure.id: failure.reason for failure in answer.failures} == dict.fromkeys(
        ("right", "below"), "INVALID_FIELD"
    )
    assert answer.created == 2


async def test_no_more_than_a_thousand_failures_are_named(client: DetectionClient) -> None:
    answer = await send(client, [message([imported("gone")] * 500)] * 3)
    assert (answer.failed, len(answer.failures)) == (1500, 1000)


async def test_an_import_of_nothing_decides_on_no_model(client: DetectionClient, base: Foundation) -> None:
    await send(client, [message([imported("nowhere"), imported("photo-0", (-90, 0, 100, 100))]), message()])
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(models)) == 0


async def test_a_face_sent_twice_in_a_message_is_one(client: DetectionClient) -> None:
    beside = (20.0, 20.0, 80.0, 100.0)
    apart = (70.0, 20.0, 80.0, 100.0)
    again = await send(client, [message([imported("photo-0", box) for box in (LEFT, beside, apart, LEFT)])])
    assert (again.created, again.matched) == (2, 2)
    assert [face.box.x for face in await client.list_faces()] == [10, 70]


async def test_quality_is_made_of_what_is_known(client: DetectionClient) -> None:
    marked = imported("photo-0", (100, 100, 80, 100), name="marked")
    points = {"left_eye": (120, 140), "right_eye": (160, 140), "nose": (140, 163), "left_mouth": (124, 186)}
    for point, (x, y) in {**points, "right_mouth": (156, 186)}.items():
        getattr(marked.landmarks, point).CopyFrom(types_pb2.Point(x=x, y=y))
    bare = imported("photo-1", (100, 100, 80, 100), confidence=0)
    await send(client, [message([marked, bare])])
    seen, guessed = await client.list_faces()
    assert seen.landmarks.left_eye.x == 120
    assert seen.quality.size == 1
    assert seen.quality.pose > 0.9
    assert 0.9 < seen.quality.overall < 1
    # Points in the middle of the box; nothing is said about a pose nobody saw.
    assert 100 < guessed.landmarks.left_eye.x < guessed.landmarks.nose.x < guessed.landmarks.right_eye.x < 180
    assert guessed.landmarks.nose.x == pytest.approx(140, abs=1)
    assert guessed.quality.pose == guessed.quality.sharpness == guessed.quality.yaw == 0
    assert guessed.quality.overall == pytest.approx(guessed.quality.size)


async def test_a_stream_that_breaks_off_can_be_sent_again(client: DetectionClient) -> None:
    parts = [message([imported(f"photo-{n}", LEFT, n), imported(f"photo-{n}", RIGHT, n + 9)]) for n in range(4)]
    stored = asyncio.Event()

    async def break_off() -> AsyncIterator[pb.ImportFacesRequest]:
        for part in parts[:2]:
            yield part
        await stored.wait()

    call = client.faces.ImportFaces(break_off())
    while len(await client.list_faces()) < 4:  # noqa: ASYNC110 - the condition is in the store
        await asyncio.sleep(0.02)
    call.cancel()
    stored.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    again = await send(client, parts)
    assert (again.created, again.matched) == (4, 4)
    assert len(await client.list_faces()) == 8


async def test_a_message_against_the_rules_ends_the_stream(client: DetectionClient) -> None:
    good = message([imported("photo-0")])
    broken = {
        "no message": [],
        "model_version must be 1..41": [message(model_version="")],
        "small letters": [message(model_version="Foreign")],
        "library_id must be that": [good, message(library_id="other")],
        "model_version must be that": [good, message(model_version="coming")],
        "may hold 500": [message([imported("photo-0")] * 501)],
    }
    for text, messages in broken.items():
        with pytest.raises(InvalidRequest, match=text):
            await send(client, messages)
    repeated = [good, message(model_version=""), message([imported("photo-1")], library_id="default")]
    assert (await send(client, repeated)).created == 1


async def test_vectors_of_a_model_the_library_does_not_know_are_refused(
    client: DetectionClient, base: Foundation, pack: ModelInfo
) -> None:
    with pytest.raises(PreconditionFailed, match=r"is missing; run `python -m"):
        await send(client, [message(model_version="unheard_of")])
    await send(client, [message([imported("photo-0")])])
    with pytest.raises(PreconditionFailed) as refused:
        await send(client, [message(model_version=pack.version)])
    assert refused.value.reason is Reason.MODEL_MISMATCH
    assert refused.value.metadata == {"expected": FOREIGN, "actual": pack.version}


async def test_the_model_of_this_server_comes_with_its_thresholds(
    client: DetectionClient, base: Foundation, pack: ModelInfo
) -> None:
    face = imported("photo-0")
    face.embedding[:] = random_vectors(1, pack.dimension)[0].tolist()
    await send(client, [message([face], model_version=pack.version)])
    async with base.database.transaction() as tx:
        model = (await tx.rows(select(models)))[0]
    assert (model.model_version, model.pack) == (pack.version, pack.pack)
    assert model.thresholds == pytest.approx(dict(pack.thresholds))
    assert model.calibration


async def test_a_message_costs_as_many_statements_whatever_it_holds(client: DetectionClient, base: Foundation) -> None:
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection)
    model = PackDescription(FOREIGN, "imported", DIMENSION, {}, {})
    counts = []
    for number, size in enumerate((1, 60)):
        faces_sent = [imported(f"photo-{n % 4}", (100 * n, 500 * number, 80, 100), n) for n in range(size)]
        given, failures = from_import(message([*faces_sent, *faces_sent[:1]]), 0, DIMENSION)
        assert not failures
        for _ in range(2):
            with recording_statements(base.database) as sent:
                async with base.database.transaction() as tx:
                    await store_imported(tx, deps, base.settings.quality, "default", model, given)
            counts.append([statement.executions for statement in sent])
    new, again, many_new, many_again = counts
    # COPY is not among the statements: two of them for new faces.
    assert many_new == new == [1] * len(new)
    assert many_again == again == [1] * len(again)
    assert len(new) <= 8 >= len(again)
