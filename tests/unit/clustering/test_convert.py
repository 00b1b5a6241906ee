"""Requests that cannot be, by field; and what is filled in."""

from __future__ import annotations

from uuid import uuid4

import pytest

from kith.clustering.v1 import centroids_pb2, clusters_pb2
from services.clustering.convert import (
    from_cluster_faces,
    from_label_cluster,
    from_person_ids,
    from_search,
    from_states,
)
from services.clustering.domain.model import ClusterState
from services.clustering.grouping.request import Algorithm
from shared.errors import InvalidRequest, NotImplementedYet

CLUSTER = "clu_0123456789ab"


def test_a_run_without_wishes() -> None:
    command = from_cluster_faces(clusters_pb2.ClusterFacesRequest(), 3)
    assert (command.library_id, command.algorithm, command.min_cluster_size) == ("default", Algorithm.HDBSCAN, 3)
    assert command.selection.captured_from is command.selection.captured_before is None


def test_dual_is_not_built_yet() -> None:
    with pytest.raises(NotImplementedYet):
        from_cluster_faces(clusters_pb2.ClusterFacesRequest(mode=clusters_pb2.CLUSTER_MODE_DUAL), 3)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"min_quality": -0.1}, "min_quality"),
        ({"min_quality": float("nan")}, "min_quality"),
        ({"min_cluster_size": 1}, "min_cluster_size"),
        ({"min_cluster_size": -3}, "min_cluster_size"),
        ({"mode": 9}, "mode"),
        ({"algorithm": 9}, "algorithm"),
        ({"library_id": "no spaces"}, "library_id"),
        ({"captured": {"start": {"seconds": 9}, "end": {"seconds": 9}}}, "captured"),
        ({"captured": {"start": {"seconds": 1 << 60}}}, "captured.start"),
    ],
)
def test_runs_that_cannot_be(fields: dict[str, object], wrong: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        from_cluster_faces(clusters_pb2.ClusterFacesRequest(**fields), 3)
    assert [violation.field for violation in refused.value.violations] == [wrong]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "person_id"),
        ({"person_id": "Anna"}, "person_id"),
        ({"new_person_name": " "}, "new_person_name"),
        ({"new_person_name": "Anna", "cluster_id": "12"}, "cluster_id"),
        ({"new_person_name": "Anna", "except_face_ids": ["x"]}, "except_face_ids[0]"),
        ({"new_person_name": "Anna", "except_face_ids": [str(uuid4())] * 2}, "except_face_ids"),
        ({"new_person_name": "Anna", "except_face_ids": [str(uuid4()) for _ in range(501)]}, "except_face_ids"),
    ],
)
def test_labels_that_cannot_be(fields: dict[str, object], wrong: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        from_label_cluster(clusters_pb2.LabelClusterRequest(**{"cluster_id": CLUSTER, **fields}))
    assert [violation.field for violation in refused.value.violations] == [wrong]


def test_states() -> None:
    assert from_states([]) == from_states([0]) == [ClusterState.ACTIVE]
    assert from_states([2, 1, 2]) == [ClusterState.ACTIVE, ClusterState.DISMISSED]
    with pytest.raises(InvalidRequest):
        from_states([9])


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
