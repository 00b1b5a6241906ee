"""Messages to commands, and results to messages; nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from kith.clustering.v1 import centroids_pb2, clusters_pb2
from services.clustering.domain.cluster_faces import ClusterFaces, GraphSource, Parameters
from services.clustering.domain.labelling import MAX_EXCEPTED, LabelCluster
from services.clustering.domain.model import (
    Centroid,
    Cluster,
    ClusterMember,
    ClusterMode,
    ClusterRun,
    ClusterScope,
    ClusterState,
)
from services.clustering.domain.searching import CentroidMatch, SearchByCentroid
from services.clustering.grouping.request import Algorithm, GraphMethod
from services.clustering.repository.unassigned import FaceSelection
from shared.errors import InvalidRequest
from shared.ids import parse_cluster_id, parse_library_id, parse_uuid
from shared.jobs.convert import to_timestamp

Word = TypeVar("Word", bound=StrEnum)

# What may be said of a grouping, by field of GroupingParameters: least and most.
_RANGES = {
    "neighbours": (4, 256),
    "min_samples": (1, 256),
    "seed_quality": (0.0, 1.0),
    "link_floor": (-1.0, 1.0),
    "merge": (-1.0, 1.0),
    "attach": (-1.0, 1.0),
    "attach_margin": (0.0, 2.0),
    "veto_share": (0.0, 1.0),
}

MAX_PERSONS = 500
MAX_MATCHES = 500
USUAL_MATCHES = 50


def from_cluster_faces(request: clusters_pb2.ClusterFacesRequest, min_cluster_size: int) -> ClusterFaces:
    """A run to start; ``min_cluster_size`` if the request names none. Raises :class:`InvalidRequest` by field."""
    mode = _known(ClusterMode, clusters_pb2.ClusterMode, request.mode, "mode") or ClusterMode.UNSUPERVISED
    algorithm = _known(Algorithm, clusters_pb2.ClusterAlgorithm, request.algorithm, "algorithm") or Algorithm.HDBSCAN
    if not 0.0 <= request.min_quality <= 1.0:
        raise InvalidRequest("min_quality must be 0..1", field="min_quality")
    if request.min_cluster_size and request.min_cluster_size < 2:
        raise InvalidRequest("min_cluster_size must be at least 2", field="min_cluster_size")
    captured = request.captured
    start = _moment(captured.start, "captured.start") if captured.HasField("start") else None
    end = _moment(captured.end, "captured.end") if captured.HasField("end") else None
    if start is not None and end is not None and start >= end:
        raise InvalidRequest("captured.start must be before captured.end", field="captured")
    scope = _known(ClusterScope, clusters_pb2.ClusterScope, request.scope, "scope") or ClusterScope.FULL
    parameters = from_parameters(request.parameters)
    if scope is ClusterScope.INCREMENTAL:
        said = {field.name for field, _ in request.ListFields()}
        for name in ("parameters", "algorithm", "min_cluster_size"):
            if name in said:
                raise InvalidRequest(f"an INCREMENTAL run has the {name} of the last full run", field=name)
    return ClusterFaces(
        library_id=parse_library_id(request.library_id),
        algorithm=algorithm,
        selection=FaceSelection(start, end, request.min_quality),
        min_cluster_size=request.min_cluster_size or min_cluster_size,
        mode=mode,
        scope=scope,
        parameters=parameters,
        allow_missing=request.allow_missing_embeddings,
    )


def from_parameters(said: clusters_pb2.GroupingParameters) -> Parameters:
    """Parameters of a grouping. Raises :class:`InvalidRequest` by field."""
    given = {field.name: value for field, value in said.ListFields() if field.name in _RANGES}
    for name, value in given.items():
        least, most = _RANGES[name]
        if not least <= value <= most:
            raise InvalidRequest(f"parameters.{name} must be {least}..{most}", field=f"parameters.{name}")
    source = _known(GraphSource, clusters_pb2.GraphSource, said.graph_source, "parameters.graph_source")
    return Parameters(
        **given,
        first_groups_only=said.first_groups_only,
        graph_source=source or GraphSource.LOCAL,
        graph_method=_known(GraphMethod, clusters_pb2.GraphMethod, said.graph_method, "parameters.graph_method"),
    )


def from_label_cluster(request: clusters_pb2.LabelClusterRequest) -> LabelCluster:
    """A cluster to label. Raises :class:`InvalidRequest` by field."""
    named = request.WhichOneof("person")
    if named is None:
        raise InvalidRequest("person_id or new_person_name is required", field="person_id")
    if named == "new_person_name" and not request.new_person_name.strip():
        raise InvalidRequest("new_person_name must not be empty", field="new_person_name")
    if len(request.except_face_ids) > MAX_EXCEPTED:
        raise InvalidRequest(f"except_face_ids must have at most {MAX_EXCEPTED} ids", field="except_face_ids")
    return LabelCluster(
        library_id=parse_library_id(request.library_id),
        cluster_id=parse_cluster_id(request.cluster_id),
        person_id=parse_uuid(request.person_id, "person_id") if named == "person_id" else None,
        new_person_name=request.new_person_name,
        etag=request.etag,
        except_face_ids=parse_ids(request.except_face_ids, "except_face_ids"),
    )


def from_states(states: Iterable[clusters_pb2.ClusterState.ValueType]) -> list[ClusterState]:
    """States to list; none given is ACTIVE."""
    known = {_known(ClusterState, clusters_pb2.ClusterState, state, "states") for state in states} - {None}
    return sorted(state for state in known if state is not None) or [ClusterState.ACTIVE]


def to_cluster(cluster: Cluster) -> clusters_pb2.Cluster:
    """A cluster as a message."""
    return clusters_pb2.Cluster(
        id=cluster.cluster_id,
        library_id=cluster.library_id,
        state=clusters_pb2.ClusterState.Value(f"CLUSTER_STATE_{cluster.state.value}"),
        number=cluster.number,
        face_count=cluster.face_count,
        cohesion=cluster.cohesion,
        cover_face_id=str(cluster.cover_face_id),
        first_captured=to_timestamp(cluster.first_captured),
        last_captured=to_timestamp(cluster.last_captured),
        run_id=str(cluster.run_id),
        create_time=to_timestamp(cluster.created_at),
        update_time=to_timestamp(cluster.updated_at),
        etag=cluster.etag,
        medoid_face_id=str(cluster.medoid_face_id),
        separation=cluster.separation,
    )


def to_member(member: ClusterMember) -> clusters_pb2.ClusterMember:
    """A face of a cluster as a message."""
    return clusters_pb2.ClusterMember(
        face_id=str(member.face_id), asset_id=member.asset_id, confidence=member.confidence
    )


def to_run(run: ClusterRun) -> clusters_pb2.ClusterRun:
    """A run as a message."""
    return clusters_pb2.ClusterRun(
        id=str(run.run_id),
        library_id=run.library_id,
        job_id=str(run.job_id),
        mode=clusters_pb2.ClusterMode.Value(f"CLUSTER_MODE_{run.mode.value}"),
        algorithm=clusters_pb2.ClusterAlgorithm.Value(f"CLUSTER_ALGORITHM_{run.algorithm}"),
        model_version=run.model_version,
        faces=run.faces,
        clusters=run.clusters,
        clustered=run.clustered,
        noise=run.noise,
        kept=run.kept,
        thresholds=run.thresholds,
        seconds=run.seconds,
        create_time=to_timestamp(run.created_at),
        scope=clusters_pb2.ClusterScope.Value(f"CLUSTER_SCOPE_{run.scope.value}"),
        parameters=to_parameters(run.parameters),
        min_cluster_size=run.parameters.get("min_cluster_size", 0),
        metrics=run.metrics,
        **run.outcome,
    )


def to_parameters(found: Mapping[str, Any]) -> clusters_pb2.GroupingParameters:
    """The parameters of a run as a message; empty for a run of before they were kept."""
    words = {
        name: getattr(clusters_pb2, enum).Value(f"{prefix}_{found[name]}")
        for name, enum, prefix in (
            ("graph_source", "GraphSource", "GRAPH_SOURCE"),
            ("graph_method", "GraphMethod", "GRAPH_METHOD"),
        )
        if name in found
    }
    plain = {name: found[name] for name in (*_RANGES, "first_groups_only") if name in found}
    return clusters_pb2.GroupingParameters(**plain, **words)


def from_person_ids(person_ids: Sequence[str]) -> list[UUID]:
    """1..500 persons, each once. Raises :class:`InvalidRequest`."""
    if not 1 <= len(person_ids) <= MAX_PERSONS:
        raise InvalidRequest(f"person_ids must have 1..{MAX_PERSONS} ids", field="person_ids")
    return parse_ids(person_ids, "person_ids")


def from_search(request: centroids_pb2.SearchByCentroidRequest) -> SearchByCentroid:
    """A search by a person's centroids. Raises :class:`InvalidRequest` by field."""
    if request.limit < 0:
        raise InvalidRequest("limit must not be negative", field="limit")
    if not -1.0 <= request.min_cosine <= 1.0:
        raise InvalidRequest("min_cosine must be -1..1", field="min_cosine")
    if not 0.0 <= request.min_quality <= 1.0:
        raise InvalidRequest("min_quality must be 0..1", field="min_quality")
    return SearchByCentroid(
        library_id=parse_library_id(request.library_id),
        person_id=parse_uuid(request.person_id, "person_id"),
        limit=min(request.limit or USUAL_MATCHES, MAX_MATCHES),
        min_cosine=request.min_cosine if request.HasField("min_cosine") else None,
        min_quality=request.min_quality,
    )


