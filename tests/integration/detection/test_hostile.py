"""Two thousand broken and hostile images through one stream, with good photos among them: nothing stops it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from kith.common.v1 import types_pb2
from kith.detection.v1 import detection_pb2 as pb
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.unit.imaging.hostile import make_hostile

COUNT = 2000
# One photo in so many is a good one.
BETWEEN = 50


# Pillow warns of each wrong entry of a TIFF's directory.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.timeout(300)
async def test_hostile_images_fail_in_band_and_stop_nothing(detection: DetectionClient, album: Album) -> None:
    names = {0: "a good photo"}

    async def requests() -> AsyncIterator[pb.DetectStreamRequest]:
        for number, hostile in enumerate(make_hostile(COUNT), start=1):
            names[number] = hostile.name
            yield pb.DetectStreamRequest(sequence=number, image=types_pb2.Image(content=hostile.data))
            if number % BETWEEN == 0:
                yield pb.DetectStreamRequest(
                    sequence=COUNT + number, image=types_pb2.Image(uri=album.uri(number)), include_embeddings=True
                )

    replies = {reply.sequence: reply async for reply in detection.detection.DetectStream(requests())}
    del replies[0]
    good = {number for number in replies if number > COUNT}
    assert set(replies) == {*range(1, COUNT + 1), *range(COUNT + BETWEEN, 2 * COUNT + 1, BETWEEN)}
    failures = {number: reply.failure for number, reply in replies.items() if reply.HasField("failure")}
    reasons = Counter(failure.reason for failure in failures.values())
    assert set(reasons) == {"IMAGE_UNREADABLE", "IMAGE_TOO_LARGE"}, {
        names[number]: failure for number, failure in failures.items() if not failure.reason.startswith("IMAGE_")
    }
    assert reasons["IMAGE_UNREADABLE"] > COUNT // 4
    assert all(failure.message for failure in failures.values())
    assert not good & set(failures)
    alone = pb.DetectFacesRequest(image=types_pb2.Image(uri=album.uri(BETWEEN)), include_embeddings=True)
    assert replies[COUNT + BETWEEN].result == (await detection.detection.DetectFaces(alone)).result
    assert sum(len(replies[number].result.faces) for number in good) >= len(good)
