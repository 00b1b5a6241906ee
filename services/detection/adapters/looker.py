"""A detection server as the worker uses it: photos by uri, through one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final, TypeVar
from uuid import UUID

import grpc.aio

from kith.common.v1 import types_pb2
from kith.detection.v1 import detection_pb2 as pb
from kith.detection.v1 import detection_pb2_grpc
from services.detection.convert.looks import from_model_info, from_reply, to_options
from services.detection.convert.migrations import from_measured, to_given_faces
from services.detection.domain.migration import (
    PhotoByFace,
    PhotoFaces,
    PhotoMeasure,
    PhotoMeasured,
    PhotoUnmeasured,
)
from services.detection.domain.model import OptionOverrides, PackDescription, PendingPhoto, PhotoLook
from services.detection.domain.ports import DetectorBroke
from shared.errors import DeadlineTooShort, KithError, Overloaded, Reason, Unavailable
from shared.rpc.channel import translate_errors

Photo = TypeVar("Photo", PendingPhoto, PhotoFaces)
Answer = TypeVar("Answer", PhotoLook, PhotoMeasured | PhotoUnmeasured)

ANSWER_S: Final = 5.0
"""A server answers from memory what it runs: one that takes longer hangs."""

_SERVICE: Final = "detection"
# The server's trouble, not the photo's: another try, later or elsewhere, will help.
_PASSING: Final = frozenset(
    {Reason.DRAINING, Reason.STORE_UNAVAILABLE, Reason.SERVICE_UNAVAILABLE, Reason.DEADLINE_TOO_SHORT}
)


class GrpcLooker:
    """:class:`PhotoLooker` and :class:`FaceMeasurer` over a channel to the detection service."""

    def __init__(self, channel: grpc.aio.Channel, answer_s: float = ANSWER_S) -> None:
        """``answer_s`` is how long the service may take to say what it runs."""
        self._stub = detection_pb2_grpc.DetectionServiceStub(channel)
        self._answer_s = answer_s

    async def describe_pack(self, library_id: str) -> PackDescription:
        """As :meth:`PhotoLooker.describe_pack`. A service that does not answer in time is away: :class:`Unavailable`."""
        try:
            async with translate_errors(_SERVICE):
                request = pb.GetModelInfoRequest(library_id=library_id)
                answer = await self._stub.GetModelInfo(request, timeout=self._answer_s)
        except DeadlineTooShort as error:
            message = f"the detection service did not say within {self._answer_s:g} s what model it runs"
            raise Unavailable(message, reason=Reason.SERVICE_UNAVAILABLE) from error
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

    async def measure(
        self, library_id: str, photos: Sequence[PhotoFaces], *, alone: bool = False
    ) -> AsyncGenerator[PhotoMeasure, None]:
        refused: list[PhotoFaces] = []
        async with aclosing(self._measure(library_id, photos, alone=alone)) as measures:
            async for measure in measures:
                if _is_wrong(measure) and len(measure.photo.faces) > 1:
                    refused.append(measure.photo)
                else:
                    yield measure
        if not refused:
            return
        # One face that cannot be asked for is no reason to leave out the others of its photo.
        async with aclosing(self._measure_by_face(library_id, refused, alone=alone)) as by_face:
            async for answers in by_face:
                yield answers

    async def _measure_by_face(
        self, library_id: str, photos: Sequence[PhotoFaces], *, alone: bool
    ) -> AsyncGenerator[PhotoByFace, None]:
        """Ask for the faces of some photos one by one; each photo comes once all of its faces are answered."""
        wholes: dict[UUID, tuple[PhotoFaces, list[PhotoMeasured | PhotoUnmeasured]]] = {}
        for photo in photos:
            wholes |= dict.fromkeys((face.face_id for face in photo.faces), (photo, []))
        singles = [replace(photo, faces=(face,)) for photo in photos for face in photo.faces]
        async with aclosing(self._measure(library_id, singles, alone=alone)) as measures:
            async for measure in measures:
                photo, answers = wholes[measure.photo.faces[0].face_id]
                answers.append(measure)
                if len(answers) == len(photo.faces):
                    yield PhotoByFace(photo, answers)

    def _measure(
        self, library_id: str, photos: Sequence[PhotoFaces], *, alone: bool
    ) -> AsyncGenerator[PhotoMeasured | PhotoUnmeasured, None]:
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


def _is_wrong(measure: PhotoMeasured | PhotoUnmeasured) -> bool:
    """Whether what was asked is wrong, by what is stored of a face: not the photo, nor the server."""
    return isinstance(measure, PhotoUnmeasured) and measure.reason == Reason.INVALID_FIELD


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
