"""The process: what survives its death, who may use its folder, how it starts, answers and stops."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as proto

from tests.integration.embedded_qdrant.points import EAST, NORTH, below, matches, payloads, point, uuid_of
from tests.integration.embedded_qdrant.process import REPOSITORY, EmbeddedQdrant, free_port, refusal, start

Start = Callable[[], EmbeddedQdrant]


@pytest.fixture
def start_here(folder: Path) -> Iterator[Start]:
    """Starts processes over `folder`; those still alive at the end of the test are killed."""
    started: list[EmbeddedQdrant] = []

    def start_one() -> EmbeddedQdrant:
        started.append(start(folder))
        return started[-1]

    yield start_one
    for qdrant in started:
        qdrant.kill()


async def _create(client: AsyncQdrantClient, name: str) -> None:
    await client.create_collection(name, models.VectorParams(size=4, distance=models.Distance.COSINE))
    await client.create_payload_index(name, "n", models.PayloadSchemaType.INTEGER)


async def test_acknowledged_writes_survive_kill_9(start_here: Start) -> None:
    """Each round kills the process amid a stream of writes and compares with what was acknowledged."""
    acknowledged: dict[str, int] = {}
    for attempt in range(1, 7):
        qdrant = start_here()
        client = qdrant.client()
        if attempt == 1:
            await _create(client, "faces")
        assert "n" in (await client.get_collection("faces")).payload_schema
        stored = await _stored_numbers(client)
        assert stored.items() >= acknowledged.items()
        # The write whose answer the kill cut off may be there; nothing else may.
        assert len(stored) - len(acknowledged) in (0, 1)
        acknowledged = stored | await _write_until_killed(qdrant, client, attempt)
        await client.close()
    client = start_here().client()
    assert (await _stored_numbers(client)).items() >= acknowledged.items()
    await client.close()


async def _stored_numbers(client: AsyncQdrantClient) -> dict[str, int]:
    return {key: value["n"] for key, value in (await payloads(client, "faces")).items()}


async def _write_until_killed(qdrant: EmbeddedQdrant, client: AsyncQdrantClient, attempt: int) -> dict[str, int]:
    """Write points one by one, kill the process after some forty; what was acknowledged."""
    acknowledged: dict[str, int] = {}
    enough = asyncio.Event()

    async def write() -> None:
        for number in range(attempt * 1_000, (attempt + 1) * 1_000):
            await client.upsert("faces", [point(number, n=number)], wait=True)
            acknowledged[uuid_of(number)] = number
            if len(acknowledged) == 40:
                enough.set()

    writing = asyncio.create_task(write())
    await enough.wait()
    qdrant.kill()
    with pytest.raises(grpc.aio.AioRpcError):
        await writing
    return acknowledged


async def test_every_kind_of_update_survives_kill_9(start_here: Start) -> None:
    qdrant = start_here()
    client = qdrant.client()
    await _create(client, "faces")
    await client.upsert("faces", [point(n, n=n, a=1) for n in range(6)])
    await client.upsert("faces", [point(0, n=99)], update_filter=below("n", -5))
    await client.delete("faces", [uuid_of(1)])
    await client.delete("faces", models.Filter(must=[matches("n", 2)]))
    await client.set_payload("faces", {"b": [1, None]}, points=[uuid_of(3)])
    await client.delete_payload("faces", ["a"], points=[uuid_of(4)])
    await client.update_vectors("faces", [models.PointVectors(id=uuid_of(5), vector=NORTH)])
    alias = models.CreateAlias(alias_name="live", collection_name="faces")
    await client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    await _create(client, "gone")
    await client.delete_collection("gone")
    await client.close()
    qdrant.kill()

    client = start_here().client()
    assert [each.name for each in (await client.get_collections()).collections] == ["faces"]
    assert await payloads(client, "live") == {
        uuid_of(0): {"n": 0, "a": 1},
        uuid_of(3): {"n": 3, "a": 1, "b": [1, None]},
        uuid_of(4): {"n": 4},
        uuid_of(5): {"n": 5, "a": 1},
    }
    assert [hit.id for hit in (await client.query_points("live", query=NORTH, limit=1)).points] == [uuid_of(5)]
    assert (await client.count("live", count_filter=below("n", 4))).count == 2
    await client.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_with_everything_kept(start_here: Start, number: signal.Signals) -> None:
    qdrant = start_here()
    client = qdrant.client()
    await _create(client, "faces")
    await client.upsert("faces", [point(n, n=n) for n in range(100)])
    await client.close()
    assert qdrant.stop(number) == 0
    client = start_here().client()
    assert (await client.count("faces")).count == 100
    await client.close()


async def test_a_second_process_is_refused_until_the_first_is_dead(start_here: Start, folder: Path) -> None:
    first = start_here()
    complaint = refusal(folder, free_port())
    assert f"in use by process {first.process.pid}" in complaint
    client = first.client()
    await _create(client, "faces")
    await client.close()
    first.kill()
    client = start_here().client()
    assert await client.collection_exists("faces")
    await client.close()


def test_a_port_in_use_is_refused(embedded: EmbeddedQdrant, folder: Path) -> None:
    complaint = refusal(folder, embedded.port)
    assert str(embedded.port) in complaint


async def test_it_listens_on_the_loopback_address_only(start_here: Start) -> None:
    qdrant = start_here()
    with socket.socket() as elsewhere:
        # 127.0.0.2 is this machine as well; a process bound to every address would have taken it.
        elsewhere.bind(("127.0.0.2", qdrant.port))


async def test_health_is_told_both_ways(embedded: EmbeddedQdrant) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{embedded.port}") as channel:
        stub = proto.QdrantStub(channel)  # type: ignore[no-untyped-call]
        reply = await stub.HealthCheck(proto.HealthCheckRequest())
        assert "embedded" in reply.title
        assert reply.version
        check_health = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        check = await check_health(health_pb2.HealthCheckRequest())
        assert check.status == health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
async def stopped(start_here: Start, folder: Path) -> Path:
    """The folder of a process that has stopped, with one collection of one point."""
    qdrant = start_here()
    client = qdrant.client()
    await _create(client, "faces")
    await client.upsert("faces", [point(1, EAST, n=1)])
    await client.close()
    assert qdrant.stop() == 0
    return folder


@pytest.mark.parametrize("keep", [0, 20], ids=["empty", "truncated"])
def test_a_damaged_catalogue_is_refused_and_nothing_deleted(stopped: Path, keep: int) -> None:
    catalogue = stopped / "catalogue.json"
    whole = catalogue.read_bytes()
    catalogue.write_bytes(whole[:keep])
    _assert_refuses_to_start(stopped, "catalogue.json cannot be read")
    catalogue.write_bytes(whole)
    start(stopped).kill()


def test_an_absent_catalogue_is_refused_where_there_are_collections(stopped: Path) -> None:
    (stopped / "catalogue.json").unlink()
    _assert_refuses_to_start(stopped, "catalogue.json is missing")
    assert list((stopped / "collections").iterdir())


def test_an_absent_collection_is_refused(stopped: Path) -> None:
    (only,) = (stopped / "collections").iterdir()
    only.rename(stopped / "elsewhere")
    _assert_refuses_to_start(stopped, "the folder of collection faces, is missing")


def test_a_damaged_collection_is_refused(stopped: Path) -> None:
    (only,) = (stopped / "collections").iterdir()
    (only / "edge_config.json").write_text("{")
    _assert_refuses_to_start(stopped, "collection faces in")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    complaint = refusal(tmp_path / "file" / "data", free_port())
    assert "cannot be used" in complaint


async def test_what_a_crash_left_behind_is_removed(stopped: Path, start_here: Start) -> None:
    left_over = stopped / "collections" / "000077"
    left_over.mkdir()
    (left_over / "half").write_text("made")
    (stopped / "catalogue.new").write_text("{")
    client = start_here().client()
    assert not left_over.exists()
    assert (await client.count("faces")).count == 1
    await _create(client, "more")
    assert {each.name for each in (await client.get_collections()).collections} == {"faces", "more"}
    await client.close()


def test_help_says_how_to_use_it() -> None:
    command = [sys.executable, "-m", "deploy.local.qdrant", "--help"]
    shown = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for word in ("--data", "--port", "prefer_grpc=True", "ready", "SIGTERM"):
        assert word in shown


def _assert_refuses_to_start(folder: Path, words: str) -> None:
    before = sorted(folder.rglob("*"))
    complaint = refusal(folder, free_port())
    assert words in complaint
    assert "rebuilt" in complaint
    assert sorted(folder.rglob("*")) == before
