"""Clusters put straight into the tables, for tests of what is asked about their faces."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert

from shared.db.tables_clustering import cluster_members, cluster_runs, clusters
from shared.foundation import Foundation
from tests.integration.library import MODEL, SeededFaces

CLUSTER = "clu_0123456789ab"


async def put_in_cluster(
    base: Foundation,
    faces: SeededFaces,
    rows: Sequence[int],
    *,
    number: int = 1,
    cluster_id: str = CLUSTER,
    library_id: str = "default",
) -> None:
    """These faces are a cluster, whatever they look like."""
    now, run_id = base.clock.now(), base.ids.new_uuid()
    async with base.database.transaction() as tx:
        counts = dict.fromkeys(("faces", "clusters", "clustered", "noise", "kept"), 0)
        await tx.execute(
            insert(cluster_runs),
            {
                "run_id": run_id,
                "library_id": library_id,
                "job_id": run_id,
                "mode": "UNSUPERVISED",
                "algorithm": "HDBSCAN",
                "model_version": MODEL,
                "thresholds": {},
                "seconds": {},
                "created_at": now,
                **counts,
            },
        )
        await tx.execute(
            insert(clusters),
            {
                "cluster_id": cluster_id,
                "library_id": library_id,
                "number": number,
                "model_version": MODEL,
                "face_count": len(rows),
                "cohesion": 0.8,
                "run_id": run_id,
                "created_at": now,
                "updated_at": now,
            },
        )
        await tx.execute(
            insert(cluster_members),
            [
                {
                    "face_id": faces.face_ids[row],
                    "library_id": library_id,
                    "cluster_id": cluster_id,
                    "confidence": 0.9,
                }
                for row in rows
            ],
        )
