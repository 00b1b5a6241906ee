"""SQL that reads faces, with what the other services know of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Select, and_, case, exists, func, select
from sqlalchemy.engine import Row

from services.detection.domain.model import (
    Face,
    FaceOrigin,
    FaceState,
    FaceStats,
    QualityFigures,
    TimeSpan,
)
from services.detection.repository.assets import to_captured
from services.detection.repository.conditions import within
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_clustering import cluster_members
from shared.db.tables_detection import assets, face_embeddings, faces, models
from shared.db.tables_persons import assignments
from shared.errors import NotFound
from shared.faces.boxes import Box


@dataclass(frozen=True, slots=True)
class FaceFilter:
    """Which faces to list; what is left at its default lets everything pass."""

    asset_id: str = ""
    person_id: UUID | None = None
    cluster_id: str = ""
    unassigned: bool = False
    min_quality: float = 0.0
    states: tuple[FaceState, ...] = (FaceState.ACTIVE,)
    captured: TimeSpan = field(default_factory=TimeSpan)


@dataclass(frozen=True, slots=True)
class StoredEmbedding:
    """A stored vector: float16 bytes, and the model that made it."""

    model_version: str
    data: bytes


async def get_face(tx: Transaction, library_id: str, face_id: UUID) -> Face:
    """One face; raises :class:`NotFound`."""
    row = await tx.one_or_none(_select_faces(library_id).where(faces.c.face_id == face_id))
    if row is None:
        raise NotFound("face", str(face_id))
    return _face(row)


async def get_faces(tx: Transaction, library_id: str, face_ids: Sequence[UUID]) -> dict[UUID, Face]:
    """Those of these faces that are there, in one statement."""
    rows = await tx.rows(_select_faces(library_id).where(faces.c.face_id == func.any(list(face_ids))))
    return {row.face_id: _face(row) for row in rows}


async def find_present(tx: Transaction, face_ids: Collection[UUID]) -> set[UUID]:
    """Those of these faces that are there, in whatever library."""
    rows = await tx.rows(select(faces.c.face_id).where(faces.c.face_id == func.any(list(face_ids))))
    return {row.face_id for row in rows}


async def read_embeddings(tx: Transaction, library_id: str, face_ids: Sequence[UUID]) -> dict[UUID, StoredEmbedding]:
    """Embeddings by the library's active model, in one statement."""
    rows = await tx.rows(
        select(face_embeddings.c.face_id, face_embeddings.c.model_version, face_embeddings.c.embedding)
        .join(
            models,
            and_(
                models.c.library_id == face_embeddings.c.library_id,
                models.c.model_version == face_embeddings.c.model_version,
                models.c.state == "ACTIVE",
            ),
        )
        .where(face_embeddings.c.library_id == library_id, face_embeddings.c.face_id == func.any(list(face_ids)))
    )
    return {row.face_id: StoredEmbedding(row.model_version, row.embedding) for row in rows}


async def list_faces(tx: Transaction, library_id: str, request: PageRequest, where: FaceFilter) -> Page[Face]:
    """Faces that pass every filter, oldest first.

    The page is chosen by the filters alone, and only its rows are joined with what else is shown: so a page costs the same
    wherever it lies.
    """
    chosen = _choose_faces(library_id, request, where).subquery("chosen")
    rows = await tx.rows(_describe_faces(chosen).order_by(chosen.c.face_id))
    return make_page(rows, request, _face, lambda row: [row.face_id])


def _choose_faces(library_id: str, request: PageRequest, where: FaceFilter) -> Select[Any]:
    """Rows of ``faces`` of one page, and one more."""
    key: ColumnElement[UUID] = faces.c.face_id
    statement = select(faces).where(
        faces.c.library_id == library_id, faces.c.state.in_([state.value for state in where.states])
    )
    held = assignments.alias("held")
    assigned = exists().where(held.c.face_id == faces.c.face_id)
    if request.after is not None:
        # Says nothing new, but where the index of assignments may begin.
        assigned = assigned.where(held.c.face_id > request.after[0])
    times = within(assets.c.captured_at, where.captured)
    if times:
        photo = and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id)
        statement = statement.join(assets, photo).where(*times)
    if where.asset_id:
        statement = statement.where(faces.c.asset_id == where.asset_id)
    if where.person_id is not None:
        # In the order of the person's own faces, however many others there are.
        key = assignments.c.face_id
        statement = statement.join(assignments, assignments.c.face_id == faces.c.face_id)
        statement = statement.where(assignments.c.person_id == where.person_id)
    if where.cluster_id:
        statement = statement.join(cluster_members, cluster_members.c.face_id == faces.c.face_id)
        statement = statement.where(
            cluster_members.c.cluster_id == where.cluster_id, faces.c.state == FaceState.ACTIVE.value
        )
    if where.unassigned or where.cluster_id:
        statement = statement.where(~assigned)
    if where.min_quality > 0:
        statement = statement.where(faces.c.quality >= where.min_quality)
    return keyset(statement, request, [SortKey(key)])


