"""The stubs a test talks to, and libraries of generated faces with their truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc.aio
import numpy as np
from sqlalchemy import func, select

from bench.embeddings import Shares, generate_faces
from kith.clustering.v1 import centroids_pb2, centroids_pb2_grpc, clusters_pb2, clusters_pb2_grpc
from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from kith.persons.v1 import assignments_pb2, assignments_pb2_grpc, persons_pb2, persons_pb2_grpc
from services.clustering.domain.model import ClusterMode, ClusterRun
from services.clustering.repository.memberships import (
    Membership,
    insert_clusters,
    refresh_clusters,
    write_memberships,
)
from services.clustering.repository.runs import insert_run
from services.clustering.server import start as start_clustering
from services.clustering.worker import start as start_worker
from services.persons.server import start as start_persons
from shared.db.outbox import queue_faces
from shared.db.tables_shared import vector_outbox
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running, eventually
from tests.integration.library import MODEL, seed_faces

JOB_ENDS_S = 50


class Kith:
    """Both servers by their stubs; errors come as Kith's own."""

    def __init__(self, persons: grpc.aio.Channel, clustering: grpc.aio.Channel) -> None:
        self.people = persons_pb2_grpc.PersonServiceStub(persons)
        self.assignments = assignments_pb2_grpc.AssignmentServiceStub(persons)
        self.clusters = clusters_pb2_grpc.ClusterServiceStub(clustering)
        self.centroids = centroids_pb2_grpc.CentroidServiceStub(clustering)
        self.jobs = jobs_pb2_grpc.JobServiceStub(clustering)

    async def cluster(self, **fields: Any) -> jobs_pb2.Job:
        """Start a run and wait for its end."""
        async with translate_errors("clustering"):
            started = await self.clusters.ClusterFaces(clusters_pb2.ClusterFacesRequest(**fields))
        return await self.ended(started.job.id)

    async def ended(self, job_id: str) -> jobs_pb2.Job:
        """The job once it has ended."""
        request = jobs_pb2.WaitJobRequest(job_id=job_id)
        request.timeout.FromSeconds(JOB_ENDS_S)
        return (await self.jobs.WaitJob(request, timeout=JOB_ENDS_S)).job

    async def list_clusters(self, **fields: Any) -> list[clusters_pb2.Cluster]:
        """All clusters, page by page."""
        found: list[clusters_pb2.Cluster] = []
        token = ""
        while True:
            request = clusters_pb2.ListClustersRequest(page_token=token, **fields)
            async with translate_errors("clustering"):
                page = await self.clusters.ListClusters(request)
            found += page.clusters
            token = page.next_page_token
            if not token:
                return found

    async def members(self, cluster_id: str, page_size: int = 0) -> list[clusters_pb2.ClusterMember]:
        """All members of a cluster, page by page."""
        found: list[clusters_pb2.ClusterMember] = []
        token = ""
        while True:
            request = clusters_pb2.GetClusterRequest(cluster_id=cluster_id, page_size=page_size, page_token=token)
            async with translate_errors("clustering"):
                page = await self.clusters.GetCluster(request)
            found += page.members
            token = page.next_page_token
            if not token:
                return found

    async def label(self, cluster_id: str, **fields: Any) -> clusters_pb2.LabelClusterResponse:
        async with translate_errors("clustering"):
            return await self.clusters.LabelCluster(clusters_pb2.LabelClusterRequest(cluster_id=cluster_id, **fields))

    async def get_cluster(self, cluster_id: str) -> clusters_pb2.Cluster:
        async with translate_errors("clustering"):
            request = clusters_pb2.GetClusterRequest(cluster_id=cluster_id)
            return (await self.clusters.GetCluster(request)).cluster

    async def split(self, cluster_id: str, etag: str | None = None, **fields: Any) -> clusters_pb2.SplitClusterResponse:
        """Cut a cluster as it is now, unless an ``etag`` is given."""
        shown = (await self.get_cluster(cluster_id)).etag if etag is None else etag
        async with translate_errors("clustering"):
            request = clusters_pb2.SplitClusterRequest(cluster_id=cluster_id, etag=shown, **fields)
            return await self.clusters.SplitCluster(request)

    async def dismiss(self, cluster_id: str, etag: str | None = None, **fields: Any) -> clusters_pb2.Cluster:
        """Put a cluster away as it is now, unless an ``etag`` is given."""
        shown = (await self.get_cluster(cluster_id)).etag if etag is None else etag
        async with translate_errors("clustering"):
            request = clusters_pb2.DismissClusterRequest(cluster_id=cluster_id, etag=shown, **fields)
            return (await self.clusters.DismissCluster(request)).cluster

    async def create(self, name: str) -> str:
        answer = await self.people.CreatePerson(persons_pb2.CreatePersonRequest(person=persons_pb2.Person(name=name)))
        return answer.person.id

    async def assign(self, face_ids: Sequence[UUID | str], person_id: str) -> None:
        async with translate_errors("persons"):
            await self.assignments.BatchAssignFaces(
                assignments_pb2.BatchAssignFacesRequest(
                    face_ids=[str(face_id) for face_id in face_ids], person_id=person_id
                )
            )

    async def exclude(self, face_id: UUID | str, person_id: str) -> None:
        async with translate_errors("persons"):
            await self.assignments.ExcludeFace(
                assignments_pb2.ExcludeFaceRequest(face_id=str(face_id), person_id=person_id)
            )

    async def unassign(self, face_id: UUID | str) -> None:
        async with translate_errors("persons"):
            await self.assignments.UnassignFace(assignments_pb2.UnassignFaceRequest(face_id=str(face_id)))

    async def face_count(self, person_id: str) -> int:
        answer = await self.people.GetPerson(persons_pb2.GetPersonRequest(person_id=person_id))
        return answer.person.face_count

    async def person_count(self) -> int:
        return len((await self.people.ListPersons(persons_pb2.ListPersonsRequest(page_size=500))).persons)

    async def compute(self, *person_ids: str, **fields: Any) -> centroids_pb2.ComputeCentroidsResponse:
        async with translate_errors("clustering"):
            return await self.centroids.ComputeCentroids(
                centroids_pb2.ComputeCentroidsRequest(person_ids=person_ids, **fields)
            )

    async def list_centroids(self, **fields: Any) -> list[centroids_pb2.Centroid]:
        async with translate_errors("clustering"):
            answer = await self.centroids.ListCentroids(centroids_pb2.ListCentroidsRequest(**fields))
        return list(answer.centroids)

    async def search(self, person_id: str, **fields: Any) -> list[centroids_pb2.CentroidMatch]:
        async with translate_errors("clustering"):
            answer = await self.centroids.SearchByCentroid(
                centroids_pb2.SearchByCentroidRequest(person_id=person_id, **fields)
            )
        return list(answer.matches)


