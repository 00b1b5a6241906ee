"""When photos were taken: the camera's clock and its offset, from EXIF and from the caller, whose word wins."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import ExifTags, Image

from kith.common.v1 import types_pb2
from kith.detection.v1 import assets_pb2 as pb
from kith.detection.v1 import detection_pb2
from services.detection.worker import start as start_worker
from shared.errors import InvalidRequest
from shared.jobs.convert import to_timestamp
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album

TAKEN = datetime(2019, 5, 4, 12, 30, tzinfo=UTC)


def captured(offset: int | None) -> types_pb2.CaptureTime:
    """12:30 UTC, on a clock that far from it."""
    return types_pb2.CaptureTime(
        time=to_timestamp(TAKEN), precision=types_pb2.TIME_PRECISION_SECOND, utc_offset_minutes=offset
    )


@pytest.fixture
def dated(album: Album, tmp_path: Path) -> Path:
    """A photo with faces, taken at 18:00 at +05:30."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {ExifTags.Base.DateTimeOriginal: "2019:05:04 18:00:00", ExifTags.Base.OffsetTimeOriginal: "+05:30"}
    )
    photo = tmp_path / "dated.jpg"
    Image.open(album.path(1)).convert("RGB").save(photo, "JPEG", quality=95, exif=exif)
    return photo


async def register(
    client: DetectionClient, asset_id: str, uri: str, when: types_pb2.CaptureTime | None = None
) -> pb.Asset:
    request = pb.RegisterAssetsRequest(
        assets=[pb.NewAsset(id=asset_id, uri=uri, captured_at=when)], request_id=str(uuid4())
    )
    async with translate_errors("detection"):
        return (await client.assets.RegisterAssets(request)).assets[0]


async def get(client: DetectionClient, asset_id: str) -> types_pb2.CaptureTime:
    return (await client.assets.GetAsset(pb.GetAssetRequest(asset_id=asset_id))).asset.captured_at


async def test_detect_faces_tells_the_clock_of_the_camera(
    detection: DetectionClient, dated: Path, album: Album
) -> None:
    def ask(image: types_pb2.Image) -> detection_pb2.DetectFacesRequest:
        return detection_pb2.DetectFacesRequest(image=image)

    by_uri = (await detection.detection.DetectFaces(ask(types_pb2.Image(uri=dated.as_uri())))).result
    assert by_uri.captured_at == captured(330)
    silent = (await detection.detection.DetectFaces(ask(types_pb2.Image(uri=album.uri(1))))).result
    assert not silent.captured_at.HasField("utc_offset_minutes")


async def test_a_session_stores_what_exif_says_and_the_caller_wins(
    detection: DetectionClient, running: Running, dated: Path
) -> None:
    await running.worker(start_worker)
    later = types_pb2.CaptureTime(time=to_timestamp(TAKEN), precision=types_pb2.TIME_PRECISION_DAY)
    await register(detection, "exif", dated.as_uri())
    await register(detection, "caller", dated.as_uri(), captured(-480))
    await register(detection, "caller without offset", dated.as_uri(), later)
    session = await detection.create_session()
    await detection.wait_session(session.id)
    assert await get(detection, "exif") == captured(330)
    assert await get(detection, "caller") == captured(-480)
    assert await get(detection, "caller without offset") == later
    faces = await detection.list_faces("exif")
    assert faces
    assert all(face.captured_at == captured(330) for face in faces)


async def test_a_time_given_later_takes_the_place_of_all_of_it(
    detection: DetectionClient, running: Running, dated: Path
) -> None:
    await running.worker(start_worker)
    await register(detection, "a", dated.as_uri())
    await detection.wait_session((await detection.create_session()).id)
    assert await get(detection, "a") == captured(330)
    assert (await register(detection, "a", dated.as_uri())).captured_at == captured(330)
    assert (await register(detection, "a", dated.as_uri(), captured(None))).captured_at == captured(None)
    assert (await register(detection, "a", dated.as_uri(), captured(0))).captured_at == captured(0)
    assert (await register(detection, "a", dated.as_uri())).captured_at == captured(0)


async def test_offsets_no_clock_on_earth_has_are_refused(detection: DetectionClient, dated: Path) -> None:
    for offset in (-840, 840):
        made = await register(detection, "a", dated.as_uri(), captured(offset))
        assert made.captured_at.utc_offset_minutes == offset
    wrong = {
        "assets[0].captured_at.utc_offset_minutes": captured(841),
        "assets[0].captured_at.time": types_pb2.CaptureTime(utc_offset_minutes=60),
    }
    for field, when in wrong.items():
        with pytest.raises(InvalidRequest) as caught:
            await register(detection, "b", dated.as_uri(), when)
        assert [violation.field for violation in caught.value.violations] == [field]
