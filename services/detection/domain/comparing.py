"""Are two faces the same person? One to one, by the cosine of their embeddings and the pack's curve."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import UUID

from services.detection.domain.activating import refuse_other_model
from services.detection.domain.measured import to_figures, vector_of
from services.detection.domain.model import PackDescription, QualityFigures
from services.detection.domain.searching import Looking, find_largest_face, read_vector
from services.detection.repository.models import find_active_model
from shared.db.engine import Database
from shared.errors import NotFound
from shared.faces.boxes import Box
from shared.faces.calibration import read_calibration
from shared.faces.embeddings import Vectors, cosine
from shared.imaging.source import PhotoSource

FaceSource = PhotoSource | UUID
"""The largest face of a photo, or a stored face."""


@dataclass(frozen=True, slots=True)
class CompareFaces:
    """Two faces to compare."""

    library_id: str
    left: FaceSource
    right: FaceSource


@dataclass(frozen=True, slots=True, eq=False)
class ComparedFace:
    """A face that was compared: found just now or stored. ``vector`` is (D,), ``landmarks`` x0, y0 .. x4, y4."""

    box: Box
    landmarks: tuple[float, ...]
    confidence: float
    quality: QualityFigures
    vector: Vectors


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """``cosine`` -1..1; ``same_person`` is the probability 0..1 that it is one person."""

    cosine: float
    same_person: float
    left: ComparedFace
    right: ComparedFace


async def compare_faces(database: Database, looking: Looking, command: CompareFaces) -> Comparison:
    """Compare two faces under one model: the server's for photos, the library's as soon as a stored face is one of them.

    ``same_person`` is by the model's own calibration; a pack without one is judged by the curve of ArcFace models, as in
    suggestions. Raises :class:`NotFound`, :class:`PreconditionFailed` with MODEL_MISMATCH, :class:`InvalidRequest` for a
    photo without a face, and as :meth:`FaceFinder.find_faces`.
    """
    sides = {"left": command.left, "right": command.right}
    model = looking.pack
    stored = [source for source in sides.values() if isinstance(source, UUID)]
    if stored:
        async with database.snapshot() as tx:
            active = await find_active_model(tx, command.library_id)
        if active is None:
            raise NotFound("face", str(stored[0]))
        if len(stored) < len(sides):
            refuse_other_model(active.model_version, model.model_version)
        model = active
    async with asyncio.TaskGroup() as looks:
        left, right = (
            looks.create_task(_read_side(database, looking, command.library_id, model, name, source))
            for name, source in sides.items()
        )
    score = cosine(left.result().vector, right.result().vector)
    confidence = read_calibration(model.calibration).confidence(score)
    return Comparison(score, confidence, left.result(), right.result())


async def _read_side(
    database: Database, looking: Looking, library_id: str, model: PackDescription, name: str, source: FaceSource
) -> ComparedFace:
    if isinstance(source, UUID):
        stored, vector = await read_vector(database, library_id, source, model.model_version)
        return ComparedFace(stored.box, stored.landmarks, stored.confidence, stored.quality, vector)
    face = await find_largest_face(looking, source, f"{name}.image")
    return ComparedFace(
        box=face.box,
        landmarks=tuple(face.landmarks.reshape(-1).tolist()),
        confidence=face.confidence,
        quality=to_figures(face.quality),
        vector=vector_of(face),
    )
