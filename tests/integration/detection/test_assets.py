"""AssetService over real gRPC and PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from kith.common.v1 import types_pb2
from kith.detection.v1 import assets_pb2 as pb
from shared.errors import InvalidRequest, NotFound, Reason
from shared.jobs.convert import to_timestamp
from shared.rpc.channel import translate_errors
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album

TAKEN = datetime(2019, 5, 4, tzinfo=UTC)


async def register(client: DetectionClient, request: pb.RegisterAssetsRequest) -> pb.RegisterAssetsResponse:
    async with translate_errors("detection"):
        return await client.assets.RegisterAssets(request)


async def list_ids(
    client: DetectionClient,
    *,
    detections: Sequence[pb.AssetDetection.ValueType] = (),
    captured: types_pb2.TimeRange | None = None,
) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        request = pb.ListAssetsRequest(page_size=2, page_token=token, detections=detections, captured=captured)
        answer = await client.assets.ListAssets(request)
        found += [asset.id for asset in answer.assets]
        token = answer.next_page_token
        if not token:
            return found


async def test_register_get_list(detection: DetectionClient, album: Album) -> None:
    made = await detection.register({f"photo {n}": album.uri(n) for n in (3, 1, 2, 5, 4)})
    assert [asset.id for asset in made.assets] == [f"photo {n}" for n in (3, 1, 2, 5, 4)]
    assert made.created_count == 5
    assert made.assets[0].detection == pb.ASSET_DETECTION_NEVER
    asset = (await detection.assets.GetAsset(pb.GetAssetRequest(asset_id="photo 3"))).asset
    assert asset == made.assets[0]
    assert await list_ids(detection) == [f"photo {n}" for n in (1, 2, 3, 4, 5)]
    assert await list_ids(detection, detections=[pb.ASSET_DETECTION_FACES]) == []
    with pytest.raises(NotFound):
        async with translate_errors("detection"):
            await detection.assets.GetAsset(pb.GetAssetRequest(asset_id="photo 3", library_id="other"))


async def test_registering_again_replaces_uri_and_keeps_a_time_not_given(
    detection: DetectionClient, album: Album
) -> None:
    taken = types_pb2.CaptureTime(time=to_timestamp(TAKEN), precision=types_pb2.TIME_PRECISION_DAY)
    new = pb.NewAsset(id="a", uri=album.uri(0), captured_at=taken)
    await register(detection, pb.RegisterAssetsRequest(assets=[new]))
    again = await detection.register({"a": album.uri(1), "b": album.uri(2)})
    assert again.created_count == 1
    assert again.assets[0].uri == album.uri(1)
    assert again.assets[0].captured_at == taken
    inside = types_pb2.TimeRange(start=to_timestamp(TAKEN))
    assert await list_ids(detection, captured=inside) == ["a"]
    assert await list_ids(detection, captured=types_pb2.TimeRange(end=to_timestamp(TAKEN))) == []


async def test_replay_answers_the_same_and_registers_once(detection: DetectionClient, album: Album) -> None:
    new = pb.NewAsset(id="a", uri=album.uri(0))
    request = pb.RegisterAssetsRequest(assets=[new], request_id=str(uuid4()))
    first = await register(detection, request)
    assert await register(detection, request) == first
    assert first.created_count == 1
    request.assets[0].uri = album.uri(1)
    with pytest.raises(InvalidRequest) as caught:
        await register(detection, request)
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_wrong_assets_are_named_and_none_is_registered(detection: DetectionClient, album: Album) -> None:
    good = album.uri(0)
    wrong = {
        "assets[1].id": [("a", good), ("a", good)],
        "assets[0].id": [("", good)],
        "assets[1].uri": [("a", good), ("b", "")],
        "assets[2].uri": [("a", good), ("b", good), ("c", "file:///etc/passwd")],
        "assets[0].uri": [("a", "https://example.org/photo.jpg"), ("b", good)],
        "assets": [],
    }
    for field, assets in wrong.items():
        request = pb.RegisterAssetsRequest(assets=[pb.NewAsset(id=name, uri=uri) for name, uri in assets])
        with pytest.raises(InvalidRequest) as caught:
            await register(detection, request)
        assert [violation.field for violation in caught.value.violations] == [field]
    with pytest.raises(InvalidRequest, match=r"1\.\.500"):
        await detection.register({str(n): good for n in range(501)})
    assert await list_ids(detection) == []