async def start_kith(running: Running) -> Kith:
    """Both servers, and the worker that runs jobs and relays points."""
    persons = await running.server("persons", start_persons)
    clustering = await running.server("clustering", start_clustering)
    await running.worker(start_worker)
    return Kith(persons, clustering)


@dataclass(frozen=True, slots=True)
class Library:
    """Generated faces in the database: whose each is, the largest person first; -1 is nobody's."""

    face_ids: list[UUID]
    asset_ids: list[str]
    truth: dict[UUID, int]

    def faces_of(self, person: int) -> list[UUID]:
        return [face_id for face_id in self.face_ids if self.truth[face_id] == person]

    def pairwise_f1(self, clusters: dict[UUID, str]) -> float:
        """F1 of the pairs that are in one cluster against the pairs that are of one person."""

        def pairs(sizes: Counter[Any]) -> int:
            return sum(size * (size - 1) // 2 for size in sizes.values())

        known = [face_id for face_id in self.face_ids if self.truth[face_id] >= 0]
        wanted = pairs(Counter(self.truth[face_id] for face_id in known))
        made = pairs(Counter(clusters[face_id] for face_id in clusters))
        both = pairs(Counter((self.truth[face_id], clusters[face_id]) for face_id in known if face_id in clusters))
        return 2 * both / (wanted + made)


async def seed_library(
    base: Foundation, count: int, *, seed: int = 0, profile: str = "r100", shares: Shares | None = None
) -> Library:
    """Faces of the bench's generator, as detection would have stored them."""
    made = generate_faces(count, seed=seed, profile=profile, shares=shares)
    seeded = await seed_faces(base, made.vectors, qualities=made.quality.tolist())
    sizes = Counter(person for person in made.truth.tolist() if person >= 0)
    rank = {person: place for place, (person, _) in enumerate(sizes.most_common())}
    truth = {
        face_id: rank.get(person, -1) for face_id, person in zip(seeded.face_ids, made.truth.tolist(), strict=True)
    }
    return Library(seeded.face_ids, seeded.asset_ids, truth)


async def seed_cluster(
    base: Foundation,
    face_ids: Sequence[UUID],
    confidences: Sequence[float] | None = None,
    *,
    library_id: str = "default",
) -> str:
    """A cluster as a run would have stored it; answers its id."""
    now = base.clock.now()
    async with base.database.transaction() as tx:
        run = ClusterRun(
            run_id=base.ids.new_uuid(),
            library_id=library_id,
            job_id=base.ids.new_uuid(),
            mode=ClusterMode.UNSUPERVISED,
            algorithm="HDBSCAN",
            model_version=MODEL,
            faces=len(face_ids),
            clusters=1,
            clustered=len(face_ids),
            noise=0,
            kept=0,
            thresholds={},
            seconds={},
            created_at=now,
        )
        await insert_run(tx, run)
        cluster_id = base.ids.new_cluster_id()
        await insert_clusters(tx, base.clock, library_id, [cluster_id], MODEL, run.run_id)
        members = zip(face_ids, confidences or [0.8] * len(face_ids), strict=True)
        await write_memberships(tx, library_id, [Membership(face, cluster_id, value) for face, value in members], [])
        await refresh_clusters(tx, [cluster_id], [], MODEL, run.run_id, now)
        await queue_faces(tx, base.clock, library_id, face_ids)
    return cluster_id


def crowd(
    *sizes: int, seed: int = 0, dimension: int = 64, spread: float = 0.25
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Unit vectors of people with so many faces each, one after another; cosine to one's own centre about 0.97."""
    random = np.random.default_rng(seed)
    centres = np.linalg.qr(random.standard_normal((dimension, len(sizes))))[0].T
    faces = np.repeat(centres, sizes, axis=0)
    faces = faces + spread * random.standard_normal(faces.shape) / np.sqrt(dimension)
    return np.asarray(faces / np.linalg.norm(faces, axis=1, keepdims=True), dtype=np.float32)


async def read_payloads(base: Foundation, collection: str, point_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Payloads of those of these points that Qdrant has."""
    found: list[dict[str, Any]] = []
    for point in await base.qdrant.retrieve(collection, point_ids, with_payload=True):
        assert point.payload is not None
        found.append(point.payload)
    return found


async def relayed(base: Foundation) -> None:
    """Wait until Qdrant shows everything that was queued."""

    async def empty() -> bool:
        async with base.database.transaction() as tx:
            return not await tx.scalar(select(func.count()).select_from(vector_outbox))

    await eventually(empty, 60)
