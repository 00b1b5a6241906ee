"""ClusterFaces in the space of a library's matcher: faces and thresholds are carried there together."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from sqlalchemy import insert, select, update

from bench.embeddings import generate_faces
from kith.jobs.v1 import jobs_pb2
from services.clustering.domain.model import ActiveModel
from services.clustering.grouping.thresholds import ARCFACE_THRESHOLDS, Thresholds
from services.clustering.repository.matchers import with_learnt_space
from shared.db.tables_clustering import cluster_runs
from shared.db.tables_persons import matchers
from shared.faces.embeddings import Vectors, normalise
from shared.faces.projection import Projection, Strangers, measure_strangers
from shared.faces.verification import score_pairs
from shared.foundation import Foundation
from tests.integration.clustering.kit import Kith, Library
from tests.integration.library import MODEL, seed_faces


async def seed_matcher(
    base: Foundation, projection: Projection, before: Strangers, after: Strangers, *, model_version: str = MODEL
) -> None:
    """An active matcher, as the persons service would have stored it."""
    async with base.database.transaction() as tx:
        await tx.execute(update(matchers).values(active=False))
        await tx.execute(
            insert(matchers),
            {
                "matcher_id": base.ids.new_uuid(),
                "library_id": "default",
                "model_version": model_version,
                "job_id": base.ids.new_uuid(),
                "active": True,
                "input_dimension": projection.input_dimension,
                "dimension": projection.dimension,
                "projection": projection.to_bytes(),
                "report": {"strangers_before": asdict(before), "strangers_after": asdict(after)},
                "created_at": base.clock.now(),
            },
        )


def whiten(vectors: Vectors, people: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Projection:
    """What a matcher learns first: one person's faces scatter alike in every direction."""
    names, index = np.unique(people, return_inverse=True)
    means = np.stack([vectors[index == name].mean(axis=0) for name in range(len(names))])
    around = vectors - means[index]
    values, directions = np.linalg.eigh(around.T @ around / len(vectors))
    return Projection((directions / np.sqrt(values + values.mean())).astype(np.float32))


async def read_run(base: Foundation) -> Thresholds:
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(cluster_runs.c.thresholds).order_by(cluster_runs.c.run_id.desc()).limit(1))
    return Thresholds(**rows[0].thresholds)


@pytest.mark.usefixtures("grouping_here")
async def test_groups_are_better_in_a_space_learnt_on_other_people(kith: Kith, base: Foundation) -> None:
    made = generate_faces(9000, seed=3, profile="hard")
    known = (made.truth >= 0) & (made.truth % 2 == 0)
    unknown = np.flatnonzero(~known)[:2500]
    space = whiten(made.vectors[known], made.truth[known])
    shown = np.flatnonzero(known)[:2500]
    scores = [
        score_pairs(vectors, made.truth[shown]).impostor
        for vectors in (made.vectors[shown], space.apply(made.vectors[shown]))
    ]
    before, after = (measure_strangers(impostor) for impostor in scores)
    seeded = await seed_faces(base, made.vectors[unknown], qualities=made.quality[unknown].tolist())
    truth = dict(zip(seeded.face_ids, np.maximum(made.truth[unknown], -1).tolist(), strict=True))
    library = Library(seeded.face_ids, seeded.asset_ids, truth)

    async def grouped() -> float:
        assert (await kith.cluster()).state == jobs_pb2.JOB_STATE_SUCCEEDED
        found: dict[str, str] = {}
        for cluster in await kith.list_clusters(page_size=500):
            found |= {member.face_id: cluster.id for member in await kith.members(cluster.id, 1000)}
        return library.pairwise_f1(
            {face_id: found[str(face_id)] for face_id in seeded.face_ids if str(face_id) in found}
        )

    plain = await grouped()
    assert await read_run(base) == ARCFACE_THRESHOLDS
    await seed_matcher(base, space, before, after)
    learnt = await grouped()
    assert learnt > plain + 0.01
    used = await read_run(base)
    assert used.link_floor == pytest.approx(
        after.middle + (0.40 - before.middle) / before.spread * after.spread, abs=1e-5
    )
    assert used.link_floor < 0.38


@pytest.mark.usefixtures("grouping_here")
async def test_a_matcher_of_another_model_changes_nothing(kith: Kith, base: Foundation) -> None:
    vectors = normalise(np.random.default_rng(0).standard_normal((12, 8)))
    await seed_faces(base, vectors)
    odd = Projection(np.eye(8, 2, dtype=np.float32))
    await seed_matcher(base, odd, Strangers(0.0, 0.1), Strangers(0.5, 0.2), model_version="older_model")
    assert (await kith.cluster()).state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert await read_run(base) == ARCFACE_THRESHOLDS
    model = ActiveModel(MODEL, 8, {})
    async with base.database.transaction() as tx:
        assert await with_learnt_space(tx, "default", model) == model
        found = (await with_learnt_space(tx, "default", replace(model, model_version="older_model"))).learnt
    assert found is not None
    np.testing.assert_array_equal(found.projection.matrix, odd.matrix)
    assert (found.before, found.after) == (Strangers(0.0, 0.1), Strangers(0.5, 0.2))
