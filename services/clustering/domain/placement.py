"""A grouping held against the present: who is in which cluster now, under which id, and what became of the old ones.

Three things outlive every run. A cluster that is still the same people keeps its id. A face that was put away stays away: where
at least half of a group was put away, the group is, and elsewhere such faces are left where they are. And a group with faces
that a human put there may be as small as they left it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import numpy.typing as npt

from services.clustering.grouping.stable_ids import Fate, keep_cluster_ids
from services.clustering.repository.memberships import Membership, Place

AWAY_SHARE = 0.5
"""A group of which so many faces were put away is put away."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Faces by row and the groups found: ``labels`` (N,) 0..K-1, -1 for none, ``confidence`` (N,), ``anchors`` (N,) equal for
    faces that a human had put together when they were read, -1 for the others.
    """

    face_ids: Sequence[UUID]
    labels: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    anchors: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Placement:
    """What is to be written. ``groups`` names the group of the grouping that each cluster is; ``fate`` says what became of the
    clusters there were.
    """

    memberships: Sequence[Membership]
    ungrouped: Sequence[UUID]
    changed_faces: Sequence[UUID]
    changed_clusters: Sequence[str]
    groups: Mapping[str, int]
    new_ids: Sequence[str]
    dismissed: Collection[str]
    faces: int
    fate: Fate

    @property
    def touched(self) -> list[str]:
        """Clusters whose figures have to be made anew."""
        return sorted({*self.changed_clusters, *self.groups})


def place_groups(
    groups: Groups,
    present: Mapping[UUID, Place],
    min_cluster_size: int,
    new_id: Callable[[], str],
    wider: Collection[str] = (),
) -> Placement:
    """Where each face goes that is still there (those in ``present``). ``wider``: clusters with faces that were not grouped,
    which live on whatever becomes of those that were.
    """
    rows = np.array([face_id in present for face_id in groups.face_ids], dtype=np.bool_)
    face_ids = [face_id for face_id, stays in zip(groups.face_ids, rows, strict=True) if stays]
    places = [present[face_id] for face_id in face_ids]
    away = np.array([place.dismissed for place in places], dtype=np.bool_)
    anchors = groups.anchors[rows]
    parted = find_parted(places, anchors)
    labels = _part_from_dismissed(np.where(parted, -1, groups.labels[rows]).astype(np.int32), away)
    labels = drop_small(labels, min_cluster_size, anchors >= 0)
    old = [place.cluster_id for place in places]
    is_away = _find_dismissed(labels, away)
    # A face that was put away and belongs to no such group stays where it is, and keeps its cluster's id.
    stay = parted | (away & (labels < 0))
    named = keep_cluster_ids(
        old,
        labels,
        new_id,
        claims=_find_claims(labels, anchors, old),
        old_away=away,
        new_away=is_away,
        lasting={*wider} | {name for name, stays in zip(old, stay.tolist(), strict=True) if stays and name is not None},
    )
    new = [
        named.ids[label] if label >= 0 else name if stays else None
        for label, name, stays in zip(labels.tolist(), old, stay.tolist(), strict=True)
    ]
    changed = [row for row, (before, after) in enumerate(zip(old, new, strict=True)) if before != after]
    known = {cluster_id for cluster_id in old if cluster_id is not None}
    confidence = groups.confidence[rows].tolist()
    origins = _find_origins(groups.labels[rows], labels, len(named.ids))
    return Placement(
        memberships=[
            Membership(face_ids[row], named.ids[label], confidence[row])
            for row, label in enumerate(labels.tolist())
            if label >= 0
        ],
        ungrouped=[face_ids[row] for row in changed if new[row] is None],
        changed_faces=[face_ids[row] for row in changed],
        changed_clusters=sorted({name for row in changed for name in (old[row], new[row]) if name is not None}),
        groups={name: origins[label] for label, name in enumerate(named.ids)},
        new_ids=[name for name in named.ids if name not in known],
        dismissed={name for name, put_away in zip(named.ids, is_away.tolist(), strict=True) if put_away},
        faces=len(face_ids),
        fate=named.fate,
    )


def find_parted(places: Sequence[Place], anchors: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """(N,) the faces that a human has put somewhere since they were read: their word is newer than the grouping."""
    pinned = np.array([place.pinned for place in places], dtype=np.bool_)
    clusters: dict[int, set[str | None]] = {}
    for anchor, place in zip(anchors.tolist(), places, strict=True):
        clusters.setdefault(anchor, set()).add(place.cluster_id)
    torn = [anchor for anchor, names in clusters.items() if anchor >= 0 and len(names) > 1]
    return (pinned & (anchors < 0)) | np.isin(anchors, torn)


def drop_small(labels: npt.NDArray[np.int32], min_size: int, anchored: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Labels 0..K-1 without gaps, in the order they had; groups that lost too many faces meanwhile are noise (-1), unless a
    human put some of theirs there.
    """
    sizes = Counter(labels[labels >= 0].tolist())
    held = set(labels[anchored & (labels >= 0)].tolist())
    kept = sorted(label for label, size in sizes.items() if size >= min_size or label in held)
    names = {label: name for name, label in enumerate(kept)}
    return np.array([names.get(label, -1) for label in labels.tolist()], dtype=np.int32)


def _find_claims(
    labels: npt.NDArray[np.int32], anchors: npt.NDArray[np.int32], old: Sequence[str | None]
) -> dict[int, str]:
    """By group, the cluster that a human made of some of its faces: it is that one, however many others there are."""
    claims: dict[int, str] = {}
    for row in np.flatnonzero((anchors >= 0) & (labels >= 0)).tolist():
        name = old[row]
        if name is not None:
            claims.setdefault(int(labels[row]), name)
    return claims


def _find_dismissed(labels: npt.NDArray[np.int32], away: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(K,) whether each group of labels 0..K-1 is to be put away."""
    count = int(labels.max(initial=-1)) + 1
    grouped = labels >= 0
    sizes = np.bincount(labels[grouped], minlength=count)
    gone = np.bincount(labels[grouped & away], minlength=count)
    return np.asarray(gone >= AWAY_SHARE * np.maximum(sizes, 1))


def _part_from_dismissed(labels: npt.NDArray[np.int32], away: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Labels without the put-away faces of groups that are not put away."""
    grouped = labels >= 0
    result = labels.copy()
    stays = ~_find_dismissed(labels, away)
    result[grouped] = np.where(away[grouped] & stays[labels[grouped]], -1, labels[grouped])
    return result


def _find_origins(before: npt.NDArray[np.int32], after: npt.NDArray[np.int32], count: int) -> list[int]:
    """The label each of the renumbered groups 0..count-1 had before."""
    origins = np.full(count, -1, dtype=np.int64)
    grouped = after >= 0
    origins[after[grouped]] = before[grouped]
    return [int(origin) for origin in origins]
