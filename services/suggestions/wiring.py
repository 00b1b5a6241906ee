"""Builds the suggestions service out of its parts, by plain functions."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

from kith.suggestions.v1 import discovery_pb2, discovery_pb2_grpc, suggestions_pb2, suggestions_pb2_grpc
from services.suggestions.adapters.clustering import RemoteCentroidSearch
from services.suggestions.adapters.faces import IndexedFaceSearch
from services.suggestions.adapters.persons import RemoteAssignments
from services.suggestions.assigning_jobs import AssignKnownHandler
from services.suggestions.domain.assigning import ASSIGN_KNOWN
from services.suggestions.domain.calibrating import refit_forever
from services.suggestions.domain.discovering import FIND_MORE
from services.suggestions.domain.expiring import EXPIRE, PURGE_ORPHANED, expire_batch, purge_batch
from services.suggestions.domain.model import SuggestionsDeps
from services.suggestions.domain.propagating import PROPAGATE
from services.suggestions.forgetting_jobs import ForgetSuggestionsHandler
from services.suggestions.jobs import AskPairsHandler, FindMoreHandler, FollowPeopleHandler
from services.suggestions.propagation_jobs import PropagateHandler
from services.suggestions.servicers.discovery import DiscoveryServicer
from services.suggestions.servicers.suggestion import SuggestionServicer
from services.suggestions.tidying_jobs import TidyHandler
from shared.foundation import Chore, Foundation
from shared.jobs.asking import ASK_PAIRS, FOLLOW_PEOPLE
from shared.jobs.execution import JobHandler
from shared.jobs.forgetting import FORGET_SUGGESTIONS
from shared.jobs.machine_assignments import RemoteMachineAssignments
from shared.rpc.channel import open_channel
from shared.rpc.server import RpcServer
from shared.vectors.faces import FaceIndex
from shared.vectors.people import PersonIndex


def build_deps(base: Foundation) -> SuggestionsDeps:
    """What the use cases need."""
    return SuggestionsDeps(base.clock, base.ids, base.settings.suggestions)


def add_services(server: RpcServer, base: Foundation, stack: AsyncExitStack) -> None:
    """Register every service of this server; its channel to the persons service closes with ``stack``."""
    deps = build_deps(base)
    channel = open_channel(base.settings.services.persons, base.settings.rpc, base.settings.auth)
    stack.push_async_callback(channel.close)
    server.add(
        suggestions_pb2_grpc.add_SuggestionServiceServicer_to_server,
        SuggestionServicer(
            base.database,
            base.mutations,
            deps,
            RemoteAssignments(channel),
            PersonIndex(base.qdrant, base.collections, base.settings.persons.max_prototypes),
        ),
        suggestions_pb2.DESCRIPTOR.services_by_name["SuggestionService"].full_name,
    )
    server.add(
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server,
        DiscoveryServicer(base.database, base.mutations, deps, _build_face_search(base)),
        discovery_pb2.DESCRIPTOR.services_by_name["DiscoveryService"].full_name,
    )


def build_chores(base: Foundation) -> dict[str, Chore]:
    """What the worker does besides its jobs, by name."""
    return {"calibrations": partial(refit_forever, base.database, base.clock)}


def build_handlers(base: Foundation, stack: AsyncExitStack) -> dict[str, JobHandler]:
    """Handlers of this service's jobs, by kind; their channels to other services close with ``stack``."""
    services = base.settings.services
    clustering = open_channel(services.clustering, base.settings.rpc, base.settings.auth)
    stack.push_async_callback(clustering.close)
    persons = open_channel(services.persons, base.settings.rpc, base.settings.auth)
    stack.push_async_callback(persons.close)
    deps = build_deps(base)
    faces, centroids = _build_face_search(base), RemoteCentroidSearch(clustering)
    people = RemoteMachineAssignments(persons)
    return {
        FIND_MORE: FindMoreHandler(base.database, deps, faces, centroids),
        ASSIGN_KNOWN: AssignKnownHandler(base.database, deps, faces, centroids, people),
        PROPAGATE: PropagateHandler(base.database, deps, faces, centroids),
        EXPIRE: TidyHandler(deps, expire_batch, "expired"),
        PURGE_ORPHANED: TidyHandler(deps, purge_batch, "purged"),
        FOLLOW_PEOPLE: FollowPeopleHandler(base.database, deps),
        ASK_PAIRS: AskPairsHandler(base.database, deps),
        FORGET_SUGGESTIONS: ForgetSuggestionsHandler(base.database),
    }


def _build_face_search(base: Foundation) -> IndexedFaceSearch:
    return IndexedFaceSearch(FaceIndex(base.qdrant, base.collections))
