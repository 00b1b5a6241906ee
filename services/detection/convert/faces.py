"""Stored faces."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from kith.common.v1 import types_pb2
from kith.detection.v1 import faces_pb2 as pb
from services.detection.convert.geometry import to_box, to_landmarks, to_quality
from services.detection.convert.sights import from_image
from services.detection.convert.times import from_range, to_captured
from services.detection.domain.model import Face, FaceState, FaceStats
from services.detection.domain.searching import FaceMatch, FaceQuery, GivenEmbedding, SearchFaces
from services.detection.repository.faces import FaceFilter, StoredEmbedding
from shared.config import DetectionSettings
from shared.errors import InvalidRequest
from shared.faces.embeddings import decode_embedding
from shared.ids import parse_asset_id, parse_cluster_id, parse_library_id, parse_uuid
from shared.imaging.crop import CropFormat
from shared.jobs.convert import to_timestamp
from shared.rpc.enums import from_enum

USUAL_MATCHES: Final = 20
MAX_MATCHES: Final = 200


def to_face(face: Face) -> pb.Face:
    """A face as a message."""
    return pb.Face(
        id=str(face.face_id),
        library_id=face.library_id,
        asset_id=face.asset_id,
        box=to_box(face.box),
        landmarks=to_landmarks(face.landmarks),
        confidence=face.confidence,
        quality=to_quality(face.quality),
        state=pb.FaceState.Value(f"FACE_STATE_{face.state.value}"),
        origin=pb.FaceOrigin.Value(f"FACE_ORIGIN_{face.origin.value}"),
        model_version=face.model_version,
        person_id=str(face.person_id or ""),
        cluster_id=face.cluster_id or "",
        captured_at=to_captured(face.captured),
        create_time=to_timestamp(face.created_at),
    )


def to_embedding(stored: StoredEmbedding) -> types_pb2.Embedding:
    """A stored vector as a message."""
    return types_pb2.Embedding(model_version=stored.model_version, values=decode_embedding(stored.data).tolist())


def to_stats(stats: FaceStats) -> pb.GetFaceStatsResponse:
    """Counts as a message."""
    return pb.GetFaceStatsResponse(
        assets=stats.assets,
        assets_detected=stats.assets_detected,
        faces=stats.faces,
        active=stats.active,
        ignored=stats.ignored,
        not_a_face=stats.not_a_face,
        assigned=stats.assigned,
        clustered=stats.clustered,
        unknown=stats.unknown,
    )


def from_list_request(request: pb.ListFacesRequest) -> FaceFilter:
    """The filters of ListFaces. Raises :class:`InvalidRequest` naming the one that is wrong."""
    if not 0 <= request.min_quality <= 1:
        raise InvalidRequest("min_quality must be 0..1", field="min_quality")
    states = tuple(
        from_enum(pb.FaceState.Name, state, FaceState, "FACE_STATE_", f"states[{index}]")
        for index, state in enumerate(request.states)
    )
    return FaceFilter(
        asset_id=parse_asset_id(request.asset_id) if request.asset_id else "",
        person_id=parse_uuid(request.person_id, "person_id") if request.person_id else None,
        cluster_id=parse_cluster_id(request.cluster_id) if request.cluster_id else "",
        unassigned=request.unassigned,
        min_quality=request.min_quality,
        states=states or (FaceState.ACTIVE,),
        captured=from_range(request.captured, "captured"),
    )


def from_search_request(request: pb.SearchFacesRequest) -> SearchFaces:
    """A search. Raises :class:`InvalidRequest` by field."""
    if request.limit < 0:
        raise InvalidRequest("limit must not be negative", field="limit")
    # Written so that NaN, which is between nothing, is refused too.
    if not -1.0 <= request.min_cosine <= 1.0:
        raise InvalidRequest("min_cosine must be -1..1", field="min_cosine")
    return SearchFaces(
        library_id=parse_library_id(request.library_id),
        query=_from_query(request),
        limit=min(request.limit or USUAL_MATCHES, MAX_MATCHES),
        min_cosine=request.min_cosine if request.HasField("min_cosine") else None,
        unassigned=request.unassigned,
        person_id=parse_uuid(request.person_id, "person_id") if request.person_id else None,
    )


def to_match(match: FaceMatch) -> pb.FaceMatch:
    """A face that was found by a search, as a message."""
    return pb.FaceMatch(face=to_face(match.face), cosine=match.cosine)


def from_update_request(request: pb.UpdateFaceRequest) -> tuple[UUID, FaceState]:
    """Which face gets which state. Raises :class:`InvalidRequest` unless the mask names `state` and nothing else."""
    face_id = parse_uuid(request.face.id, "face.id")
    if not request.update_mask.paths:
        raise InvalidRequest("update_mask must name 'state'", field="update_mask")
    for path in request.update_mask.paths:
        if path != "state":
            raise InvalidRequest(f"update_mask: '{path}' cannot be changed", field="update_mask")
    return face_id, from_enum(pb.FaceState.Name, request.face.state, FaceState, "FACE_STATE_", "face.state")


def _from_query(request: pb.SearchFacesRequest) -> FaceQuery:
    kind = request.WhichOneof("query")
    if kind == "image":
        return from_image(request.image)
    if kind == "embedding":
        return GivenEmbedding(request.embedding.model_version, tuple(request.embedding.values))
    if kind == "face_id":
        return parse_uuid(request.face_id, "face_id")
    raise InvalidRequest("one of image, embedding and face_id is required", field="query")


def from_crop_format(value: pb.CropFormat.ValueType) -> CropFormat:
    """The encoding of a crop; unset is JPEG."""
    if value == pb.CROP_FORMAT_WEBP:
        return CropFormat.WEBP
    if value in (pb.CROP_FORMAT_UNSPECIFIED, pb.CROP_FORMAT_JPEG):
        return CropFormat.JPEG
    raise InvalidRequest(f"format has no value {value}", field="format")


def from_margin(request: pb.GetFaceCropRequest, settings: DetectionSettings) -> float:
    """The margin of a crop, as configured if unset."""
    return request.margin if request.HasField("margin") else settings.crop_margin
