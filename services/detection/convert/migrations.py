"""A library's models and migrations, and faces to embed whose place is known."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from kith.detection.v1 import detection_pb2, models_pb2
from services.detection.convert.geometry import to_box, to_landmarks
from services.detection.domain.migrating import MoveLibrary
from services.detection.domain.migration import (
    Coverage,
    FaceVector,
    Migration,
    PhotoFaces,
    PhotoMeasured,
    PhotoUnmeasured,
    PlacedBox,
    StoredModel,
)
from services.detection.domain.shadow_report import ModelFigures
from shared.errors import InvalidRequest, Reason
from shared.faces.embeddings import encode_embedding
from shared.ids import parse_library_id, parse_uuid
from shared.jobs.convert import to_job, to_timestamp


def to_model(model: StoredModel) -> models_pb2.Model:
    """A model of a library as a message."""
    return models_pb2.Model(
        model_version=model.model_version,
        pack=model.pack,
        dimension=model.dimension,
        state=models_pb2.ModelState.Value(f"MODEL_STATE_{model.state.value}"),
        face_count=model.face_count,
        create_time=to_timestamp(model.created_at),
    )


def to_migration(migration: Migration, coverage: Coverage, now: datetime) -> models_pb2.ModelMigration:
    """A migration as a message; ``now`` is what the job's rate is counted at."""
    message = models_pb2.ModelMigration(
        id=str(migration.migration_id),
        library_id=migration.library_id,
        from_model_version=migration.from_version,
        to_model_version=migration.to_version,
        job=to_job(migration.job, now),
        cut_over_time=to_timestamp(migration.cut_over_at),
        etag=migration.etag,
        faces=coverage.faces,
        faces_embedded=coverage.embedded,
        create_time=to_timestamp(migration.created_at),
    )
    if migration.report is not None:
        message.from_report.CopyFrom(_to_report(migration.from_version, migration.report.old))
        message.to_report.CopyFrom(_to_report(migration.to_version, migration.report.new))
        message.neighbour_agreement = migration.report.neighbour_agreement
    return message


def from_move(request: models_pb2.CutOverModelRequest | models_pb2.RollBackModelRequest) -> MoveLibrary:
    """A migration to cut over or to roll back. Raises :class:`InvalidRequest` naming what is wrong."""
    if not request.etag:
        raise InvalidRequest("etag is required", field="etag")
    return MoveLibrary(
        library_id=parse_library_id(request.library_id),
        migration_id=parse_uuid(request.migration_id, "migration_id"),
        etag=request.etag,
        allow_missing=request.allow_missing,
    )


def to_given_faces(photo: PhotoFaces) -> list[detection_pb2.GivenFace]:
    """Faces to embed, each under its face id."""
    return [_to_given_face(face) for face in photo.faces]


def from_measured(reply: detection_pb2.DetectStreamResponse, photo: PhotoFaces) -> PhotoMeasured | PhotoUnmeasured:
    """What became of a photo's given faces, as the stream tells it."""
    if reply.WhichOneof("outcome") == "failure":
        return PhotoUnmeasured(photo, reply.failure.reason, reply.failure.message)
    try:
        vectors = {
            UUID(face.given_id): FaceVector(encode_embedding(face.embedding.values), face.embedding_norm)
            for face in reply.result.faces
        }
    except ValueError as error:
        return PhotoUnmeasured(photo, Reason.INTERNAL_ERROR.value, f"a face without a usable embedding: {error}")
    return PhotoMeasured(photo, reply.result.model_version, vectors)


def _to_given_face(face: PlacedBox) -> detection_pb2.GivenFace:
    given = detection_pb2.GivenFace(id=str(face.face_id), box=to_box(face.box))
    if face.landmarks is not None:
        given.landmarks.CopyFrom(to_landmarks(face.landmarks))
    return given


def _to_report(model_version: str, figures: ModelFigures) -> models_pb2.ModelReport:
    return models_pb2.ModelReport(
        model_version=model_version,
        tar_at_far_1e3=figures.tar,
        threshold_at_far_1e3=figures.threshold,
        eer=figures.eer,
        genuine_pairs=figures.genuine_pairs,
        impostor_pairs=figures.impostor_pairs,
        thresholds=figures.thresholds,
        equivalent_thresholds=figures.equivalent_thresholds,
    )
