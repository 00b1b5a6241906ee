"""Builds the clustering service out of its parts, by plain functions."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from kith.clustering.v1 import centroids_pb2, centroids_pb2_grpc, clusters_pb2, clusters_pb2_grpc
from services.clustering.adapters.people import RemotePeople
from services.clustering.adapters.unassigned import IndexedFaces
from services.clustering.computing import CentroidComputer, measure_waiting
from services.clustering.domain.model import ClusteringDeps
from services.clustering.forgetting_jobs import ForgetCentroidsHandler
from services.clustering.jobs import CLUSTER_FACES, ClusterFacesJob
from services.clustering.servicers.centroid import CentroidServicer
from services.clustering.servicers.cluster import ClusterServicer
from services.clustering.sweeping import sweep_forever
from shared.foundation import Chore, Foundation
from shared.jobs.execution import JobHandler
from shared.jobs.forgetting import FORGET_CENTROIDS
from shared.rpc.channel import open_channel
from shared.rpc.server import RpcServer
from shared.vectors.faces import FaceIndex


def build_deps(base: Foundation) -> ClusteringDeps:
    """What the use cases need."""
    settings = base.settings
    return ClusteringDeps(base.clock, base.ids, settings.clustering, settings.quality, settings.suggestions)


def open_people(base: Foundation, stack: AsyncExitStack) -> RemotePeople:
    """The persons service, by a channel of its own."""
    channel = open_channel(base.settings.services.persons, base.settings.rpc, base.settings.auth)
    stack.push_async_callback(channel.close)
    return RemotePeople(channel)


def add_services(server: RpcServer, base: Foundation, stack: AsyncExitStack) -> None:
    """Register every service of this server."""
    deps = build_deps(base)
    server.add(
        clusters_pb2_grpc.add_ClusterServiceServicer_to_server,
        ClusterServicer(base.database, base.mutations, deps, open_people(base, stack)),
        clusters_pb2.DESCRIPTOR.services_by_name["ClusterService"].full_name,
    )
    server.add(
        centroids_pb2_grpc.add_CentroidServiceServicer_to_server,
        CentroidServicer(base.database, base.mutations, deps, IndexedFaces(FaceIndex(base.qdrant, base.collections))),
        centroids_pb2.DESCRIPTOR.services_by_name["CentroidService"].full_name,
    )


def build_chores(base: Foundation) -> dict[str, Chore]:
    """What the worker does besides its jobs, by name."""
    return {
        "sweep-workspaces": partial(sweep_forever, base.database, find_scratch(base)),
        "centroids": CentroidComputer(base.database, build_deps(base)).run,
        "centroids-measure": partial(measure_waiting, base.database, base.clock, base.metrics),
    }


def find_scratch(base: Foundation) -> Path:
    """Where runs keep their faces while they last."""
    return base.settings.data_dir / "grouping"


def build_handlers(base: Foundation, stack: AsyncExitStack) -> dict[str, JobHandler]:
    """Handlers of this service's jobs, by kind."""
    deps = build_deps(base)
    index = FaceIndex(base.qdrant, base.collections)
    return {
        CLUSTER_FACES: ClusterFacesJob(base.database, deps, open_people(base, stack), index, find_scratch(base)),
        FORGET_CENTROIDS: ForgetCentroidsHandler(base.database, deps),
    }
