"""SQL of ``cluster_runs``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.engine import Row

from services.clustering.domain.model import ClusterMode, ClusterRun
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_clustering import cluster_runs


async def insert_run(tx: Transaction, run: ClusterRun) -> None:
    """Remember a run."""
    await tx.execute(
        insert(cluster_runs),
        {
            "run_id": run.run_id,
            "library_id": run.library_id,
            "job_id": run.job_id,
            "mode": run.mode.value,
            "algorithm": run.algorithm,
            "model_version": run.model_version,
            "faces": run.faces,
            "clusters": run.clusters,
            "clustered": run.clustered,
            "noise": run.noise,
            "kept": run.kept,
            "thresholds": dict(run.thresholds),
            "seconds": dict(run.seconds),
            "created_at": run.created_at,
        },
    )


async def list_runs(tx: Transaction, library_id: str, request: PageRequest) -> Page[ClusterRun]:
    """Runs of a library, newest first."""
    statement = select(cluster_runs).where(cluster_runs.c.library_id == library_id)
    rows = await tx.rows(keyset(statement, request, [SortKey(cluster_runs.c.run_id, descending=True)]))
    return make_page(rows, request, _run, lambda row: [row.run_id])


def _run(row: Row[Any]) -> ClusterRun:
    return ClusterRun(**{**row._mapping, "mode": ClusterMode(row.mode)})
