"""Two faces to compare, and what came of it."""

from __future__ import annotations

from kith.detection.v1 import detection_pb2 as pb
from services.detection.convert.geometry import to_box, to_landmarks, to_quality
from services.detection.convert.sights import from_image
from services.detection.domain.comparing import ComparedFace, CompareFaces, Comparison, FaceSource
from shared.errors import InvalidRequest
from shared.ids import parse_library_id, parse_uuid


def from_compare_request(request: pb.CompareFacesRequest) -> CompareFaces:
    """Two faces to compare. Raises :class:`InvalidRequest` naming the side that is wrong."""
    return CompareFaces(
        library_id=parse_library_id(request.library_id),
        left=_from_source(request.left, "left"),
        right=_from_source(request.right, "right"),
    )


def to_compare_response(comparison: Comparison) -> pb.CompareFacesResponse:
    """A comparison as a message."""
    return pb.CompareFacesResponse(
        cosine=comparison.cosine,
        same_person=comparison.same_person,
        left=_to_face(comparison.left),
        right=_to_face(comparison.right),
    )


def _from_source(source: pb.FaceSource, side: str) -> FaceSource:
    kind = source.WhichOneof("source")
    if kind == "image":
        return from_image(source.image, f"{side}.image")
    if kind == "face_id":
        return parse_uuid(source.face_id, f"{side}.face_id")
    raise InvalidRequest(f"{side} must have image or face_id", field=side)


def _to_face(face: ComparedFace) -> pb.DetectedFace:
    return pb.DetectedFace(
        box=to_box(face.box),
        landmarks=to_landmarks(face.landmarks),
        confidence=face.confidence,
        quality=to_quality(face.quality),
    )
