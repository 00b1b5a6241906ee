"""Builds the suggestions service out of its parts, by plain functions."""

from __future__ import annotations

from contextlib import AsyncExitStack

from kith.suggestions.v1 import discovery_pb2, discovery_pb2_grpc, suggestions_pb2, suggestions_pb2_grpc
from services.suggestions.adapters.clustering import RemoteCentroidSearch
from services.suggestions.adapters.faces import IndexedFaceSearch
from services.suggestions.adapters.persons import RemoteAssignments
from services.suggestions.domain.discovering import FIND_MORE
from services.suggestions.domain.model import SuggestionsDeps
from services.suggestions.forgetting_jobs import ForgetSuggestionsHandler
from services.suggestions.jobs import AskPairsHandler, FindMoreHandler, FollowPeopleHandler
from services.suggestions.servicers.discovery import DiscoveryServicer
from services.suggestions.servicers.suggestion import SuggestionServicer
from shared.foundation import Foundation
from shared.jobs.asking import ASK_PAIRS, FOLLOW_PEOPLE
from shared.jobs.execution import JobHandler
from shared.jobs.forgetting import FORGET_SUGGESTIONS
from shared.rpc.channel import open_channel
from shared.rpc.server import RpcServer
from shared.vectors.faces import FaceIndex


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
        SuggestionServicer(base.database, base.mutations, deps, RemoteAssignments(channel)),
        suggestions_pb2.DESCRIPTOR.services_by_name["SuggestionService"].full_name,
    )
    server.add(
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server,
        DiscoveryServicer(base.mutations, deps),
        discovery_pb2.DESCRIPTOR.services_by_name["DiscoveryService"].full_name,
    )


def build_handlers(base: Foundation, stack: AsyncExitStack) -> dict[str, JobHandler]:
    """Handlers of this service's jobs, by kind; their channel to the clustering service closes with ``stack``."""
    channel = open_channel(base.settings.services.clustering, base.settings.rpc, base.settings.auth)
    stack.push_async_callback(channel.close)
    deps = build_deps(base)
    return {
        FIND_MORE: FindMoreHandler(
            base.database,
            deps,
            IndexedFaceSearch(FaceIndex(base.qdrant, base.collections)),
            RemoteCentroidSearch(channel),
        ),
        FOLLOW_PEOPLE: FollowPeopleHandler(base.database, deps),
        ASK_PAIRS: AskPairsHandler(base.database, deps),
        FORGET_SUGGESTIONS: ForgetSuggestionsHandler(base.database),
    }
