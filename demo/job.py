"""The main job, step by step, over gRPC: what a product built on Kith does with a new library.

Answers that a human would give (whose group is this, is this Anna?) come from the truth. Where there is none, groups are
named "Person 1", "Person 2", .. and questions stay open.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

from google.protobuf.field_mask_pb2 import FieldMask
from rich.console import Console

from demo.client import FoundFace, Kith, new_request_id, read_pages
from demo.truth import Truth
from kith.clustering.v1 import centroids_pb2, clusters_pb2
from kith.common.v1 import types_pb2
from kith.detection.v1 import assets_pb2, doctor_pb2, sessions_pb2
from kith.persons.v1 import persons_pb2
from kith.suggestions.v1 import discovery_pb2, suggestions_pb2

BATCH = 500
ROUNDS = 4
# A reviewer names a group if most of it is one person.
CLEAR_MAJORITY = 0.5
QUIET_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Group:
    """A cluster as it was found, before anybody named it."""

    cluster: clusters_pb2.Cluster
    face_ids: tuple[str, ...]
    name: str | None


@dataclass(slots=True)
class Outcome:
    """Everything the report shows."""

    failures: list[types_pb2.ItemFailure] = field(default_factory=list)
    faces: list[FoundFace] = field(default_factory=list)
    identities: dict[str, str] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    suggestions: list[suggestions_pb2.Suggestion] = field(default_factory=list)
    persons: dict[str, persons_pb2.Person] = field(default_factory=dict)
    people: list[persons_pb2.PeopleEntry] = field(default_factory=list)
    consistency: doctor_pb2.CheckConsistencyResponse = field(default_factory=doctor_pb2.CheckConsistencyResponse)
    seconds: dict[str, float] = field(default_factory=dict)


class MainJob:
    """One run over one library."""

    def __init__(self, kith: Kith, truth: Truth, console: Console) -> None:
        self._kith = kith
        self._truth = truth
        self._console = console
        self._person_ids: dict[str, str] = {}
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        """Register, detect, cluster, label, find more, answer, list; then ask the doctor."""
        with self._stage("register"):
            await self._register()
        with self._stage("detect"):
            await self._detect()
        with self._stage("cluster"):
            await self._cluster()
        with self._stage("label"):
            await self._label()
        with self._stage("suggest"):
            await self._suggest()
        with self._stage("list"):
            await self._list()
        with self._stage("check"):
            await self._check()
        return self.outcome

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.outcome.seconds[name] = round(time.perf_counter() - begun, 2)

    async def _register(self) -> None:
        photos = self._truth.photos
        for start in range(0, len(photos), BATCH):
            assets = [
                assets_pb2.NewAsset(id=photo.asset_id, uri=photo.path.resolve().as_uri())
                for photo in photos[start : start + BATCH]
            ]
            await self._kith.assets.RegisterAssets(
                assets_pb2.RegisterAssetsRequest(assets=assets, request_id=new_request_id())
            )
        self._say(f"registered {len(photos)} photos")

    async def _detect(self) -> None:
        answer = await self._kith.sessions.CreateDetectionSession(
            sessions_pb2.CreateDetectionSessionRequest(
                filter=sessions_pb2.AssetFilter(never_detected=True), request_id=new_request_id()
            )
        )
        job = await self._kith.watch(answer.session.job, "detecting faces")
        self.outcome.failures = list(job.failures)
        self.outcome.faces = await self._kith.list_faces()
        self.outcome.identities = self._truth.identify(self.outcome.faces)
        self._say(f"found {len(self.outcome.faces)} faces; {job.progress.failed} photos could not be read")

    async def _cluster(self) -> None:
        answer = await self._kith.clusters.ClusterFaces(clusters_pb2.ClusterFacesRequest(request_id=new_request_id()))
        await self._kith.watch(answer.job, "grouping")
        clusters = await read_pages(
            lambda token: self._kith.clusters.ListClusters(
                clusters_pb2.ListClustersRequest(page_size=BATCH, page_token=token)
            ),
            lambda page: page.clusters,
        )
        for cluster in clusters:
            face_ids = await self._list_members(cluster.id)
            self.outcome.groups.append(Group(cluster, face_ids, self._name_group(face_ids)))
        self._say(f"{len(clusters)} groups of {sum(len(group.face_ids) for group in self.outcome.groups)} faces")

    async def _list_members(self, cluster_id: str) -> tuple[str, ...]:
        members = await read_pages(
            lambda token: self._kith.clusters.GetCluster(
                clusters_pb2.GetClusterRequest(cluster_id=cluster_id, page_size=1000, page_token=token)
            ),
            lambda page: page.members,
        )
        return tuple(member.face_id for member in members)

    def _name_group(self, face_ids: Sequence[str]) -> str | None:
        names = self._truth.names()
        if not names:
            return f"Person {len(self.outcome.groups) + 1}"
        # Faces that nobody can tell speak neither for nor against; strangers speak against.
        known = [self.outcome.identities[face_id] for face_id in face_ids if face_id in self.outcome.identities]
        if not known:
            return None
        name, count = Counter(names.get(identity) for identity in known).most_common(1)[0]
        return name if name is not None and count / len(known) > CLEAR_MAJORITY else None

    async def _label(self) -> None:
        assigned = 0
        for group in self.outcome.groups:
            if group.name is None:
                continue
            # Who looks at a group also sees who does not belong to it.
            odd = [face_id for face_id in group.face_ids if self._is_other(face_id, group.name)]
            request = clusters_pb2.LabelClusterRequest(
                cluster_id=group.cluster.id,
                etag=group.cluster.etag,
                except_face_ids=odd[:BATCH],
                request_id=new_request_id(),
            )
            if group.name in self._person_ids:
                request.person_id = self._person_ids[group.name]
            else:
                request.new_person_name = group.name
            answer = await self._kith.clusters.LabelCluster(request)
            self._person_ids[group.name] = answer.person_id
            assigned += answer.faces_assigned
        for name, person_id in self._person_ids.items():
            if (born := self._truth.birth_dates.get(name)) is not None:
                day = date.fromisoformat(born)
                person = persons_pb2.Person(
                    id=person_id, birth_date=types_pb2.Date(year=day.year, month=day.month, day=day.day)
                )
                await self._kith.persons.UpdatePerson(
                    persons_pb2.UpdatePersonRequest(
                        person=person,
                        update_mask=FieldMask(paths=["birth_date"]),
                        request_id=new_request_id(),
                    )
                )
        self._say(f"labelled {len(self._person_ids)} persons, {assigned} faces")

    def _is_other(self, face_id: str, name: str) -> bool:
        identity = self.outcome.identities.get(face_id)
        return identity is not None and self._truth.names().get(identity) != name

    async def _suggest(self) -> None:
        # Answers teach: each round of questions finds more than the one before.
        methods = [suggestions_pb2.SUGGESTION_METHOD_PROTOTYPES] * (ROUNDS - 1)
        for method in [*methods, suggestions_pb2.SUGGESTION_METHOD_CENTROID]:
            if method == suggestions_pb2.SUGGESTION_METHOD_CENTROID:
                await self._compute_centroids()
            word = suggestions_pb2.SuggestionMethod.Name(method).removeprefix("SUGGESTION_METHOD_").lower()
            answer = await self._kith.discovery.FindMoreSuggestions(
                discovery_pb2.FindMoreSuggestionsRequest(method=method, request_id=new_request_id())
            )
            await self._kith.watch(answer.job, f"finding more by {word}")
            pending = await self._list_suggestions([suggestions_pb2.SUGGESTION_STATE_PENDING])
            for suggestion in pending:
                await self._answer(suggestion)
            if not self._truth.names():
                break
        states = [suggestions_pb2.SUGGESTION_STATE_PENDING]
        states += [suggestions_pb2.SUGGESTION_STATE_ACCEPTED, suggestions_pb2.SUGGESTION_STATE_REJECTED]
        self.outcome.suggestions = await self._list_suggestions(states)
        counted = Counter(suggestion.state for suggestion in self.outcome.suggestions)
        self._say(
            f"{len(self.outcome.suggestions)} questions: {counted[suggestions_pb2.SUGGESTION_STATE_ACCEPTED]} yes, "
            f"{counted[suggestions_pb2.SUGGESTION_STATE_REJECTED]} no, "
            f"{counted[suggestions_pb2.SUGGESTION_STATE_PENDING]} open"
        )

    async def _compute_centroids(self) -> None:
        person_ids = list(self._person_ids.values())
        for start in range(0, len(person_ids), BATCH):
            await self._kith.centroids.ComputeCentroids(
                centroids_pb2.ComputeCentroidsRequest(
                    person_ids=person_ids[start : start + BATCH], request_id=new_request_id()
                )
            )

    async def _list_suggestions(self, states: Sequence[int]) -> list[suggestions_pb2.Suggestion]:
        return await read_pages(
            lambda token: self._kith.suggestions.ListSuggestions(
                suggestions_pb2.ListSuggestionsRequest(page_size=BATCH, page_token=token, states=states)  # type: ignore[arg-type]
            ),
            lambda page: page.suggestions,
        )

    async def _answer(self, suggestion: suggestions_pb2.Suggestion) -> None:
        identity = self.outcome.identities.get(suggestion.face_id)
        if identity is None and self._truth.faces is None:
            return  # Nobody knows.
        name = self._truth.names().get(identity or "")
        wanted = {person_id: known for known, person_id in self._person_ids.items()}.get(suggestion.person_id)
        if name is not None and name == wanted:
            await self._kith.suggestions.AcceptSuggestion(
                suggestions_pb2.AcceptSuggestionRequest(suggestion_id=suggestion.id, request_id=new_request_id())
            )
        else:
            await self._kith.suggestions.RejectSuggestion(
                suggestions_pb2.RejectSuggestionRequest(suggestion_id=suggestion.id, request_id=new_request_id())
            )

    async def _list(self) -> None:
        self.outcome.people = await read_pages(
            lambda token: self._kith.persons.ListPeople(
                persons_pb2.ListPeopleRequest(page_size=BATCH, page_token=token, include_noise=True)
            ),
            lambda page: page.people,
        )
        persons = await read_pages(
            lambda token: self._kith.persons.ListPersons(
                persons_pb2.ListPersonsRequest(page_size=BATCH, page_token=token)
            ),
            lambda page: page.persons,
        )
        self.outcome.persons = {person.id: person for person in persons}
        self.outcome.faces = await self._kith.list_faces()

    async def _check(self) -> None:
        # Qdrant is brought up to date within moments; the doctor is asked once the outbox is empty.
        async with asyncio.timeout(QUIET_TIMEOUT_S):
            while True:
                counts = await self._kith.doctor.CheckConsistency(doctor_pb2.CheckConsistencyRequest())
                if counts.outbox_waiting == 0:
                    break
                await asyncio.sleep(0.1)
        self.outcome.consistency = await self._kith.doctor.CheckConsistency(
            doctor_pb2.CheckConsistencyRequest(depth=doctor_pb2.CHECK_DEPTH_FULL)
        )
        for report in self.outcome.consistency.collections:
            self._say(f"{report.collection}: PostgreSQL {report.postgres_count}, Qdrant {report.qdrant_count}")

    def _say(self, text: str) -> None:
        self._console.print(f"  {text}", highlight=False)
