"""What is read of the faces that a search found, and of pairs that may not be asked about or are already."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import and_, exists, false, func, select, true, union_all

from services.suggestions.domain.model import SuggestionState
from services.suggestions.repository.known import PHOTO_FACE, PhotoFace, to_photo_face
from services.suggestions.repository.suggestions import still_stands
from shared.db.engine import Transaction
from shared.db.tables_clustering import cluster_members, clusters
from shared.db.tables_detection import assets, face_embeddings, faces
from shared.db.tables_persons import allowed_doubles, assignments, exclusions
from shared.db.tables_suggestions import suggestions

Pair = tuple[UUID, UUID]


@dataclass(frozen=True, slots=True)
class PersonPairs:
    """(face, person) pairs: ``refused`` ones are excluded, by a rejection or otherwise, ``open`` ones are being asked about and
    still stand. A rejection whose exclusion was taken back refuses nothing.
    """

    refused: set[Pair]
    open: set[Pair]


@dataclass(frozen=True, slots=True)
class FoundFace:
    """An unassigned face; ``embedding`` as stored. ``refused``: persons it is excluded from. ``shown``: those
    asked for who have a face in its photo already. ``may_double``: the photo may show one person twice.
    ``pinned``: a human has put it into its cluster by hand; ``dismissed``: a human has put the cluster away.
    """

    face: PhotoFace
    embedding: bytes
    refused: frozenset[UUID]
    shown: frozenset[UUID]
    may_double: bool
    pinned: bool
    dismissed: bool


async def read_person_pairs(tx: Transaction, person_ids: Collection[UUID]) -> PersonPairs:
    """Every pair of these persons that is open or refused, in one statement."""
    people = list(person_ids)
    excluded = select(exclusions.c.face_id, exclusions.c.person_id, false().label("open")).where(
        exclusions.c.person_id == func.any(people)
    )
    pending = select(suggestions.c.face_id, suggestions.c.person_id, true()).where(
        suggestions.c.person_id == func.any(people),
        suggestions.c.state == SuggestionState.PENDING.value,
        still_stands(),
    )
    rows = await tx.rows(union_all(excluded, pending))
    return PersonPairs(
        {(row.face_id, row.person_id) for row in rows if not row.open},
        {(row.face_id, row.person_id) for row in rows if row.open},
    )


async def list_found_faces(
    tx: Transaction,
    library_id: str,
    model_version: str,
    face_ids: Collection[UUID],
    person_ids: Collection[UUID],
) -> list[FoundFace]:
    """Those of these faces that are active and unassigned in truth, with their vectors of one model and what binds them to
    the persons, by id.
    """
    refused = select(exclusions.c.person_id).where(exclusions.c.face_id == faces.c.face_id).correlate(faces)
    other = faces.alias("other")
    shown = (
        select(assignments.c.person_id)
        .select_from(other.join(assignments, assignments.c.face_id == other.c.face_id))
        .where(
            other.c.library_id == faces.c.library_id,
            other.c.asset_id == faces.c.asset_id,
            assignments.c.person_id == func.any(list(person_ids)),
        )
        .correlate(faces)
    )
    double = and_(allowed_doubles.c.library_id == faces.c.library_id, allowed_doubles.c.asset_id == faces.c.asset_id)
    rows = await tx.rows(
        select(
            face_embeddings.c.embedding,
            *PHOTO_FACE,
            func.array(refused.scalar_subquery()).label("refused"),
            func.array(shown.scalar_subquery()).label("shown"),
            allowed_doubles.c.asset_id.is_not(None).label("may_double"),
            func.coalesce(cluster_members.c.pinned, false()).label("pinned"),
            func.coalesce(clusters.c.state == "DISMISSED", false()).label("dismissed"),
        )
        .select_from(faces)
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
        .join(face_embeddings, face_embeddings.c.face_id == faces.c.face_id)
        .outerjoin(allowed_doubles, double)
        .outerjoin(cluster_members, cluster_members.c.face_id == faces.c.face_id)
        .outerjoin(clusters, clusters.c.cluster_id == cluster_members.c.cluster_id)
        .where(
            faces.c.library_id == library_id,
            faces.c.face_id == func.any(list(face_ids)),
            faces.c.state == "ACTIVE",
            face_embeddings.c.model_version == model_version,
            ~exists().where(assignments.c.face_id == faces.c.face_id).correlate(faces),
        )
        .order_by(faces.c.face_id)
    )
    return [
        FoundFace(
            to_photo_face(row),
            bytes(row.embedding),
            frozenset(row.refused),
            frozenset(row.shown),
            row.may_double,
            row.pinned,
            row.dismissed,
        )
        for row in rows
    ]


async def list_shown_persons(
    tx: Transaction,
    library_id: str,
    asset_ids: Collection[str],
    person_ids: Collection[UUID],
    without_face: UUID | None = None,
) -> set[tuple[str, UUID]]:
    """In which of these photos which of these persons have a face already, ``without_face``: (asset, person) pairs."""
    rows = await tx.rows(
        select(faces.c.asset_id, assignments.c.person_id)
        .join(assignments, assignments.c.face_id == faces.c.face_id)
        .where(
            faces.c.library_id == library_id,
            faces.c.asset_id == func.any(sorted(asset_ids)),
            assignments.c.person_id == func.any(list(person_ids)),
            *([] if without_face is None else [faces.c.face_id != without_face]),
        )
        .distinct()
    )
    return {(row.asset_id, row.person_id) for row in rows}
