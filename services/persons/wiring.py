"""Builds the persons service out of its parts, by plain functions."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

from kith.persons.v1 import (
    assignments_pb2,
    assignments_pb2_grpc,
    changes_pb2,
    changes_pb2_grpc,
    matcher_pb2,
    matcher_pb2_grpc,
    persons_pb2,
    persons_pb2_grpc,
    prototypes_pb2,
    prototypes_pb2_grpc,
)
from services.persons.adapters.clustering import RemoteGrouping
from services.persons.adapters.points import IndexedPoints
from services.persons.batch_jobs import AssignFacesHandler
from services.persons.domain.batching import ASSIGN_FACES
from services.persons.domain.forgetting import FORGET_PERSON
from services.persons.domain.model import PersonsDeps
from services.persons.domain.training import TRAIN_MATCHER
from services.persons.domain.watching import ChangeWatch
from services.persons.forgetting_jobs import ForgetPersonHandler
from services.persons.jobs import REFRESH_PEOPLE, RefreshPeopleHandler
from services.persons.numbering import number_ledgers
from services.persons.servicers.assignment import AssignmentServicer
from services.persons.servicers.change import ChangeServicer
from services.persons.servicers.matcher import MatcherServicer
from services.persons.servicers.person import PersonServicer
from services.persons.servicers.prototype import PrototypeServicer
from services.persons.settler import Settler
from services.persons.training_jobs import TrainMatcherHandler
from services.persons.trigrams import keep_trigrams
from shared.foundation import Chore, Foundation
from shared.jobs.execution import JobHandler
from shared.jobs.watch import JobWatch
from shared.queue.cron import measure_people
from shared.rpc.channel import open_channel
from shared.rpc.server import RpcServer


def build_deps(base: Foundation) -> PersonsDeps:
    """What the use cases need."""
    return PersonsDeps(base.clock, base.ids, base.settings.persons)


def add_services(server: RpcServer, base: Foundation) -> None:
    """Register every service of this server."""
    deps = build_deps(base)
    server.add(
        persons_pb2_grpc.add_PersonServiceServicer_to_server,
        PersonServicer(base.database, base.mutations, deps),
        persons_pb2.DESCRIPTOR.services_by_name["PersonService"].full_name,
    )
    server.add(
        assignments_pb2_grpc.add_AssignmentServiceServicer_to_server,
        AssignmentServicer(base.database, base.mutations, deps),
        assignments_pb2.DESCRIPTOR.services_by_name["AssignmentService"].full_name,
    )
    server.add(
        prototypes_pb2_grpc.add_PrototypeServiceServicer_to_server,
        PrototypeServicer(base.database, base.mutations, deps),
        prototypes_pb2.DESCRIPTOR.services_by_name["PrototypeService"].full_name,
    )
    server.add(
        changes_pb2_grpc.add_ChangeServiceServicer_to_server,
        ChangeServicer(
            base.database,
            base.mutations,
            deps,
            ChangeWatch(base.database, base.listener, base.settings.persons.watch_poll_s),
        ),
        changes_pb2.DESCRIPTOR.services_by_name["ChangeService"].full_name,
    )
    server.add(
        matcher_pb2_grpc.add_MatcherServiceServicer_to_server,
        MatcherServicer(base.database, base.mutations, deps),
        matcher_pb2.DESCRIPTOR.services_by_name["MatcherService"].full_name,
    )


def build_handlers(base: Foundation, stack: AsyncExitStack) -> dict[str, JobHandler]:
    """Handlers of this service's jobs, by kind; their channel to the clustering service closes with ``stack``."""
    deps = build_deps(base)
    channel = open_channel(base.settings.services.clustering, base.settings.rpc, base.settings.auth)
    stack.push_async_callback(channel.close)
    return {
        ASSIGN_FACES: AssignFacesHandler(deps),
        FORGET_PERSON: ForgetPersonHandler(
            base.database,
            deps,
            JobWatch(base.database, base.listener, base.settings.jobs),
            IndexedPoints(base.qdrant, base.collections),
        ),
        REFRESH_PEOPLE: RefreshPeopleHandler(deps),
        TRAIN_MATCHER: TrainMatcherHandler(base.database, deps, RemoteGrouping(channel)),
    }


def build_chores(base: Foundation) -> dict[str, Chore]:
    """What this service's workers do besides their jobs, by name."""
    return {
        "settler": Settler(base.database, base.listener, build_deps(base)).run,
        "ledger-numbering": partial(number_ledgers, base.database),
        "name-trigrams": partial(keep_trigrams, base.database),
        "people-measure": partial(measure_people, base.database, base.clock, base.metrics),
    }
