"""SQL of ``cluster_runs``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.engine import Row

from services.clustering.domain.model import ClusterMode, ClusterRun, ClusterScope
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
            "scope": run.scope.value,
            "parameters": dict(run.parameters),
            "metrics": dict(run.metrics),
            "outcome": dict(run.outcome),
            "read_at": run.read_at,
            "matcher_id": run.matcher_id,
        },
    )


async def list_runs(tx: Transaction, library_id: str, request: PageRequest) -> Page[ClusterRun]:
    """Runs of a library, newest first."""
    statement = select(cluster_runs).where(cluster_runs.c.library_id == library_id)
    rows = await tx.rows(keyset(statement, request, [SortKey(cluster_runs.c.run_id, descending=True)]))
    return make_page(rows, request, _run, lambda row: [row.run_id])


async def find_last_runs(tx: Transaction, library_id: str) -> tuple[ClusterRun | None, ClusterRun | None]:
    """The last run, and the last FULL one, of those that looked at all faces and say when they did."""
    whole = select(cluster_runs).where(
        cluster_runs.c.library_id == library_id,
        cluster_runs.c.read_at.is_not(None),
        cluster_runs.c.parameters["whole"].as_boolean(),
        # One that found no face has none.
        cluster_runs.c.thresholds != {},
    )
    newest = whole.order_by(cluster_runs.c.run_id.desc()).limit(1)
    last = await tx.one_or_none(newest)
    full = await tx.one_or_none(newest.where(cluster_runs.c.scope == ClusterScope.FULL.value))
    return (_run(last) if last is not None else None, _run(full) if full is not None else None)


def _run(row: Row[Any]) -> ClusterRun:
    return ClusterRun(**{**row._mapping, "mode": ClusterMode(row.mode), "scope": ClusterScope(row.scope)})
