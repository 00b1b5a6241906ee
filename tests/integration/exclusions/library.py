"""One library of people who look alike: what humans and jobs do in it, over gRPC, and what must be so at any moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import func, select

from kith.clustering.v1 import clusters_pb2
from kith.detection.v1 import faces_pb2, models_pb2
from kith.persons.v1 import assignments_pb2, changes_pb2, persons_pb2
from kith.suggestions.v1 import discovery_pb2
from kith.suggestions.v1 import suggestions_pb2 as pb
from shared.db.outbox import count_waiting
from shared.db.tables_detection import faces as face_table
from shared.db.tables_persons import assignments, exclusions, persons
from shared.db.tables_shared import jobs
from shared.foundation import Foundation
from tests.integration.conftest import eventually
from tests.integration.exclusions.lookalikes import Faces, embed_again, seed_lookalikes
from tests.integration.exclusions.refusals import Standing
from tests.integration.exclusions.servers import Servers

MACHINE = assignments_pb2.ASSIGNMENT_SOURCE_MACHINE
PROTOTYPES, CENTROID = pb.SUGGESTION_METHOD_PROTOTYPES, pb.SUGGESTION_METHOD_CENTROID
PLAIN, DUAL = clusters_pb2.CLUSTER_MODE_UNSUPERVISED, clusters_pb2.CLUSTER_MODE_DUAL
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
# A migration's job is not run here: what it would embed is put there.
NOT_RUN = "detection.%"


class Library:
    """The calls, in a test's words. Refusals are raised as Kith's own."""

    def __init__(self, base: Foundation, servers: Servers, library_id: str, faces: Faces) -> None:
        self._base = base
        self._servers = servers
        self._migration: str | None = None
        self.library_id = library_id
        self.faces = faces

    @classmethod
    async def make(cls, base: Foundation, servers: Servers) -> Library:
        """A new one, in which nobody is named."""
        library_id = f"lib-{base.ids.new_uuid().hex[-12:]}"
        return cls(base, servers, library_id, await seed_lookalikes(base, library_id))

    async def create(self, name: str) -> UUID:
        request = persons_pb2.CreatePersonRequest(library_id=self.library_id, person=persons_pb2.Person(name=name))
        return UUID((await self._servers.ask(self._servers.people.CreatePerson, request)).person.id)

    async def assign(self, face_ids: Sequence[UUID], person_id: UUID, *, machine: bool = False) -> None:
        """Those of the faces that can go."""
        request = assignments_pb2.BatchAssignFacesRequest(
            library_id=self.library_id,
            face_ids=[str(face_id) for face_id in face_ids],
            person_id=str(person_id),
            source=MACHINE if machine else assignments_pb2.ASSIGNMENT_SOURCE_HUMAN,
            confidence=0.999,
            partial=True,
        )
        await self._servers.ask(self._servers.assignments.BatchAssignFaces, request)

    async def unassign(self, face_id: UUID, *, exclude: bool) -> None:
        request = assignments_pb2.UnassignFaceRequest(library_id=self.library_id, face_id=str(face_id), exclude=exclude)
        await self._servers.ask(self._servers.assignments.UnassignFace, request)

    async def exclude(self, face_id: UUID, person_id: UUID) -> None:
        request = assignments_pb2.ExcludeFaceRequest(
            library_id=self.library_id, face_id=str(face_id), person_id=str(person_id)
        )
        await self._servers.ask(self._servers.assignments.ExcludeFace, request)

    async def allow(self, exclusion_id: UUID) -> None:
        request = assignments_pb2.DeleteExclusionRequest(library_id=self.library_id, exclusion_id=str(exclusion_id))
        await self._servers.ask(self._servers.assignments.DeleteExclusion, request)

    async def merge(self, survivor: UUID, merged: UUID) -> None:
        one, other = await self._etag(survivor), await self._etag(merged)
        request = persons_pb2.MergePersonsRequest(
            library_id=self.library_id,
            survivor_id=str(survivor),
            survivor_etag=one,
            merged_id=str(merged),
            merged_etag=other,
        )
        await self._servers.ask(self._servers.people.MergePersons, request)

    async def delete(self, person_id: UUID) -> None:
        etag = await self._etag(person_id)
        request = persons_pb2.DeletePersonRequest(library_id=self.library_id, person_id=str(person_id), etag=etag)
        await self._servers.ask(self._servers.people.DeletePerson, request)

    async def undelete(self, person_id: UUID) -> None:
        request = persons_pb2.UndeletePersonRequest(library_id=self.library_id, person_id=str(person_id))
        await self._servers.ask(self._servers.people.UndeletePerson, request)

    async def _etag(self, person_id: UUID) -> str:
        request = persons_pb2.GetPersonRequest(library_id=self.library_id, person_id=str(person_id), show_deleted=True)
        return (await self._servers.ask(self._servers.people.GetPerson, request)).person.etag

    async def undo(self, change_id: str) -> set[str]:
        """Answers what was skipped."""
        request = changes_pb2.UndoChangeRequest(library_id=self.library_id, change_id=change_id)
        answer = await self._servers.ask(self._servers.changes.UndoChange, request)
        return {item.id for item in answer.skipped}

    async def list_changes(self, known: int) -> list[changes_pb2.Change]:
        """All but the first ``known`` of the ledger, oldest first."""
        request = changes_pb2.ListChangesRequest(library_id=self.library_id, page_size=500)
        answer = await self._servers.ask(self._servers.changes.ListChanges, request)
        assert not answer.next_page_token, "a history is not so long"
        return list(answer.changes)[::-1][known:]

    async def set_state(self, face_id: UUID, state: faces_pb2.FaceState.ValueType) -> None:
        request = faces_pb2.UpdateFaceRequest(
            library_id=self.library_id,
            face=faces_pb2.Face(id=str(face_id), state=state),
            update_mask=FieldMask(paths=["state"]),
        )
        await self._servers.ask(self._servers.faces.UpdateFace, request)

    async def list_suggestions(self, *states: pb.SuggestionState.ValueType) -> dict[tuple[UUID, UUID], pb.Suggestion]:
        """The suggestions in these states, or the open ones, by face and person."""
        request = pb.ListSuggestionsRequest(library_id=self.library_id, page_size=500, states=states)
        found = (await self._servers.ask(self._servers.suggestions.ListSuggestions, request)).suggestions
        return {(UUID(each.face_id), UUID(each.person_id)): each for each in found}

    async def answer(self, suggestion_id: str, *, yes: bool) -> None:
        """One question, by itself."""
        stub = self._servers.suggestions
        if yes:
            accept = pb.AcceptSuggestionRequest(library_id=self.library_id, suggestion_id=suggestion_id)
            await self._servers.ask(stub.AcceptSuggestion, accept)
        else:
            reject = pb.RejectSuggestionRequest(library_id=self.library_id, suggestion_id=suggestion_id)
            await self._servers.ask(stub.RejectSuggestion, reject)

    async def answer_many(self, answers: Mapping[str, tuple[str, bool]]) -> set[str]:
        """(etag, yes) by suggestion; answers which were given."""
        reviews = [
            pb.SuggestionReview(
                suggestion_id=suggestion_id,
                etag=etag,
                answer=pb.REVIEW_ANSWER_ACCEPT if yes else pb.REVIEW_ANSWER_REJECT,
            )
            for suggestion_id, (etag, yes) in answers.items()
        ]
        request = pb.BatchReviewSuggestionsRequest(library_id=self.library_id, reviews=reviews)
        answer = await self._servers.ask(self._servers.suggestions.BatchReviewSuggestions, request)
        return {each.id for each in answer.suggestions}

    async def find_more(self, method: pb.SuggestionMethod.ValueType, min_confidence: float = 0.0) -> None:
        request = discovery_pb2.FindMoreSuggestionsRequest(
            library_id=self.library_id, method=method, min_confidence=min_confidence
        )
        answer = await self._servers.ask(self._servers.discovery.FindMoreSuggestions, request)
        await self._servers.finish(answer.job)

    async def propagate(self, person_id: UUID, face_ids: Sequence[UUID]) -> None:
        request = discovery_pb2.PropagateLabelRequest(
            library_id=self.library_id, person_id=str(person_id), face_ids=[str(face_id) for face_id in face_ids]
        )
        await self._servers.finish((await self._servers.ask(self._servers.discovery.PropagateLabel, request)).job)

    async def find_more_by_itself(self) -> None:
        """Have more faces of a person looked for as soon as one is accepted."""
        request = discovery_pb2.UpdateDiscoverySettingsRequest(library_id=self.library_id, auto_find_more_after=1)
        await self._servers.ask(self._servers.discovery.UpdateDiscoverySettings, request)

    async def assign_known(self) -> None:
        request = discovery_pb2.AssignKnownFacesRequest(library_id=self.library_id, target_precision=0.95)
        await self._servers.finish((await self._servers.ask(self._servers.discovery.AssignKnownFaces, request)).job)

    async def tidy(self) -> None:
        """Expire what no longer stands, and remove what is nobody's."""
        expire = discovery_pb2.ExpireSuggestionsRequest(library_id=self.library_id)
        purge = discovery_pb2.PurgeOrphanedSuggestionsRequest(library_id=self.library_id)
        stub = self._servers.discovery
        await self._servers.finish((await self._servers.ask(stub.ExpireSuggestions, expire)).job)
        await self._servers.finish((await self._servers.ask(stub.PurgeOrphanedSuggestions, purge)).job)

    async def cluster(self, mode: clusters_pb2.ClusterMode.ValueType) -> None:
        request = clusters_pb2.ClusterFacesRequest(library_id=self.library_id, mode=mode, min_cluster_size=2)
        await self._servers.finish((await self._servers.ask(self._servers.clusters.ClusterFaces, request)).job)

    async def list_clusters(self) -> list[str]:
        """Ids, in the order of their numbers."""
        request = clusters_pb2.ListClustersRequest(library_id=self.library_id, page_size=500)
        found = (await self._servers.ask(self._servers.clusters.ListClusters, request)).clusters
        return [each.id for each in sorted(found, key=lambda each: each.number)]

    async def label(self, cluster_id: str, person_id: UUID) -> None:
        request = clusters_pb2.LabelClusterRequest(
            library_id=self.library_id, cluster_id=cluster_id, person_id=str(person_id)
        )
        await self._servers.ask(self._servers.clusters.LabelCluster, request)

    async def move(self, *, back: bool) -> None:
        """Cut over to the second model, or roll back to the first."""
        stub = self._servers.models
        if self._migration is None:
            self._migration = str(await embed_again(self._base, self.library_id, self.faces))
        get = models_pb2.GetModelMigrationRequest(library_id=self.library_id, migration_id=self._migration)
        etag = (await self._servers.ask(stub.GetModelMigration, get)).migration.etag
        if back:
            roll_back = models_pb2.RollBackModelRequest(
                library_id=self.library_id, migration_id=self._migration, etag=etag
            )
            await self._servers.ask(stub.RollBackModel, roll_back)
        else:
            cut_over = models_pb2.CutOverModelRequest(
                library_id=self.library_id, migration_id=self._migration, etag=etag
            )
            await self._servers.ask(stub.CutOverModel, cut_over)

    async def match(self, face_id: UUID) -> dict[UUID, set[str]]:
        """What speaks against each person the face may be."""
        request = pb.MatchFaceRequest(library_id=self.library_id, face_id=str(face_id), limit=50)
        found = (await self._servers.ask(self._servers.suggestions.MatchFace, request)).candidates
        return {UUID(each.person_id): set(each.blocked_by) for each in found}

    async def list_asked(self) -> set[tuple[UUID, UUID]]:
        """The (face, person) pairs that people are asked about, by every way there is to see them."""
        stub, library_id = self._servers.suggestions, self.library_id
        groups = pb.ListSuggestionGroupsRequest(library_id=library_id, page_size=100, suggestions_per_group=20)
        queue = pb.LeaseReviewQueueRequest(library_id=library_id, limit=100, reviewer="anna")
        grouped = (await self._servers.ask(stub.ListSuggestionGroups, groups)).groups
        leased = (await self._servers.ask(stub.LeaseReviewQueue, queue)).suggestions
        shown = [*leased, *(each for group in grouped for each in group.suggestions)]
        return {(UUID(each.face_id), UUID(each.person_id)) for each in shown} | (await self.list_suggestions()).keys()

    async def list_excluded(self) -> dict[tuple[UUID, UUID], UUID]:
        """Exclusion ids by face and person, as people see them."""
        request = assignments_pb2.ListExclusionsRequest(library_id=self.library_id, page_size=1000)
        found = (await self._servers.ask(self._servers.assignments.ListExclusions, request)).exclusions
        return {(UUID(each.face_id), UUID(each.person_id)): UUID(each.id) for each in found}

    async def read(self) -> Standing:
        """How everything stands, of one moment."""
        mine = self.library_id
        async with self._base.database.snapshot() as tx:
            people = await tx.rows(select(persons).where(persons.c.library_id == mine))
            held = await tx.rows(select(assignments).where(assignments.c.library_id == mine))
            excluded = await tx.rows(select(exclusions).where(exclusions.c.library_id == mine))
            aside = await tx.rows(
                select(face_table.c.face_id).where(face_table.c.library_id == mine, face_table.c.state != "ACTIVE")
            )
        return Standing(
            excluded={(row.face_id, row.person_id): row.exclusion_id for row in excluded},
            held={row.face_id: (row.person_id, row.source) for row in held},
            parts={row.person_id: row.merged_into for row in people if row.merged_into is not None},
            deleted={row.person_id for row in people if row.deleted_at is not None},
            aside={row.face_id for row in aside},
        )

    async def wait_quiet(self) -> None:
        """Wait until no job is left and Qdrant shows what PostgreSQL says."""

        async def quiet() -> bool:
            open_jobs = select(func.count()).where(
                jobs.c.library_id == self.library_id, jobs.c.state.not_in(ENDED), jobs.c.kind.not_like(NOT_RUN)
            )
            async with self._base.database.transaction() as tx:
                return not await tx.scalar(open_jobs) and (await count_waiting(tx, self.library_id))[0] == 0

        await eventually(quiet, timeout_s=60)
