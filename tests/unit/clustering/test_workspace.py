"""The faces of a run on disk."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import numpy as np

from services.clustering.grouping.pipeline import group_faces
from services.clustering.grouping.process import group_in_process
from services.clustering.grouping.request import GroupingRequest
from services.clustering.repository.unassigned import FaceTable
from services.clustering.repository.workspace import Workspace, list_workspaces, remove_workspaces
from shared.faces.embeddings import normalise

JOB = UUID(int=7)
FACTS = {"model_version": "m", "missing": 0}


def fill(workspace: Workspace, count: int = 60) -> FaceTable:
    """Faces of five people, kept."""
    random = np.random.default_rng(0)
    vectors = workspace.make_vectors(count, 16)
    centres = normalise(random.standard_normal((5, 16)))
    vectors[:] = normalise(np.repeat(centres, count // 5, axis=0) + 0.02 * random.standard_normal((count, 16)))
    faces = FaceTable(
        [UUID(int=row) for row in range(count)],
        vectors,
        np.arange(count, dtype=np.int64),
        np.ones(count, dtype=np.float32),
        np.where(np.arange(count) < 2, 0, -1).astype(np.int32),
        np.arange(count) == 3,
    )
    workspace.keep(faces, FACTS)
    return faces


def test_what_was_kept_comes_back_mapped(tmp_path: Path) -> None:
    kept = fill(Workspace(tmp_path, JOB))
    opened = Workspace(tmp_path, JOB).open()
    assert opened is not None
    faces, facts = opened
    assert (facts, list(faces.face_ids)) == (FACTS, list(kept.face_ids))
    for name in ("vectors", "assets", "quality", "anchors", "dismissed"):
        found = getattr(faces, name)
        assert isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, getattr(kept, name))


def test_what_was_not_kept_to_the_end_does_not_come_back(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, JOB)
    assert workspace.open() is None
    workspace.make_vectors(5, 4)
    assert workspace.open() is None
    fill(workspace)
    # Another attempt to read begins.
    workspace.make_vectors(5, 4)
    assert workspace.open() is None


def test_no_faces_can_be_kept_too(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, JOB)
    vectors = workspace.make_vectors(0, 16)
    assert vectors.shape == (0, 16)
    workspace.keep(FaceTable.empty(16), FACTS)
    opened = workspace.open()
    assert opened is not None
    assert list(opened[0].face_ids) == []


def test_a_process_of_its_own_maps_the_faces_again(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, JOB)
    fill(workspace)
    opened = workspace.open()
    assert opened is not None
    faces, _ = opened
    request = GroupingRequest(faces.vectors, faces.assets, faces.quality, anchors=faces.anchors)
    found = group_in_process(request, lambda _: None, lambda: False)
    here = group_faces(request, lambda _: None, lambda: False)
    np.testing.assert_array_equal(found.labels, here.labels)
    assert found.labels.max() == 4


def test_room_is_given_back(tmp_path: Path) -> None:
    for number in (1, 2):
        fill(Workspace(tmp_path, UUID(int=number)))
    assert set(list_workspaces(tmp_path)) == {UUID(int=1), UUID(int=2)}
    remove_workspaces(tmp_path, [UUID(int=1)])
    assert list(list_workspaces(tmp_path)) == [UUID(int=2)]
    assert list(list_workspaces(tmp_path / "none")) == []
