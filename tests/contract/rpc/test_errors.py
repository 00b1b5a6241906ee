"""Every error reaches the caller as one status with details, on every kind of RPC, and nothing else leaks."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
import redis.exceptions
import sqlalchemy.exc
from google.rpc import error_details_pb2
from qdrant_client.http.exceptions import ResponseHandlingException
from structlog.testing import capture_logs

from shared import errors
from shared.errors import KithError, Reason
from shared.rpc.channel import translate_errors
from shared.rpc.status import details_of

from .conftest import Launch, Running
from .echo import EchoClient, EchoRequest, Via

pytestmark = pytest.mark.asyncio

TYPED = [
    errors.InvalidRequest("name is empty", field="person.name"),
    errors.ImageUnreadable("not an image", metadata={"asset_id": "a1"}),
    errors.NotFound("face", "f1"),
    errors.AlreadyExists("taken", metadata={"id": "p1"}),
    errors.PreconditionFailed("paused", reason=Reason.PERSON_NOT_ACTIVE),
    errors.EtagMismatch("person", "p1", "e2"),
    errors.Contention("busy", retry_after_s=0.25),
    errors.PermissionDenied("no", reason=Reason.VERB_FORBIDDEN),
    errors.Unauthenticated("who?"),
    errors.Overloaded("full", retry_after_s=2.0),
    errors.DeadlineTooShort("hurry"),
    errors.Unavailable("away", reason=Reason.SERVICE_UNAVAILABLE, retry_after_s=1.0),
    errors.NotImplementedYet("later"),
]


def raising(error: BaseException) -> Any:
    async def act(_request: Any, _context: Any) -> str:
        raise error

    return act


async def failure_of(running: Running, via: Via = Via.UNARY, **options: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.client.provoke(via, **options)
    return caught.value


def detail(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    status = details_of(error)
    assert status is not None
    for packed in status.details:
        found = kind()
        if packed.Unpack(found):
            return found
    return None


@pytest.mark.parametrize("via", Via)
async def test_a_call_of_every_kind_is_served(launch: Launch, via: Via) -> None:
    running = await launch()
    texts = ["a", "b"] if via.sends_many else ["a"]
    answers = await running.client.send(via, *texts)
    assert " ".join(answers) == " ".join(texts)


@pytest.mark.parametrize("via", Via)
async def test_a_typed_error_comes_through_every_kind(launch: Launch, via: Via) -> None:
    running = await launch()
    running.servicer.act = raising(errors.NotFound("face", "f1"))
    error = await failure_of(running, via)
    info = detail(error, error_details_pb2.ErrorInfo)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "face 'f1' not found"
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "RESOURCE_NOT_FOUND",
        "kith",
        {"resource": "face", "id": "f1"},
    )


@pytest.mark.parametrize("raised", TYPED, ids=lambda error: type(error).__name__)
async def test_each_class_survives_the_round_trip(launch: Launch, raised: KithError) -> None:
    running = await launch()
    running.servicer.act = raising(raised)
    with pytest.raises(KithError) as caught:
        async with translate_errors("echo"):
            await running.client.ask()
    got = caught.value
    assert type(got) is type(raised)
    assert (got.message, got.reason, got.code) == (raised.message, raised.reason, raised.code)
    assert (got.metadata, got.violations, got.retry_after_s) == (
        raised.metadata,
        raised.violations,
        raised.retry_after_s,
    )


async def test_a_typed_error_passes_through_a_service_in_between(launch: Launch) -> None:
    store = await launch()
    store.servicer.act = raising(errors.EtagMismatch("person", "p1", "e2"))
    front = await launch()

    async def forward(request: Any, _context: Any) -> str:
        return await store.client.ask(request.text)

    front.servicer.act = forward
    with pytest.raises(errors.EtagMismatch) as caught:
        async with translate_errors("front"):
            await front.client.ask()
    assert caught.value.metadata["current_etag"] == "e2"


async def test_fields_retry_and_request_id_are_told(launch: Launch) -> None:
    running = await launch()
    running.servicer.act = raising(errors.InvalidRequest("name is empty", field="person.name"))
    error = await failure_of(running, metadata=(("x-request-id", "call-7"),))
    assert [item.field for item in detail(error, error_details_pb2.BadRequest).field_violations] == ["person.name"]
    assert detail(error, error_details_pb2.RequestInfo).request_id == "call-7"
    assert detail(error, error_details_pb2.RetryInfo) is None
    assert dict(error.trailing_metadata())["x-request-id"] == "call-7"

    running.servicer.act = raising(errors.Overloaded("full", retry_after_s=1.5))
    assert detail(await failure_of(running), error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 1500


async def test_a_flood_of_violations_still_fits_into_metadata(launch: Launch) -> None:
    running = await launch()
    wrong = [errors.FieldViolation(f"assets[{index}].uri", "é" * 300) for index in range(500)]
    running.servicer.act = raising(errors.InvalidRequest("é" * 5000, violations=wrong))
    error = await failure_of(running)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    told = detail(error, error_details_pb2.BadRequest).field_violations
    omitted = detail(error, error_details_pb2.ErrorInfo).metadata["omitted_violations"]
    assert 0 < len(told) == 500 - int(omitted)


@pytest.mark.parametrize("via", Via)
async def test_the_unforeseen_says_nothing_but_an_id(launch: Launch, via: Via) -> None:
    running = await launch()
    running.servicer.act = raising(RuntimeError("postgresql://kith:pass@db/kith in /srv/kith/x.py"))
    with capture_logs() as lines:
        error = await failure_of(running, via, metadata=(("x-request-id", "call-9"),))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "internal error; the server's log has it under request id call-9"
    assert b"postgresql" not in dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert [line for line in lines if line["event"] == "unexpected failure"]


class FakeDriverError(Exception):
    """A driver's exception as SQLAlchemy wraps it: with the server's five-character code."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("secret words of the driver")
        self.sqlstate = sqlstate


