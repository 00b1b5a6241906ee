"""SQL of the faces a model has no vector of yet, and of storing those it gets. One statement each, whatever the number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, LargeBinary, Text, Uuid, and_, cast, func, literal, select
from sqlalchemy.dialects.postgresql import REAL, insert
from sqlalchemy.engine import Row

from services.detection.domain.migration import (
    MAX_GIVEN,
    Coverage,
    EmbeddingPlace,
    FaceVector,
    PhotoFaces,
    PhotoRange,
    PlacedBox,
)
from services.detection.repository.rows import Types, table_of
from shared.db.engine import Transaction
from shared.db.tables_detection import assets, face_embeddings, faces
from shared.faces.boxes import Box

_VECTOR: Types = {"face_id": Uuid(), "embedding": LargeBinary(), "norm": REAL()}


async def count_coverage(tx: Transaction, library_id: str, model_version: str) -> Coverage:
    """How many faces a library has, in any state, and how many of them have a vector of a model."""
    held = select(func.count()).select_from(faces).where(faces.c.library_id == library_id).scalar_subquery()
    made = (
        select(func.count())
        .select_from(face_embeddings)
        .where(face_embeddings.c.library_id == library_id, face_embeddings.c.model_version == model_version)
        .scalar_subquery()
    )
    row = (await tx.rows(select(held.label("faces"), made.label("embedded"))))[0]
    return Coverage(row.faces, row.embedded)


async def divide_unembedded(
    tx: Transaction, library_id: str, model_version: str, size: int, most: int
) -> list[PhotoRange]:
    """The photos with faces that a model has no vector of, in ranges of about ``size`` such faces, or of more each if that
    would be more than ``most`` ranges.
    """
    photos = (
        select(faces.c.asset_id, func.count().label("faces"))
        .where(faces.c.library_id == library_id, _without_vector(model_version))
        .group_by(faces.c.asset_id)
        .subquery("photos")
    )
    before = func.sum(photos.c.faces).over(order_by=photos.c.asset_id) - photos.c.faces
    total = func.sum(photos.c.faces).over()
    part = func.div(before * func.least(most, func.ceil(total / size)), total)
    placed = select(photos, part.label("part")).subquery("placed")
    rows = await tx.rows(
        select(
            func.min(placed.c.asset_id).label("first"),
            func.max(placed.c.asset_id).label("last"),
            cast(func.sum(placed.c.faces), BigInteger).label("faces"),
        )
        .group_by(placed.c.part)
        .order_by(placed.c.part)
    )
    return [PhotoRange(row.first, row.last, row.faces) for row in rows]


async def list_unembedded(
    tx: Transaction, library_id: str, model_version: str, first: str, last: str, place: EmbeddingPlace, limit: int
) -> list[PhotoFaces]:
    """Photos of a range behind ``place``, in order of id, each with its faces that a model has no vector of.

    A photo with more such faces than may be given at once comes several times, each time with others of them.
    """
    without = _without_vector(model_version)
    photos = (
        select(faces.c.asset_id)
        .where(
            faces.c.library_id == library_id,
            faces.c.asset_id.between(first, last),
            faces.c.asset_id > place.after,
            faces.c.asset_id != func.all(list(place.failed)),
            without,
        )
        .group_by(faces.c.asset_id)
        .order_by(faces.c.asset_id)
        .limit(limit)
        .subquery("photos")
    )
    rows = await tx.rows(
        select(faces, assets.c.uri)
        .select_from(photos)
        .join(faces, and_(faces.c.library_id == library_id, faces.c.asset_id == photos.c.asset_id))
        .join(assets, and_(assets.c.library_id == library_id, assets.c.asset_id == photos.c.asset_id))
        .where(without)
        .order_by(faces.c.asset_id, faces.c.face_id)
    )
    of_photo: dict[tuple[str, str], list[PlacedBox]] = {}
    for row in rows:
        of_photo.setdefault((row.asset_id, row.uri), []).append(_placed_box(row))
    return [
        PhotoFaces(asset_id, uri, placed[start : start + MAX_GIVEN])
        for (asset_id, uri), placed in of_photo.items()
        for start in range(0, len(placed), MAX_GIVEN)
    ]


async def hold_faces(tx: Transaction, face_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the faces that are still there, and stay until the transaction ends; locked in order of id."""
    rows = await tx.rows(
        select(faces.c.face_id)
        .where(faces.c.face_id == func.any(list(face_ids)))
        .order_by(faces.c.face_id)
        .with_for_update(read=True, key_share=True)
    )
    return {row.face_id for row in rows}


async def add_vectors(tx: Transaction, library_id: str, model_version: str, vectors: Mapping[UUID, FaceVector]) -> None:
    """Give held faces their vector of a model, or another in its place, which no import may replace."""
    if not vectors:
        return
    made = table_of("made", _VECTOR, [(face_id, found.embedding, found.norm) for face_id, found in vectors.items()])
    statement = insert(face_embeddings).from_select(
        [*_VECTOR, "library_id", "model_version"],
        select(
            *(made.c[name] for name in _VECTOR), literal(library_id, Text()), literal(model_version, Text())
        ).order_by(made.c.face_id),
    )
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["face_id", "model_version"],
            set_={name: statement.excluded[name] for name in ("embedding", "norm", "imported")},
        )
    )


def _without_vector(model_version: str) -> ColumnElement[bool]:
    return ~(
        select(face_embeddings.c.face_id)
        .where(face_embeddings.c.face_id == faces.c.face_id, face_embeddings.c.model_version == model_version)
        .exists()
    )


def _placed_box(row: Row[Any]) -> PlacedBox:
    box = Box(row.box_x, row.box_y, row.box_width, row.box_height)
    # Nobody saw key points where none are stored, or where the detector was not sure of a face at all: a box drawn by hand.
    seen = row.confidence > 0 and len(row.landmarks) == 10 and any(row.landmarks)
    return PlacedBox(row.face_id, box, tuple(row.landmarks) if seen else None)
