"""A detection server as the worker uses it: photos by uri, through one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import grpc.aio

from kith.detection.v1 import detection_pb2 as pb
from kith.detection.v1 import detection_pb2_grpc
from services.detection.convert.looks import from_model_info, from_reply, to_options
from services.detection.domain.model import OptionOverrides, PackDescription, PendingPhoto, PhotoFailed, PhotoLook
from shared.errors import KithError, Overloaded, Reason, Unavailable
from shared.rpc.channel import translate_errors

_SERVICE: Final = "detection"
# The server's trouble, not the photo's: another try, later or elsewhere, will help.
_PASSING: Final = frozenset(
    {Reason.DRAINING, Reason.STORE_UNAVAILABLE, Reason.SERVICE_UNAVAILABLE, Reason.DEADLINE_TOO_SHORT}
)


class GrpcLooker:
    """:class:`PhotoLooker` over a channel to the detection service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = detection_pb2_grpc.DetectionServiceStub(channel)

    async def describe_pack(self, library_id: str) -> PackDescription:
        async with translate_errors(_SERVICE):
            answer = await self._stub.GetModelInfo(pb.GetModelInfoRequest(library_id=library_id))
        return from_model_info(answer.model)

    async def look_at(
        self, library_id: str, photos: Sequence[PendingPhoto], options: OptionOverrides
    ) -> AsyncGenerator[PhotoLook, None]:
        credits_ = Credits()
        waiting = dict(enumerate(photos, start=1))
        call = self._stub.DetectStream(_requests(library_id, waiting, options, credits_))
        begun = False
        try:
            async with _counting_breaks(lambda: begun), translate_errors(_SERVICE):
                async for reply in call:
                    begun = True
                    if reply.max_in_flight:
                        credits_.allow(reply.max_in_flight)
                    photo = waiting.pop(reply.sequence, None)
                    if photo is None:
                        continue
                    credits_.give_back()
                    look = from_reply(reply, photo.asset_id)
                    if isinstance(look, PhotoFailed):
                        _refuse_passing(look)
                    yield look
        finally:
            call.cancel()
        if waiting:
            raise Unavailable(
                f"the detection service ended the stream with {len(waiting)} photos unanswered",
                reason=Reason.SERVICE_UNAVAILABLE,
            )


class Credits:
    """How many requests may be without a reply, as the server said last, and how many are."""

    def __init__(self) -> None:
        self._limit = 0
        self._used = 0
        self._changed = asyncio.Event()

    def allow(self, limit: int) -> None:
        """Set the limit."""
        self._limit = limit
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
    library_id: str, photos: dict[int, PendingPhoto], options: OptionOverrides, credits_: Credits
) -> AsyncIterator[pb.DetectStreamRequest]:
    for sequence, photo in list(photos.items()):
        await credits_.take()
        request = pb.DetectStreamRequest(
            library_id=library_id, sequence=sequence, options=to_options(options), include_embeddings=True
        )
        request.image.uri = photo.uri or ""
        yield request


@asynccontextmanager
async def _counting_breaks(begun: Callable[[], bool]) -> AsyncIterator[None]:
    """Tell a server that cannot be reached, which is waited for, from one that broke off in the middle.

    The latter may be a photo's doing, so it comes as INTERNAL: tried again, but not for ever.
    """
    try:
        yield
    except Unavailable as error:
        if begun() and error.reason is Reason.SERVICE_UNAVAILABLE:
            raise KithError("the detection service broke off in the middle of a photo") from error
        raise


def _refuse_passing(look: PhotoFailed) -> None:
    """Raise if a photo failed for what is not its own fault."""
    error: KithError
    if look.reason == Reason.OVERLOADED:
        error = Overloaded(look.message)
    elif look.reason in _PASSING:
        error = Unavailable(look.message, reason=Reason(look.reason))
    else:
        return
    raise error
