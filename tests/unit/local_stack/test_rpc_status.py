"""What is built, told apart by asking: on the house's own server, and on one whose contract only it knows."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection

from deploy.local.directory import StackDirectory, acquire_lock
from deploy.local.rpc_status import (
    LIBRARY,
    MISSING,
    WORKS,
    Rpc,
    UndecidedError,
    ask_servers,
    find_differences,
    format_page,
    main,
    make_probe,
)
from kith.detection.v1 import detection_pb2, detection_pb2_grpc, faces_pb2, faces_pb2_grpc
from kith.persons.v1 import assignments_pb2, changes_pb2, changes_pb2_grpc
from kith.suggestions.v1 import suggestions_pb2
from shared.clock import SystemClock
from shared.config import RpcSettings
from shared.errors import InvalidRequest, NotFound
from shared.ids import RandomIds, parse_library_id, parse_uuid
from shared.rpc.principal import OpenAuthenticator
from shared.rpc.server import RpcServer
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import Tracing


class SomeFaces(faces_pb2_grpc.FaceServiceServicer):
    """A unary method and a client stream are built."""

    async def GetFace(self, request: faces_pb2.GetFaceRequest, context: Any) -> faces_pb2.GetFaceResponse:
        parse_uuid(request.face_id, "face_id")
        return faces_pb2.GetFaceResponse()

    async def GetFaceStats(
        self, request: faces_pb2.GetFaceStatsRequest, context: Any
    ) -> faces_pb2.GetFaceStatsResponse:
        return faces_pb2.GetFaceStatsResponse()

    async def AddFace(self, request: faces_pb2.AddFaceRequest, context: Any) -> faces_pb2.AddFaceResponse:
        raise NotFound("asset", request.asset_id)

    async def ImportFaces(
        self, requests: AsyncIterator[faces_pb2.ImportFacesRequest], context: Any
    ) -> faces_pb2.ImportFacesResponse:
        if [request async for request in requests]:
            raise AssertionError("a probe that sends faces could store them")
        raise InvalidRequest("the stream was empty", field="asset_id")


class StreamingDetection(detection_pb2_grpc.DetectionServiceServicer):
    """The stream in both directions is built."""

    async def DetectStream(
        self, requests: AsyncIterator[detection_pb2.DetectStreamRequest], context: Any
    ) -> AsyncIterator[detection_pb2.DetectStreamResponse]:
        yield detection_pb2.DetectStreamResponse(max_in_flight=4)
        async for request in requests:
            yield detection_pb2.DetectStreamResponse(sequence=request.sequence)


class WatchedChanges(changes_pb2_grpc.ChangeServiceServicer):
    """The watch is built; one that took the probe for valid would never end."""

    async def WatchChanges(
        self, request: changes_pb2.WatchChangesRequest, context: Any
    ) -> AsyncIterator[changes_pb2.WatchChangesResponse]:
        if request.after_cursor:
            raise InvalidRequest("after_cursor is none of ours", field="after_cursor")
        await asyncio.Event().wait()
        yield changes_pb2.WatchChangesResponse()


async def ask(*services: tuple[Any, Any, str]) -> dict[str, str]:
    """Start a server with these services, as every process of the house does, and ask it."""
    server = RpcServer.build(
        RpcSettings(port=0, health_port=0),
        name="small",
        authenticator=OpenAuthenticator(),
        metrics=Metrics(),
        tracing=Tracing("small"),
        ids=RandomIds(SystemClock()),
    )
    for service in services:
        server.add(*service)
    await server.start()
    try:
        statuses = await asyncio.to_thread(ask_servers, {"small": f"127.0.0.1:{server.port}"})
    finally:
        await server.close()
    return {f"{rpc.service.rpartition('.')[2]}/{rpc.method}": status for rpc, status in statuses.items()}


def faces(servicer: faces_pb2_grpc.FaceServiceServicer) -> tuple[Any, Any, str]:
    return faces_pb2_grpc.add_FaceServiceServicer_to_server, servicer, "kith.detection.v1.FaceService"


def detection(servicer: detection_pb2_grpc.DetectionServiceServicer) -> tuple[Any, Any, str]:
    name = "kith.detection.v1.DetectionService"
    return detection_pb2_grpc.add_DetectionServiceServicer_to_server, servicer, name


def changes(servicer: changes_pb2_grpc.ChangeServiceServicer) -> tuple[Any, Any, str]:
    return changes_pb2_grpc.add_ChangeServiceServicer_to_server, servicer, "kith.persons.v1.ChangeService"


async def test_what_is_built_works_in_every_kind_of_rpc() -> None:
    statuses = await ask(faces(SomeFaces()), detection(StreamingDetection()), changes(WatchedChanges()))
    assert {name for name, status in statuses.items() if status == WORKS} == {
        "FaceService/AddFace",
        "FaceService/GetFace",
        "FaceService/GetFaceStats",
        "FaceService/ImportFaces",
        "DetectionService/DetectStream",
        "ChangeService/WatchChanges",
    }
    assert {"FaceService/ListFaces", "DetectionService/DetectFaces", "ChangeService/UndoChange"} <= statuses.keys()


async def test_generated_base_servicers_are_not_built_in_any_kind_of_rpc() -> None:
    bases = (
        faces_pb2_grpc.FaceServiceServicer(),
        detection_pb2_grpc.DetectionServiceServicer(),
        changes_pb2_grpc.ChangeServiceServicer(),
    )
    statuses = await ask(faces(bases[0]), detection(bases[1]), changes(bases[2]))
    methods = [
        module.DESCRIPTOR.services_by_name[name].methods
        for module, name in (
            (faces_pb2, "FaceService"),
            (detection_pb2, "DetectionService"),
            (changes_pb2, "ChangeService"),
        )
    ]
    assert statuses == {
        f"{method.containing_service.name}/{method.name}": MISSING for service in methods for method in service
    }


@pytest.mark.parametrize(
    ("request_type", "values"),
    [
        (
            assignments_pb2.BatchAssignFacesRequest,
            {"library_id": LIBRARY, "request_id": "!"},
        ),
        (
            assignments_pb2.ListExclusionsRequest,
            {"library_id": LIBRARY, "page_size": -1},
        ),
        (suggestions_pb2.LeaseReviewQueueRequest, {"library_id": LIBRARY, "limit": -1}),
        (changes_pb2.WatchChangesRequest, {"library_id": LIBRARY, "after_cursor": "!"}),
    ],
)
def test_a_probe_is_refused_and_says_nothing_else(request_type: Any, values: dict[str, Any]) -> None:
    assert make_probe(request_type.DESCRIPTOR) == request_type(**values)
    assert parse_library_id(LIBRARY) == LIBRARY


@dataclass
class SmallServer:
    """A plain gRPC server of a contract that stands in a descriptor pool of its own. ``codes`` are its answers."""

    target: str
    codes: dict[str, grpc.StatusCode]
    seen: list[tuple[str, str, str, str | None]] = field(default_factory=list)


@pytest.fixture
def small() -> Iterator[SmallServer]:
    service = "private.v1.PrivateService"
    codes = {"GetThing": grpc.StatusCode.NOT_FOUND, "MakeThing": grpc.StatusCode.UNIMPLEMENTED}
    file = descriptor_pb2.FileDescriptorProto(name="private/v1/private.proto", package="private.v1", syntax="proto3")
    message = file.message_type.add(name="ThingRequest")
    for number, name in enumerate(("library_id", "thing_id", "request_id"), start=1):
        message.field.add(name=name, number=number, type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING, label=1)
    described = file.service.add(name="PrivateService")
    for name in codes:
        described.method.add(name=name, input_type=".private.v1.ThingRequest", output_type=".private.v1.ThingRequest")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    thing_request: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("private.v1.ThingRequest"))

    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    made = SmallServer(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", codes)

    def handle(name: str) -> Any:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            bearer = dict(context.invocation_metadata()).get("authorization")
            made.seen.append((name, request.thing_id, request.request_id, None if bearer is None else str(bearer)))
            context.abort(codes[name], "as told")

        return grpc.unary_unary_rpc_method_handler(answer, thing_request.FromString, thing_request.SerializeToString)

    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {n: handle(n) for n in codes}),))
    reflection.enable_server_reflection((service, reflection.SERVICE_NAME), server, pool=pool)
    server.start()
    yield made
    server.stop(None).wait()


GET = Rpc("private", "private.v1.PrivateService", "GetThing")
MAKE = Rpc("private", "private.v1.PrivateService", "MakeThing")


def test_the_contract_is_the_servers_own(small: SmallServer) -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindServiceByName("private.v1.PrivateService")
    statuses = ask_servers({"private": small.target}, token="secret")
    assert statuses == {GET: WORKS, MAKE: MISSING}
    assert list(statuses) == [GET, MAKE]
    assert small.seen == [("GetThing", "", "!", "Bearer secret"), ("MakeThing", "", "!", "Bearer secret")]


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.PERMISSION_DENIED])
def test_an_answer_that_decides_nothing_is_an_error(small: SmallServer, code: grpc.StatusCode) -> None:
    small.codes["MakeThing"] = code
    with pytest.raises(UndecidedError, match=rf"private private\.v1\.PrivateService/MakeThing answered {code.name}"):
        ask_servers({"private": small.target})


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UndecidedError, match=r"private at 127\.0\.0\.1:1 did not say"):
        ask_servers({"private": "127.0.0.1:1"})


def test_the_page_counts_and_names_every_rpc() -> None:
    page = format_page({MAKE: MISSING, GET: WORKS})
    assert "generated from running servers by `make status-doc`" in page
    assert "**1 of 2 RPCs work.**" in page
    assert "| private | 1 | 1 |" in page
    assert page.splitlines()[-2:] == [
        "| private | `private.v1.PrivateService` | `GetThing` | works |",
        "| private | `private.v1.PrivateService` | `MakeThing` | not built yet |",
    ]


def test_differences_are_named() -> None:
    old = format_page({GET: WORKS, MAKE: MISSING})
    assert find_differences(old, {GET: WORKS, MAKE: MISSING}) == []
    assert find_differences(old, {GET: WORKS, MAKE: WORKS}) == [
        f"{MAKE} is 'not built yet' on the page and 'works' on the server"
    ]
    assert find_differences(old, {GET: WORKS}) == [f"{MAKE} is on the page, but no server offers it"]
    assert find_differences("", {GET: WORKS}) == [f"{GET} is not on the page; it is 'works'"]
    assert find_differences(old.replace("**1 of", "**2 of"), {GET: WORKS, MAKE: MISSING}) == [
        "the RPCs are the same, but the text around them is not"
    ]


@pytest.fixture
def stack(small: SmallServer, tmp_path: Path) -> Iterator[Path]:
    """A directory in which a stack of that one server runs, as far as others can tell."""
    directory = StackDirectory.at(tmp_path / "stack")
    directory.create()
    lock = acquire_lock(directory.lock)
    assert lock is not None
    directory.stack.write_text(json.dumps({"addresses": {"private": small.target}, "env": {}}))
    yield directory.root
    os.close(lock)


def test_the_page_is_written_and_checked(small: SmallServer, stack: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "status.md"
    runner = CliRunner()
    assert runner.invoke(main, ["--dir", str(stack), "--write", str(page)]).exit_code == 0
    assert page.read_text() == format_page({GET: WORKS, MAKE: MISSING})
    assert runner.invoke(main, ["--dir", str(stack), "--check", str(page)]).exit_code == 0
    small.codes["MakeThing"] = grpc.StatusCode.INVALID_ARGUMENT
    checked = runner.invoke(main, ["--dir", str(stack), "--check", str(page)])
    assert checked.exit_code == 1
    assert f"{MAKE} is 'not built yet' on the page and 'works' on the server" in checked.stderr
    assert page.read_text() == format_page({GET: WORKS, MAKE: MISSING})


def test_the_page_is_printed_if_no_file_is_named(stack: Path) -> None:
    printed = CliRunner().invoke(main, ["--dir", str(stack)])
    assert printed.exit_code == 0
    assert printed.stdout == format_page({GET: WORKS, MAKE: MISSING})


def test_a_stack_that_is_not_ready_is_refused(stack: Path) -> None:
    (stack / "stack.json").unlink()
    refused = CliRunner().invoke(main, ["--dir", str(stack)])
    assert refused.exit_code == 1
    assert "is not ready" in refused.stderr