async def count_faces(tx: Transaction, library_id: str) -> FaceStats:
    """Counts of a library, in two statements."""
    photos = await tx.one_or_none(
        select(
            func.count().label("assets"),
            func.count().filter(assets.c.detection.in_(("FACES", "NONE"))).label("detected"),
        ).where(assets.c.library_id == library_id)
    )
    active = faces.c.state == FaceState.ACTIVE.value
    free = assignments.c.face_id.is_(None)
    grouped = _grouped()
    found = await tx.one_or_none(
        select(
            func.count().label("faces"),
            func.count().filter(active).label("active"),
            func.count().filter(faces.c.state == FaceState.IGNORED.value).label("ignored"),
            func.count().filter(faces.c.state == FaceState.NOT_A_FACE.value).label("not_a_face"),
            func.count().filter(~free).label("assigned"),
            func.count().filter(grouped).label("clustered"),
            func.count().filter(active & free & ~grouped).label("unknown"),
        )
        .select_from(faces)
        .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
        .outerjoin(cluster_members, cluster_members.c.face_id == faces.c.face_id)
        .where(faces.c.library_id == library_id)
    )
    # An aggregate always has its row.
    assert photos is not None
    assert found is not None
    return FaceStats(assets=photos.assets, assets_detected=photos.detected, **found._mapping)


def _grouped(of: FromClause = faces) -> ColumnElement[bool]:
    """Whether a face is in a cluster: an assigned face is in none, nor is one put aside, whatever its membership says."""
    return and_(
        cluster_members.c.face_id.is_not(None),
        assignments.c.face_id.is_(None),
        of.c.state == FaceState.ACTIVE.value,
    )


def _select_faces(library_id: str) -> Select[Any]:
    return _describe_faces(faces).where(faces.c.library_id == library_id)


def _describe_faces(of: FromClause) -> Select[Any]:
    """Rows of ``faces``, or of a selection of them, with what else is known of each."""
    return (
        select(
            *of.c,
            assets.c.captured_at,
            assets.c.captured_precision,
            assets.c.captured_offset,
            assignments.c.person_id,
            case((_grouped(of), cluster_members.c.cluster_id)).label("cluster_id"),
            face_embeddings.c.model_version,
        )
        .join(assets, and_(assets.c.library_id == of.c.library_id, assets.c.asset_id == of.c.asset_id))
        .outerjoin(assignments, assignments.c.face_id == of.c.face_id)
        .outerjoin(cluster_members, cluster_members.c.face_id == of.c.face_id)
        .outerjoin(models, and_(models.c.library_id == of.c.library_id, models.c.state == "ACTIVE"))
        .outerjoin(
            face_embeddings,
            and_(
                face_embeddings.c.face_id == of.c.face_id,
                face_embeddings.c.model_version == models.c.model_version,
            ),
        )
    )


def _face(row: Row[Any]) -> Face:
    return Face(
        face_id=row.face_id,
        library_id=row.library_id,
        asset_id=row.asset_id,
        box=Box(row.box_x, row.box_y, row.box_width, row.box_height),
        landmarks=tuple(row.landmarks),
        confidence=row.confidence,
        quality=QualityFigures(
            overall=row.quality,
            size=row.quality_size,
            sharpness=row.quality_sharpness,
            pose=row.quality_pose,
            yaw=row.yaw,
            pitch=row.pitch,
            roll=row.roll,
        ),
        state=FaceState(row.state),
        origin=FaceOrigin(row.origin),
        model_version=row.model_version or "",
        person_id=row.person_id,
        cluster_id=row.cluster_id,
        captured=to_captured(row),
        created_at=row.created_at,
    )
