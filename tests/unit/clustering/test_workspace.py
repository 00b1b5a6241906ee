"""The faces of a run on disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from services.clustering.grouping.pipeline import group_faces
from services.clustering.grouping.process import group_in_process
from services.clustering.grouping.request import GroupingRequest
from services.clustering.repository.unassigned import FaceTable
from services.clustering.repository.workspace import Workspace, list_workspaces, remove_workspaces
from shared.errors import Unavailable
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


def test_what_the_disk_has_damaged_does_not_come_back(tmp_path: Path) -> None:
    for name in ("facts.json", "face_ids.npy", "vectors.npy", "quality.npy"):
        workspace = Workspace(tmp_path, JOB)
        fill(workspace)
        path = tmp_path / str(JOB) / "faces" / name
        path.write_bytes(path.read_bytes()[:10])
        assert Workspace(tmp_path, JOB).open() is None


def test_two_workers_that_read_at_once_do_not_mix_their_faces(tmp_path: Path) -> None:
    """One that lost the job while it read goes on writing for a while."""
    late, holder = Workspace(tmp_path, JOB), Workspace(tmp_path, JOB)
    vectors = late.make_vectors(4, 16)
    fill(holder)
    vectors[:] = 1
    with pytest.raises(FileNotFoundError):
        late.keep(FaceTable.empty(16), {"model_version": "other"})
    opened = holder.open()
    assert opened is not None
    assert (len(opened[0].face_ids), opened[1]) == (60, FACTS)


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Unavailable, match="no room for 1 MiB") as refused:
        Workspace(tmp_path, JOB).make_vectors(1100, 512)
    assert str(tmp_path) not in refused.value.message
    assert list(list_workspaces(tmp_path)) == []


def test_folders_of_other_names_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "not-a-job-of-mine").mkdir()
    assert list(list_workspaces(tmp_path)) == []


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
