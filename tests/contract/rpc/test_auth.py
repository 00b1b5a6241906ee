"""A caller does what its token's verbs say, in its token's libraries, on every kind of RPC."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared.config import AuthMode, AuthSettings
from shared.errors import InvalidRequest, PermissionDenied, Reason, Unauthenticated
from shared.rpc.ambient import current_principal, working_for
from shared.rpc.channel import translate_errors
from shared.rpc.method import Method
from shared.rpc.principal import (
    OpenAuthenticator,
    TokenAuthenticator,
    TokenEntry,
    Verb,
    build_authenticator,
    verb_of,
)

from .conftest import Launch, Running
from .echo import EchoRequest, Via

pytestmark = pytest.mark.asyncio


def entry(token: str, libraries: list[str], verbs: list[str]) -> dict[str, Any]:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return {"token_sha256": digest, "subject": token, "libraries": libraries, "verbs": verbs}


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.json"
    tokens = [
        entry("reader", ["family", "default"], ["read"]),
        entry("writer", ["family"], ["write"]),
        entry("guest", ["family"], ["read"]),
        entry("anywhere", ["*"], ["read", "write", "admin"]),
        entry("service", ["family"], ["read", "act_for_others"]),
    ]
    path.write_text(json.dumps(tokens))
    return path


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def on_behalf(subject: str) -> tuple[tuple[str, str], ...]:
    return (("kith-on-behalf-of", quote(subject)),)


async def guarded(launch: Launch, tokens_file: Path) -> Running:
    running = await launch(authenticator=TokenAuthenticator.from_file(tokens_file))

    async def act(_request: Any, _context: Any) -> str:
        return current_principal().subject

    running.servicer.act = act
    return running


@pytest.mark.parametrize("via", Via)
async def test_a_known_token_enters_its_libraries(launch: Launch, tokens_file: Path, via: Via) -> None:
    running = await guarded(launch, tokens_file)
    token, libraries = ("writer", ("family",)) if via.writes else ("reader", ("family", "default", ""))
    for library in libraries:
        assert await running.client.send(via, "x", library_id=library, metadata=bearer(token)) == [token]


@pytest.mark.parametrize("via", Via)
@pytest.mark.parametrize("metadata", [(), bearer("stranger"), (("authorization", "Basic reader"),)])
async def test_no_token_or_an_unknown_one_is_refused(
    launch: Launch, tokens_file: Path, via: Via, metadata: tuple[tuple[str, str], ...]
) -> None:
    running = await guarded(launch, tokens_file)
    with pytest.raises(Unauthenticated):
        async with translate_errors("echo"):
            await running.client.provoke(via, at_once=True, metadata=metadata)


@pytest.mark.parametrize("via", Via)
async def test_another_library_is_forbidden(launch: Launch, tokens_file: Path, via: Via) -> None:
    running = await guarded(launch, tokens_file)
    token = "writer" if via.writes else "reader"
    with pytest.raises(PermissionDenied) as caught:
        async with translate_errors("echo"):
            await running.client.provoke(via, library_id="other", metadata=bearer(token))
    assert (caught.value.reason, caught.value.metadata) == (Reason.LIBRARY_FORBIDDEN, {"library_id": "other"})


@pytest.mark.parametrize("method", ["ImportEchoes", "ImportEchoesByReading"])
async def test_every_message_of_a_client_stream_is_checked(launch: Launch, tokens_file: Path, method: str) -> None:
    running = await guarded(launch, tokens_file)
    refused = asyncio.Event()

    async def requests() -> AsyncIterator[Any]:
        yield EchoRequest(library_id="family")
        yield EchoRequest(library_id="other")
        await refused.wait()

    with pytest.raises(PermissionDenied):
        async with translate_errors("echo"):
            await running.client.call(method, requests(), metadata=bearer("writer"))
    refused.set()


@pytest.mark.parametrize("method", ["ImportEchoes", "ImportEchoesByReading"])
async def test_later_messages_of_a_client_stream_need_not_repeat_the_library(
    launch: Launch, tokens_file: Path, method: str
) -> None:
    running = await guarded(launch, tokens_file)

    async def requests(first: str) -> AsyncIterator[Any]:
        yield EchoRequest(library_id=first)
        yield EchoRequest()

    answer = await running.client.call(method, requests("family"), metadata=bearer("writer"))
    assert answer.text == "writer writer"
    with pytest.raises(PermissionDenied):
        async with translate_errors("echo"):
            await running.client.call(method, requests(""), metadata=bearer("writer"))


async def test_every_message_of_a_two_way_stream_is_of_its_own_library(launch: Launch, tokens_file: Path) -> None:
    running = await guarded(launch, tokens_file)
    requests = [EchoRequest(library_id="family"), EchoRequest()]

    async def both() -> AsyncIterator[Any]:
        for request in requests:
            yield request

    async def read_all() -> None:
        async with translate_errors("echo"):
            async for _ in running.client.call("DetectStream", both(), metadata=bearer("guest")):
                pass

    with pytest.raises(PermissionDenied) as caught:
        await read_all()
    assert caught.value.metadata == {"library_id": "default"}


async def test_verbs(launch: Launch, tokens_file: Path) -> None:
    running = await guarded(launch, tokens_file)
    family = EchoRequest(library_id="family")
    await running.client.call("UpdateEcho", family, metadata=bearer("writer"))
    await running.client.call("GetEcho", family, metadata=bearer("reader"))
    for method, token, verb in (("UpdateEcho", "reader", "write"), ("GetEcho", "writer", "read")):
        with pytest.raises(PermissionDenied) as caught:
            async with translate_errors("echo"):
                await running.client.call(method, family, metadata=bearer(token))
        assert (caught.value.reason, caught.value.metadata) == (Reason.VERB_FORBIDDEN, {"verb": verb})


async def test_a_library_that_cannot_exist_is_an_invalid_field(launch: Launch) -> None:
    running = await launch()
    with pytest.raises(InvalidRequest) as caught:
        async with translate_errors("echo"):
            await running.client.ask(library_id="../etc")
    assert [item.field for item in caught.value.violations] == ["library_id"]


async def test_health_needs_no_token(launch: Launch, tokens_file: Path) -> None:
    running = await guarded(launch, tokens_file)
    stub: Any = health_pb2_grpc.HealthStub(running.channel)
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING


async def test_the_service_token_is_sent_by_our_channels(launch: Launch, tokens_file: Path) -> None:
    auth = AuthSettings(service_token="anywhere")
    running = await launch(authenticator=TokenAuthenticator.from_file(tokens_file), auth=auth)
    assert await running.client.ask("x", library_id="other") == "x"


@pytest.mark.parametrize("subject", ["anna@example.org", "Zoë Ωmega", "100% sure"])
async def test_a_service_calls_for_its_caller(launch: Launch, tokens_file: Path, subject: str) -> None:
    auth = AuthSettings(service_token="service")
    back = await launch(authenticator=TokenAuthenticator.from_file(tokens_file), auth=auth)
    front = await launch()

    async def name_both(_request: Any, _context: Any) -> str:
        principal = current_principal()
        return f"{principal.subject} through {principal.through}"

    async def forward(request: Any, _context: Any) -> str:
        return await back.client.ask(request.text, library_id="family")

    back.servicer.act, front.servicer.act = name_both, forward
    assert await front.client.ask(metadata=on_behalf(subject)) == f"{subject} through service"
    with working_for(subject):
        assert await back.client.ask(library_id="family") == f"{subject} through service"
    assert await back.client.ask(library_id="family") == "service through "


@pytest.mark.parametrize("via", Via)
async def test_only_a_token_that_may_is_believed_whom_it_calls_for(launch: Launch, tokens_file: Path, via: Via) -> None:
    running = await guarded(launch, tokens_file)
    metadata = (*bearer("writer" if via.writes else "reader"), *on_behalf("anywhere"))
    with pytest.raises(PermissionDenied) as caught:
        async with translate_errors("echo"):
            await running.client.provoke(via, at_once=True, library_id="family", metadata=metadata)
    assert (caught.value.reason, caught.value.metadata) == (Reason.VERB_FORBIDDEN, {"verb": "act_for_others"})


async def test_calling_for_somebody_lends_none_of_their_rights(launch: Launch, tokens_file: Path) -> None:
    running = await guarded(launch, tokens_file)
    metadata = (*bearer("service"), *on_behalf("anywhere"))
    with pytest.raises(PermissionDenied) as library:
        async with translate_errors("echo"):
            await running.client.ask(library_id="other", metadata=metadata)
    assert library.value.reason is Reason.LIBRARY_FORBIDDEN
    with pytest.raises(PermissionDenied) as verb:
        async with translate_errors("echo"):
            await running.client.call("UpdateEcho", EchoRequest(library_id="family"), metadata=metadata)
    assert verb.value.metadata == {"verb": "write"}


@pytest.mark.parametrize("subject", ["", "x" * 201, "two\nlines", "n\0l"])
async def test_nobody_has_such_a_name(launch: Launch, subject: str) -> None:
    running = await launch()
    with pytest.raises(InvalidRequest):
        async with translate_errors("echo"):
            await running.client.ask(metadata=on_behalf(subject))
    with pytest.raises(ValueError, match="200 printable"):
        TokenEntry.model_validate({**entry("a", ["*"], ["read"]), "subject": subject})


@pytest.mark.parametrize(
    ("path", "verb"),
    [
        ("/kith.persons.v1.PersonService/GetPerson", Verb.READ),
        ("/kith.detection.v1.FaceService/BatchGetFaces", Verb.READ),
        ("/kith.detection.v1.DetectionService/DetectStream", Verb.READ),
        ("/kith.suggestions.v1.SuggestionService/MatchFace", Verb.READ),
        ("/kith.detection.v1.DoctorService/CheckConsistency", Verb.READ),
        ("/kith.detection.v1.ModelService/ListModels", Verb.READ),
        ("/kith.detection.v1.ModelService/CutOverModel", Verb.ADMIN),
        ("/kith.detection.v1.DoctorService/Reconcile", Verb.ADMIN),
        ("/kith.detection.v1.DoctorService/RebuildVectors", Verb.ADMIN),
        ("/kith.persons.v1.PersonService/ForgetPerson", Verb.ADMIN),
        ("/kith.persons.v1.PersonService/MergePersons", Verb.WRITE),
        ("/kith.suggestions.v1.SuggestionService/LeaseReviewQueue", Verb.WRITE),
        ("/kith.jobs.v1.JobService/CancelJob", Verb.WRITE),
        ("/kith.jobs.v1.JobService/WaitJob", Verb.READ),
    ],
)
async def test_the_verb_comes_from_the_name(path: str, verb: Verb) -> None:
    assert verb_of(Method.parse(path)) is verb


async def test_a_wrong_tokens_file_is_named_without_its_contents(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps([{**entry("a", ["*"], ["read"]), "token_sha256": "plain-text-token"}]))
    with pytest.raises(ValueError, match=r"tokens\.json: 0\.token_sha256") as caught:
        TokenAuthenticator.from_file(path)
    assert "plain-text-token" not in str(caught.value)


async def test_the_mode_chooses(tokens_file: Path) -> None:
    assert isinstance(build_authenticator(AuthSettings()), OpenAuthenticator)
    settings = AuthSettings(mode=AuthMode.TOKENS, tokens_file=tokens_file)
    assert isinstance(build_authenticator(settings), TokenAuthenticator)
