"""ClusterService."""

from __future__ import annotations

from typing import Any

import grpc

from kith.clustering.v1 import clusters_pb2 as pb
from kith.clustering.v1 import clusters_pb2_grpc
from services.clustering.convert import (
    from_cluster_faces,
    from_label_cluster,
    from_states,
    to_cluster,
    to_member,
    to_run,
)
from services.clustering.convert_edits import from_dismiss_cluster, from_split_cluster, to_split
from services.clustering.domain.dismissing import dismiss_cluster
from services.clustering.domain.grouping_run import check_faces
from services.clustering.domain.increment_run import follow_last_run
from services.clustering.domain.labelling import FacesLabelled, end_cluster, label_faces
from services.clustering.domain.model import ClusterChanged, ClusteringDeps, ClusterScope
from services.clustering.domain.ports import People
from services.clustering.domain.splitting import ClusterCutter, Parting, find_parts, store_parts
from services.clustering.jobs import CLUSTER_FACES
from services.clustering.repository.clusters import get_cluster, list_clusters, list_members
from services.clustering.repository.runs import list_runs
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.db.pagination import read_page_request
from shared.errors import InvalidRequest
from shared.ids import parse_cluster_id, parse_library_id, parse_uuid
from shared.jobs.convert import to_failure, to_job
from shared.jobs.model import NewJob
from shared.jobs.repository import create_job, get_job
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]


class ClusterServicer(clusters_pb2_grpc.ClusterServiceServicer):
    """Groups of faces nobody has named yet."""

    def __init__(self, database: Database, mutations: Mutations, deps: ClusteringDeps, people: People) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps
        self._people = people
        self._cutter = ClusterCutter()

    async def ListClusters(self, request: pb.ListClustersRequest, context: Context) -> pb.ListClustersResponse:
        library_id = parse_library_id(request.library_id)
        states = from_states(request.states)
        if request.min_faces < 0:
            raise InvalidRequest("min_faces must not be negative", field="min_faces")
        filters = (library_id, [state.value for state in states], request.min_faces)
        page = read_page_request(request.page_size, request.page_token, default=50, maximum=500, filters=filters)
        async with self._database.snapshot() as tx:
            found = await list_clusters(tx, library_id, page, states, request.min_faces)
        return pb.ListClustersResponse(
            clusters=[to_cluster(cluster) for cluster in found.items], next_page_token=found.next_token
        )

    async def GetCluster(self, request: pb.GetClusterRequest, context: Context) -> pb.GetClusterResponse:
        library_id = parse_library_id(request.library_id)
        cluster_id = parse_cluster_id(request.cluster_id)
        page = read_page_request(
            request.page_size, request.page_token, default=100, maximum=1000, filters=(library_id, cluster_id)
        )
        async with self._database.snapshot() as tx:
            cluster = await get_cluster(tx, library_id, cluster_id)
            members = await list_members(tx, library_id, cluster_id, page)
        return pb.GetClusterResponse(
            cluster=to_cluster(cluster),
            members=[to_member(member) for member in members.items],
            next_page_token=members.next_token,
        )

    async def ClusterFaces(self, request: pb.ClusterFacesRequest, context: Context) -> pb.ClusterFacesResponse:
        command = from_cluster_faces(request, self._deps.settings.min_cluster_size)

        async def work(tx: Transaction, caller: Caller) -> pb.ClusterFacesResponse:
            await check_faces(tx, self._deps, command)
            if command.scope is ClusterScope.INCREMENTAL:
                await follow_last_run(tx, command)
            new = NewJob(
                library_id=command.library_id,
                kind=CLUSTER_FACES,
                unit="face",
                slices=[{}],
                created_by=caller.subject,
                spec=command.describe(),
            )
            job = await create_job(tx, new, self._deps.ids, self._deps.clock)
            return pb.ClusterFacesResponse(job=to_job(job, self._deps.clock.now()))

        return await self._mutations.run(request, pb.ClusterFacesResponse, work)

    async def LabelCluster(self, request: pb.LabelClusterRequest, context: Context) -> pb.LabelClusterResponse:
        command = from_label_cluster(request)
        request_id = parse_uuid(request.request_id, "request_id") if request.request_id else None

        async def first(caller: Caller) -> FacesLabelled:
            return await label_faces(self._database, self._deps, self._people, command, request_id)

        async def work(tx: Transaction, caller: Caller, labelled: FacesLabelled) -> pb.LabelClusterResponse:
            await end_cluster(tx, self._deps, command, labelled)
            job_id = labelled.job_id
            job = None if job_id is None else await get_job(tx, command.library_id, job_id)
            return pb.LabelClusterResponse(
                person_id=str(labelled.person_id),
                faces_assigned=len(labelled.assigned),
                failures=[to_failure(failure) for failure in labelled.failures],
                job=None if job is None else to_job(job, self._deps.clock.now()),
            )

        return await self._mutations.run_after(request, pb.LabelClusterResponse, first, work)

    async def SplitCluster(self, request: pb.SplitClusterRequest, context: Context) -> pb.SplitClusterResponse:
        command = from_split_cluster(request)
        if request.preview:
            seen = await find_parts(self._database, self._deps, self._cutter, command)
            return to_split(command, seen.parts, None)

        async def first(caller: Caller) -> Parting | ClusterChanged:
            # A twin of this call may have cut it just now, and is answered for both.
            try:
                return await find_parts(self._database, self._deps, self._cutter, command)
            except ClusterChanged as error:
                return error

        async def work(tx: Transaction, caller: Caller, found: Parting | ClusterChanged) -> pb.SplitClusterResponse:
            if isinstance(found, ClusterChanged):
                raise found
            return to_split(command, found.parts, await store_parts(tx, self._deps, command, found))

        return await self._mutations.run_after(request, pb.SplitClusterResponse, first, work)

    async def DismissCluster(self, request: pb.DismissClusterRequest, context: Context) -> pb.DismissClusterResponse:
        command = from_dismiss_cluster(request)

        async def work(tx: Transaction, caller: Caller) -> pb.DismissClusterResponse:
            return pb.DismissClusterResponse(cluster=to_cluster(await dismiss_cluster(tx, self._deps, command)))

        return await self._mutations.run(request, pb.DismissClusterResponse, work)

    async def ListClusterRuns(self, request: pb.ListClusterRunsRequest, context: Context) -> pb.ListClusterRunsResponse:
        library_id = parse_library_id(request.library_id)
        page = read_page_request(request.page_size, request.page_token, default=50, maximum=500, filters=library_id)
        async with self._database.transaction() as tx:
            found = await list_runs(tx, library_id, page)
        return pb.ListClusterRunsResponse(runs=[to_run(run) for run in found.items], next_page_token=found.next_token)
