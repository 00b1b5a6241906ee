"""Builds the persons service out of its parts, by plain functions."""

from __future__ import annotations

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
from services.persons.domain.model import PersonsDeps
from services.persons.jobs import RefreshPeopleHandler
from services.persons.servicers.assignment import AssignmentServicer
from services.persons.servicers.person import PersonServicer
from services.persons.servicers.prototype import PrototypeServicer
from shared.foundation import Foundation
from shared.jobs.execution import JobHandler
from shared.jobs.refreshing import REFRESH_PEOPLE
from shared.rpc.server import RpcServer


def build_deps(base: Foundation) -> PersonsDeps:
    """What the use cases need."""
    return PersonsDeps(base.clock, base.ids, base.settings.persons)


def add_services(server: RpcServer, base: Foundation) -> None:
    """Register every service of this server. ChangeService and MatcherService answer UNIMPLEMENTED so far."""
    deps = build_deps(base)
    server.add(
        persons_pb2_grpc.add_PersonServiceServicer_to_server,
        PersonServicer(base.database, base.mutations, deps),
        persons_pb2.DESCRIPTOR.services_by_name["PersonService"].full_name,
    )
    server.add(
        assignments_pb2_grpc.add_AssignmentServiceServicer_to_server,
        AssignmentServicer(base.mutations, deps),
        assignments_pb2.DESCRIPTOR.services_by_name["AssignmentService"].full_name,
    )
    server.add(
        prototypes_pb2_grpc.add_PrototypeServiceServicer_to_server,
        PrototypeServicer(base.database),
        prototypes_pb2.DESCRIPTOR.services_by_name["PrototypeService"].full_name,
    )
    server.add(
        changes_pb2_grpc.add_ChangeServiceServicer_to_server,
        changes_pb2_grpc.ChangeServiceServicer(),
        changes_pb2.DESCRIPTOR.services_by_name["ChangeService"].full_name,
    )
    server.add(
        matcher_pb2_grpc.add_MatcherServiceServicer_to_server,
        matcher_pb2_grpc.MatcherServiceServicer(),
        matcher_pb2.DESCRIPTOR.services_by_name["MatcherService"].full_name,
    )


def build_handlers(base: Foundation) -> dict[str, JobHandler]:
    """Handlers of this service's jobs, by kind."""
    return {REFRESH_PEOPLE: RefreshPeopleHandler(base.database, build_deps(base))}