def database_error(sqlstate: str, *, invalidated: bool = False) -> sqlalchemy.exc.DBAPIError:
    return sqlalchemy.exc.DBAPIError("SELECT secret", {}, FakeDriverError(sqlstate), connection_invalidated=invalidated)


@pytest.mark.parametrize(
    ("raised", "code", "reason"),
    [
        (database_error("55P03"), "ABORTED", "LOCK_TIMEOUT"),
        (database_error("40001"), "ABORTED", "LOCK_TIMEOUT"),
        (database_error("40P01"), "ABORTED", "LOCK_TIMEOUT"),
        (FakeDriverError("40P01"), "ABORTED", "LOCK_TIMEOUT"),
        (database_error("57014"), "DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT"),
        (database_error("08006"), "UNAVAILABLE", "STORE_UNAVAILABLE"),
        (database_error("57P01"), "UNAVAILABLE", "STORE_UNAVAILABLE"),
        (database_error("53300"), "UNAVAILABLE", "STORE_UNAVAILABLE"),
        (database_error("00000", invalidated=True), "UNAVAILABLE", "STORE_UNAVAILABLE"),
        (database_error("23505"), "INTERNAL", "INTERNAL_ERROR"),
        (sqlalchemy.exc.TimeoutError("pool"), "UNAVAILABLE", "STORE_UNAVAILABLE"),
        (ConnectionRefusedError(111, "db.internal"), "UNAVAILABLE", "STORE_UNAVAILABLE"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed"), "UNAVAILABLE", "STORE_UNAVAILABLE"),
        (FileNotFoundError(2, "/etc/secret"), "INTERNAL", "INTERNAL_ERROR"),
        (redis.exceptions.ConnectionError("redis:6379"), "UNAVAILABLE", "STORE_UNAVAILABLE"),
        (ResponseHandlingException(ConnectionError("qdrant")), "UNAVAILABLE", "STORE_UNAVAILABLE"),
        (
            ExceptionGroup("tasks", [ValueError("x"), errors.Overloaded("full")]),
            "RESOURCE_EXHAUSTED",
            "OVERLOADED",
        ),
        (ExceptionGroup("tasks", [ValueError("x")]), "INTERNAL", "INTERNAL_ERROR"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_failures_of_the_stores(launch: Launch, raised: BaseException, code: str, reason: str) -> None:
    running = await launch()
    running.servicer.act = raising(raised)
    # The channel retries UNAVAILABLE; the raw one shows the first answer.
    async with grpc.aio.insecure_channel(running.address, options=(("grpc.enable_retries", 0),)) as channel:
        call = EchoClient(channel).call("GetEcho", EchoRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert caught.value.code().name == code
    info = detail(caught.value, error_details_pb2.ErrorInfo)
    assert info.reason == reason
    assert "secret" not in str(details_of(caught.value))
    assert (detail(caught.value, error_details_pb2.RetryInfo) is not None) == (code in {"ABORTED", "UNAVAILABLE"})


async def test_a_service_that_is_not_there_is_unavailable_by_name(launch: Launch) -> None:
    running = await launch()
    await running.server.close()
    with pytest.raises(errors.Unavailable) as caught:
        async with translate_errors("persons"):
            await running.client.ask(timeout=5)
    assert (caught.value.reason, caught.value.metadata) == (
        Reason.SERVICE_UNAVAILABLE,
        {"service": "persons"},
    )


async def test_something_awaited_being_cancelled_is_not_the_callers_cancellation(launch: Launch) -> None:
    running = await launch()

    async def act(_request: Any, _context: Any) -> str:
        abandoned: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        abandoned.cancel()
        return await abandoned

    running.servicer.act = act
    assert (await failure_of(running)).code() is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("via", Via)
async def test_abort_in_a_handler_keeps_its_code(launch: Launch, via: Via) -> None:
    running = await launch()

    async def act(_request: Any, context: Any) -> str:
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "past the end")
        raise AssertionError("abort returns never")

    running.servicer.act = act
    error = await failure_of(running, via)
    assert (error.code(), error.details()) == (grpc.StatusCode.OUT_OF_RANGE, "past the end")


@pytest.mark.parametrize("method", ["GetUnbuilt", "WatchUnbuilt"])
async def test_a_method_not_built_yet_is_unimplemented_with_a_reason(launch: Launch, method: str) -> None:
    running = await launch()
    call = running.client.call(method, EchoRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call if method == "GetUnbuilt" else call.read())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert detail(caught.value, error_details_pb2.ErrorInfo).reason == "NOT_IMPLEMENTED"


async def test_an_unknown_method_stays_unimplemented(launch: Launch) -> None:
    running = await launch()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.client.call("GetNothing", EchoRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("via", Via)
async def test_bytes_that_are_no_message_are_an_invalid_argument(launch: Launch, via: Via) -> None:
    running = await launch()
    error = await failure_of(running, via, text=b"\xff\xff\xff")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert detail(error, error_details_pb2.ErrorInfo).reason == "INVALID_FIELD"


async def test_a_handler_that_forgets_its_reply_is_internal(launch: Launch) -> None:
    running = await launch()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.client.call("UpdateNothing", EchoRequest())
    assert caught.value.code() is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("via", Via)
@pytest.mark.parametrize("direction", ["request", "reply"])
async def test_a_message_above_the_limit_is_resource_exhausted(launch: Launch, via: Via, direction: str) -> None:
    running = await launch(max_message_bytes=1024 * 1024)
    large = "x" * (1024 * 1024 + 1)

    async def act(_request: Any, _context: Any) -> str:
        return large

    running.servicer.act = act
    unlimited = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
    async with grpc.aio.insecure_channel(running.address, options=unlimited) as channel:
        client = EchoClient(channel)
        exceeding = client.provoke(via, large) if direction == "request" else client.send(via, "x")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await exceeding
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
