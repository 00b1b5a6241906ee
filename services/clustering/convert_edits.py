"""Messages of cutting and putting away clusters; nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from kith.clustering.v1 import clusters_pb2
from services.clustering.convert import parse_ids, to_cluster
from services.clustering.domain.dismissing import DismissCluster
from services.clustering.domain.model import Cluster
from services.clustering.domain.splitting import MAX_NAMED, MAX_PARTS, Part, SplitCluster
from shared.errors import InvalidRequest
from shared.ids import parse_cluster_id, parse_library_id

SHOWN_FACES = 1000


def from_split_cluster(request: clusters_pb2.SplitClusterRequest) -> SplitCluster:
    """A cluster to cut. Raises :class:`InvalidRequest` by field."""
    fineness = request.WhichOneof("fineness")
    if fineness is not None and request.face_ids:
        raise InvalidRequest(f"{fineness} goes without face_ids", field=fineness)
    if fineness == "target_count" and not 2 <= request.target_count <= MAX_PARTS:
        raise InvalidRequest(f"target_count must be 2..{MAX_PARTS}", field="target_count")
    if fineness == "tightness" and not 0.0 <= request.tightness <= 1.0:
        raise InvalidRequest("tightness must be 0..1", field="tightness")
    if len(request.face_ids) > MAX_NAMED:
        raise InvalidRequest(f"face_ids must have at most {MAX_NAMED} ids", field="face_ids")
    return SplitCluster(
        library_id=parse_library_id(request.library_id),
        cluster_id=parse_cluster_id(request.cluster_id),
        etag=request.etag,
        face_ids=parse_ids(request.face_ids, "face_ids"),
        target_count=request.target_count if fineness == "target_count" else None,
        tightness=request.tightness if fineness == "tightness" else None,
    )


def from_dismiss_cluster(request: clusters_pb2.DismissClusterRequest) -> DismissCluster:
    """A cluster to put away or to bring back. Raises :class:`InvalidRequest` by field."""
    return DismissCluster(
        library_id=parse_library_id(request.library_id),
        cluster_id=parse_cluster_id(request.cluster_id),
        etag=request.etag,
        restore=request.restore,
    )


def to_split(
    command: SplitCluster, parts: Sequence[Part], clusters: Sequence[Cluster] | None
) -> clusters_pb2.SplitClusterResponse:
    """The parts, and the clusters that they are now in the same order; None: a preview."""
    ids = [command.cluster_id, *([""] * (len(parts) - 1))] if clusters is None else [c.cluster_id for c in clusters]
    return clusters_pb2.SplitClusterResponse(
        clusters=[to_cluster(cluster) for cluster in clusters or ()],
        parts=[
            clusters_pb2.ClusterPart(
                cluster_id=cluster_id,
                face_count=len(part.face_ids),
                cohesion=part.cohesion,
                medoid_face_id=str(part.medoid_face_id),
                face_ids=[str(face_id) for face_id in part.face_ids[:SHOWN_FACES]],
            )
            for cluster_id, part in zip(ids, parts, strict=True)
        ],
    )
