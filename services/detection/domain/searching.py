"""The stored faces most like a given one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.detection.domain.activating import refuse_other_model
from services.detection.domain.looking import FaceFinder
from services.detection.domain.measured import vector_of
from services.detection.domain.model import Face, FaceState, OptionOverrides, PackDescription
from services.detection.domain.ports import FaceSearch, NearFace
from services.detection.inference.faces import DetectedFace
from services.detection.repository.faces import get_face, get_faces, read_embeddings
from services.detection.repository.models import find_active_model
from shared.db.engine import Database
from shared.errors import InvalidRequest, NotFound, PreconditionFailed, Reason
from shared.faces.embeddings import InvalidEmbedding, Vectors, decode_embedding, normalise
from shared.faces.matching import ARCFACE_FLOOR
from shared.imaging.source import PhotoSource


@dataclass(frozen=True, slots=True)
class GivenEmbedding:
    """A vector as a caller sends it, and the model it says that made it."""

    model_version: str
    values: Sequence[float]


FaceQuery = PhotoSource | GivenEmbedding | UUID
"""What to look for: the largest face of a photo, a vector, or a stored face."""


@dataclass(frozen=True, slots=True)
class SearchFaces:
    """A search. ``min_cosine`` None = the pack's floor for suggestions; ``person_id`` None = anybody's and nobody's."""

    library_id: str
    query: FaceQuery
    limit: int
    min_cosine: float | None
    unassigned: bool
    person_id: UUID | None


@dataclass(frozen=True, slots=True)
class FaceMatch:
    """A stored face, and its cosine to the one that was looked for."""

    face: Face
    cosine: float


@dataclass(frozen=True, slots=True)
class Looking:
    """How this server looks at photos: what finds faces, with which pack, on whose behalf and for how long."""

    finder: FaceFinder
    pack: PackDescription
    lane: str
    patience_s: float | None


async def search_faces(
    database: Database, index: FaceSearch, looking: Looking, command: SearchFaces
) -> list[FaceMatch]:
    """Active faces most like the given one, best first; one search and one statement for their rows.

    What has changed in PostgreSQL and not yet in the index is left out, so fewer than there are may come. A library without
    a model has no faces. Raises :class:`NotFound` for an unknown face, :class:`PreconditionFailed` with MODEL_MISMATCH where
    vectors of two models would meet, :class:`InvalidRequest` for a photo without a face or a vector without a direction, and
    as :meth:`FaceFinder.find_faces`.
    """
    async with database.snapshot() as tx:
        model = await find_active_model(tx, command.library_id)
    if model is None:
        if isinstance(command.query, UUID):
            raise NotFound("face", str(command.query))
        return []
    vector = await _make_query(database, looking, command, model)
    floor = command.min_cosine
    if floor is None:
        floor = float(model.thresholds.get("suggest_floor", ARCFACE_FLOOR))
    found = await index.find_nearest(
        command.library_id,
        model.model_version,
        vector,
        limit=command.limit,
        min_cosine=floor,
        unassigned=command.unassigned,
        person_id=command.person_id,
        excluded=command.query if isinstance(command.query, UUID) else None,
    )
    return await _read_matches(database, command, found)


async def find_largest_face(looking: Looking, source: PhotoSource, field: str) -> DetectedFace:
    """The largest face of a photo, embedded. Raises :class:`InvalidRequest` naming ``field`` if there is none."""
    sight = await looking.finder.find_faces(
        source, OptionOverrides(), with_embeddings=True, caller=looking.lane, patience_s=looking.patience_s
    )
    if not sight.faces:
        raise InvalidRequest(f"no face was found in {field}", field=field)
    return max(sight.faces, key=lambda face: face.box.width * face.box.height)


async def read_vector(database: Database, library_id: str, face_id: UUID, model_version: str) -> tuple[Face, Vectors]:
    """A stored face and its vector (D,) by the active model, which is ``model_version``.

    Raises :class:`NotFound`, and :class:`PreconditionFailed` with MODEL_MISMATCH if it has none.
    """
    async with database.snapshot() as tx:
        face = await get_face(tx, library_id, face_id)
        stored = (await read_embeddings(tx, library_id, [face_id])).get(face_id)
    if stored is None or stored.model_version != model_version:
        raise PreconditionFailed(
            f"face '{face_id}' has no embedding by the library's model '{model_version}'",
            reason=Reason.MODEL_MISMATCH,
            metadata={"expected": model_version, "actual": stored.model_version if stored else ""},
        )
    return face, decode_embedding(bytes(stored.data))


async def _make_query(database: Database, looking: Looking, command: SearchFaces, model: PackDescription) -> Vectors:
    query = command.query
    if isinstance(query, UUID):
        return (await read_vector(database, command.library_id, query, model.model_version))[1]
    if isinstance(query, PhotoSource):
        refuse_other_model(model.model_version, looking.pack.model_version)
        return vector_of(await find_largest_face(looking, query, "image"))
    return _read_given(query, model)


def _read_given(query: GivenEmbedding, model: PackDescription) -> Vectors:
    if query.model_version != model.model_version:
        raise PreconditionFailed(
            f"the library's model is '{model.model_version}', the embedding is of '{query.model_version}'",
            reason=Reason.MODEL_MISMATCH,
            metadata={"expected": model.model_version, "actual": query.model_version},
        )
    if len(query.values) != model.dimension:
        raise PreconditionFailed(
            f"the library's embeddings have {model.dimension} numbers, this one {len(query.values)}",
            reason=Reason.MODEL_MISMATCH,
            metadata={"expected": str(model.dimension), "actual": str(len(query.values))},
        )
    try:
        return normalise(query.values)
    except InvalidEmbedding as error:
        raise InvalidRequest(f"embedding.values: {error}", field="embedding.values") from error


async def _read_matches(database: Database, command: SearchFaces, found: Sequence[NearFace]) -> list[FaceMatch]:
    """The rows of what the index found, in its order; without those that the truth says are no match."""
    async with database.snapshot() as tx:
        faces = await get_faces(tx, command.library_id, [near.face_id for near in found])
    matches = [FaceMatch(faces[near.face_id], near.cosine) for near in found if near.face_id in faces]
    return [match for match in matches if _passes(match.face, command)]


def _passes(face: Face, command: SearchFaces) -> bool:
    if face.state is not FaceState.ACTIVE or (command.unassigned and face.person_id is not None):
        return False
    return command.person_id is None or face.person_id == command.person_id