def to_centroid(centroid: Centroid) -> centroids_pb2.Centroid:
    """A centroid as a message."""
    return centroids_pb2.Centroid(
        id=str(centroid.centroid_id),
        library_id=centroid.library_id,
        person_id=str(centroid.person_id),
        kind=centroids_pb2.CentroidKind.Value(f"CENTROID_KIND_{centroid.kind.value}"),
        model_version=centroid.model_version,
        version=centroid.version,
        face_count=centroid.face_count,
        trimmed_count=centroid.trimmed_count,
        stale=centroid.stale,
        compute_time=to_timestamp(centroid.computed_at),
    )


def to_match(match: CentroidMatch) -> centroids_pb2.CentroidMatch:
    """A face that was found as a message."""
    return centroids_pb2.CentroidMatch(
        face_id=str(match.face_id),
        asset_id=match.asset_id,
        cosine=match.cosine,
        centroid_id=str(match.centroid_id),
    )


def _known(words: type[Word], values: Any, value: int, field: str) -> Word | None:
    """The domain's word for a value of an enum of the contract; None if it is unset. Raises :class:`InvalidRequest`."""
    if value not in values.values():
        raise InvalidRequest(f"{field}: {value} is not a known value", field=field)
    name = values.Name(value)
    return next((word for word in words if name.endswith(f"_{word.value}")), None)


def _moment(stamp: Timestamp, field: str) -> datetime:
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{field} is no moment of the years 1..9999", field=field) from error


def parse_ids(values: Sequence[str], field: str) -> list[UUID]:
    """Ids, each once. Raises :class:`InvalidRequest` naming the one that is none."""
    found = [parse_uuid(value, f"{field}[{index}]") for index, value in enumerate(values)]
    if len(set(found)) != len(found):
        raise InvalidRequest(f"{field} must hold each id once", field=field)
    return found
