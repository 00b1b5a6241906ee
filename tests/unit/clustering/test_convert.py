"""Requests that cannot be, by field; and what is filled in."""

from __future__ import annotations

from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from kith.clustering.v1 import centroids_pb2, clusters_pb2
from kith.clustering.v1.clusters_pb2 import ClusterFacesRequest, LabelClusterRequest
from kith.common.v1.types_pb2 import TimeRange
from services.clustering.convert import (
    from_cluster_faces,
    from_label_cluster,
    from_person_ids,
    from_search,
    from_states,
)
from services.clustering.domain.model import ClusterState
from services.clustering.grouping.request import Algorithm
from shared.errors import InvalidRequest

CLUSTER = "clu_0123456789ab"


def span(*, start: Timestamp | None = None, end: Timestamp | None = None) -> ClusterFacesRequest:
    return ClusterFacesRequest(captured=TimeRange(start=start, end=end))


def label_except(*face_ids: str) -> LabelClusterRequest:
    return LabelClusterRequest(cluster_id=CLUSTER, new_person_name="Anna", except_face_ids=face_ids)


def test_a_run_without_wishes() -> None:
    command = from_cluster_faces(ClusterFacesRequest(), 3)
    assert (command.library_id, command.algorithm, command.min_cluster_size) == ("default", Algorithm.HDBSCAN, 3)
    assert command.selection.captured_from is command.selection.captured_before is None


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        (ClusterFacesRequest(min_quality=-0.1), "min_quality"),
        (ClusterFacesRequest(min_quality=float("nan")), "min_quality"),
        (ClusterFacesRequest(min_cluster_size=1), "min_cluster_size"),
        (ClusterFacesRequest(min_cluster_size=-3), "min_cluster_size"),
        (ClusterFacesRequest(mode=clusters_pb2.ClusterMode.ValueType(9)), "mode"),
        (ClusterFacesRequest(algorithm=clusters_pb2.ClusterAlgorithm.ValueType(9)), "algorithm"),
        (ClusterFacesRequest(library_id="no spaces"), "library_id"),
        (span(start=Timestamp(seconds=9), end=Timestamp(seconds=9)), "captured"),
        (span(start=Timestamp(seconds=1 << 60)), "captured.start"),
    ],
)
def test_runs_that_cannot_be(command: ClusterFacesRequest, wrong: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        from_cluster_faces(command, 3)
    assert [violation.field for violation in refused.value.violations] == [wrong]


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        (LabelClusterRequest(cluster_id=CLUSTER), "person_id"),
        (LabelClusterRequest(cluster_id=CLUSTER, person_id="Anna"), "person_id"),
        (LabelClusterRequest(cluster_id=CLUSTER, new_person_name=" "), "new_person_name"),
        (LabelClusterRequest(cluster_id="12", new_person_name="Anna"), "cluster_id"),
        (label_except("x"), "except_face_ids[0]"),
        (label_except(*[str(uuid4())] * 2), "except_face_ids"),
        (label_except(*(str(uuid4()) for _ in range(501))), "except_face_ids"),
    ],
)
def test_labels_that_cannot_be(command: LabelClusterRequest, wrong: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        from_label_cluster(command)
    assert [violation.field for violation in refused.value.violations] == [wrong]


def test_states() -> None:
    unspecified, active = clusters_pb2.CLUSTER_STATE_UNSPECIFIED, clusters_pb2.CLUSTER_STATE_ACTIVE
    dismissed = clusters_pb2.CLUSTER_STATE_DISMISSED
    assert from_states([]) == from_states([unspecified]) == [ClusterState.ACTIVE]
    assert from_states([dismissed, active, dismissed]) == [ClusterState.ACTIVE, ClusterState.DISMISSED]
    with pytest.raises(InvalidRequest):
        from_states([clusters_pb2.ClusterState.ValueType(9)])


def test_searches_and_persons() -> None:
    person = str(uuid4())
    found = from_search(centroids_pb2.SearchByCentroidRequest(person_id=person, limit=9999))
    assert (found.limit, found.min_cosine) == (500, None)
    assert from_search(centroids_pb2.SearchByCentroidRequest(person_id=person, min_cosine=0.0)).min_cosine == 0.0
    for fields in ({"limit": -1}, {"min_cosine": 2.0}, {"min_cosine": float("nan")}, {"min_quality": 2.0}):
        with pytest.raises(InvalidRequest):
            from_search(centroids_pb2.SearchByCentroidRequest(person_id=person, **fields))
    for persons in ([], [person, person], [str(uuid4()) for _ in range(501)]):
        with pytest.raises(InvalidRequest):
            from_person_ids(persons)
