"""Putting a cluster away, and bringing it back. That it stays away is the runs' doing (``placement``)."""

from __future__ import annotations

from dataclasses import dataclass

from services.clustering.domain.model import Cluster, ClusteringDeps, ClusterState
from services.clustering.repository.clusters import get_cluster, get_unchanged, set_state
from services.clustering.repository.locks import lock_clusters
from shared.db.engine import Transaction


@dataclass(frozen=True, slots=True)
class DismissCluster:
    """A cluster to put away, or to bring back."""

    library_id: str
    cluster_id: str
    etag: str
    restore: bool


async def dismiss_cluster(tx: Transaction, deps: ClusteringDeps, command: DismissCluster) -> Cluster:
    """The cluster as it is then; one that was so before is left as it is.

    Qdrant does not know of it: a point names the cluster of its face, and not its state. Only the row of the cluster is
    written, so no face is held for it. Raises :class:`ClusterChanged`, and :class:`PreconditionFailed` with ETAG_REQUIRED.
    """
    await lock_clusters(tx, command.library_id)
    cluster = await get_unchanged(tx, command.library_id, command.cluster_id, command.etag)
    wanted = ClusterState.ACTIVE if command.restore else ClusterState.DISMISSED
    if cluster.state is wanted:
        return cluster
    await set_state(tx, deps.clock, command.library_id, command.cluster_id, wanted)
    return await get_cluster(tx, command.library_id, command.cluster_id)
