"""A detection server as the worker uses it: photos by uri, through one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import grpc.aio

from kith.common.v1 import types_pb2
from kith.detection.v1 import detection_pb2 as pb
from kith.detection.v1 import detection_pb2_grpc
from services.detection.convert.looks import from_model_info, from_reply, to_options
from services.detection.convert.migrations import from_measured, to_given_faces
from services.detection.domain.migration import PhotoFaces, PhotoMeasure
from services.detection.domain.model import OptionOverrides, PackDescription, PendingPhoto, PhotoLook
from services.detection.domain.ports import DetectorBroke
from shared.errors import KithError, Overloaded, Reason, Unavailable
from shared.rpc.channel import translate_errors

Photo = TypeVar("Photo", PendingPhoto, PhotoFaces)
Answer = TypeVar("Answer", PhotoLook, PhotoMeasure)

_SERVICE: Final = "detection"
# The server's trouble, not the photo's: another try, later or elsewhere, will help.
_PASSING: Final = frozenset(
    {Reason.DRAINING, Reason.STORE_UNAVAILABLE, Reason.SERVICE_UNAVAILABLE, Reason.DEADLINE_TOO_SHORT}
)


class GrpcLooker:
    """:class:`PhotoLooker` and :class:`FaceMeasurer` over a channel to the detection service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = detection_pb2_grpc.DetectionServiceStub(channel)

    async def describe_pack(self, library_id: str) -> PackDescription:
        async with translate_errors(_SERVICE):
            answer = await self._stub.GetModelInfo(pb.GetModelInfoRequest(library_id=library_id))
        return from_model_info(answer.model)

    def look_at(
        self, library_id: str, photos: Sequence[PendingPhoto], options: OptionOverrides, *, alone: bool = False
    ) -> AsyncGenerator[PhotoLook, None]:
        asked = to_options(options)

        def ask(request: pb.DetectStreamRequest, photo: PendingPhoto) -> None:
            request.options.CopyFrom(asked)

        def read(reply: pb.DetectStreamResponse, photo: PendingPhoto) -> PhotoLook:
            return from_reply(reply, photo.asset_id)

        return self._exchange(library_id, photos, ask, read, alone=alone)

    def measure(
        self, library_id: str, photos: Sequence[PhotoFaces], *, alone: bool = False
    ) -> AsyncGenerator[PhotoMeasure, None]:
        def ask(request: pb.DetectStreamRequest, photo: PhotoFaces) -> None:
            request.given_faces.extend(to_given_faces(photo))

        return self._exchange(library_id, photos, ask, from_measured, alone=alone)

    async def _exchange(
        self,
        library_id: str,
        photos: Sequence[Photo],
        ask: Callable[[pb.DetectStreamRequest, Photo], None],
        read: Callable[[pb.DetectStreamResponse, Photo], Answer],
        *,
        alone: bool,
    ) -> AsyncGenerator[Answer, None]:
        """What ``read`` makes of the reply to each photo, as they come; ``ask`` says what is wanted of it."""
        credits_ = Credits(most=1 if alone else None)
        in_hand: dict[int, Photo] = {}
        call = self._stub.DetectStream(_requests(library_id, photos, ask, credits_, in_hand))
        answered = 0
        try:
            async with _naming_suspects(in_hand), translate_errors(_SERVICE):
                async for reply in call:
                    if reply.max_in_flight:
                        credits_.allow(reply.max_in_flight)
                    photo = in_hand.pop(reply.sequence, None)
                    if photo is None:
                        continue
                    answered += 1
                    credits_.give_back()
                    if reply.WhichOneof("outcome") == "failure":
                        _refuse_passing(reply.failure)
                    yield read(reply, photo)
        finally:
            call.cancel()
        if answered < len(photos):
            raise Unavailable(
                f"the detection service ended the stream with {len(photos) - answered} photos unanswered",
                reason=Reason.SERVICE_UNAVAILABLE,
            )


class Credits:
    """How many requests may be without a reply, as the server said last, and how many are.

    ``most`` is the client's own limit, if it has one.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._limit = 0
        self._used = 0
        self._changed = asyncio.Event()

    def allow(self, limit: int) -> None:
        """Set the server's limit."""
        self._limit = limit if self._most is None else min(limit, self._most)
        self._changed.set()

    async def take(self) -> None:
        """Wait until one more may be sent."""
        while self._used >= self._limit:
            self._changed.clear()
            await self._changed.wait()
        self._used += 1

    def give_back(self) -> None:
        """A reply has come."""
        self._used -= 1
        self._changed.set()


async def _requests(
    library_id: str,
    photos: Sequence[Photo],
    ask: Callable[[pb.DetectStreamRequest, Photo], None],
    credits_: Credits,
    in_hand: dict[int, Photo],
) -> AsyncIterator[pb.DetectStreamRequest]:
    """Ask for photo after photo as far as credits go; ``in_hand`` gets each before it is sent, by sequence."""
    for sequence, photo in enumerate(photos, start=1):
        await credits_.take()
        request = pb.DetectStreamRequest(library_id=library_id, sequence=sequence, include_embeddings=True)
        request.image.uri = photo.uri or ""
        ask(request, photo)
        in_hand[sequence] = photo
        yield request


@asynccontextmanager
async def _naming_suspects(in_hand: Mapping[int, PendingPhoto | PhotoFaces]) -> AsyncIterator[None]:
    """Tell a server that broke off with photos in hand from one that cannot be reached, or that is shutting down.

    Before its first message a server has nothing in hand, as it allows nothing before.
    """
    try:
        yield
    except Unavailable as error:
        if in_hand and error.reason is Reason.SERVICE_UNAVAILABLE:
            raise DetectorBroke([photo.asset_id for photo in in_hand.values()]) from error
        raise


def _refuse_passing(failure: types_pb2.ItemFailure) -> None:
    """Raise if a photo failed for what is not its own fault."""
    error: KithError
    if failure.reason == Reason.OVERLOADED:
        error = Overloaded(failure.message)
    elif failure.reason in _PASSING:
        error = Unavailable(failure.message, reason=Reason(failure.reason))
    else:
        return
    raise error
