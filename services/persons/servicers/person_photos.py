"""PersonService's calls that change whose the faces in photos are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kith.persons.v1 import persons_pb2 as pb
from services.persons.domain.model import PersonsDeps
from services.persons.domain.photos import MovePhotos, RemovePhotos, move_photos, remove_photos
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import InvalidRequest
from shared.ids import parse_asset_id, parse_library_id, parse_uuid
from shared.jobs.convert import to_failure
from shared.rpc.mutation import Mutations

MAX_PHOTOS: Final = 500


async def remove_person_photos(
    mutations: Mutations, deps: PersonsDeps, request: pb.RemovePersonPhotosRequest
) -> pb.RemovePersonPhotosResponse:
    """Answer RemovePersonPhotos."""
    command = RemovePhotos(
        library_id=parse_library_id(request.library_id),
        person_id=parse_uuid(request.person_id, "person_id"),
        asset_ids=parse_photos(request.asset_ids),
    )

    async def work(tx: Transaction, caller: Caller) -> pb.RemovePersonPhotosResponse:
        made = await remove_photos(tx, deps, command, caller)
        return pb.RemovePersonPhotosResponse(
            faces_unassigned=made.faces_unassigned, change_id=_tell_change(made.change_id, request.dry_run)
        )

    return await mutations.run(request, pb.RemovePersonPhotosResponse, work, dry_run=request.dry_run)


async def move_person_photos(
    mutations: Mutations, deps: PersonsDeps, request: pb.MovePersonPhotosRequest
) -> pb.MovePersonPhotosResponse:
    """Answer MovePersonPhotos."""
    target = request.WhichOneof("target")
    if target is None:
        raise InvalidRequest("target_person_id or target_person_name is required", field="target_person_id")
    named = target == "target_person_name"
    command = MovePhotos(
        library_id=parse_library_id(request.library_id),
        person_id=parse_uuid(request.person_id, "person_id"),
        asset_ids=parse_photos(request.asset_ids),
        target_id=None if named else parse_uuid(request.target_person_id, "target_person_id"),
        target_name=request.target_person_name,
    )

    async def work(tx: Transaction, caller: Caller) -> pb.MovePersonPhotosResponse:
        made = await move_photos(tx, deps, command, caller)
        # Of a dry run nothing is left that an id could name.
        known = made.target_id is not None and not (request.dry_run and made.target_created)
        return pb.MovePersonPhotosResponse(
            target_person_id=str(made.target_id) if known else "",
            faces_moved=made.faces_moved,
            change_id=_tell_change(made.change_id, request.dry_run),
            failures=[to_failure(failure) for failure in made.failures],
            target_created=made.target_created,
        )

    return await mutations.run(request, pb.MovePersonPhotosResponse, work, dry_run=request.dry_run)


def parse_photos(asset_ids: Sequence[str]) -> list[str]:
    """A request's photos; raises :class:`InvalidRequest` for none, too many, or an id that is none."""
    if not 1 <= len(asset_ids) <= MAX_PHOTOS:
        raise InvalidRequest(f"asset_ids must hold 1..{MAX_PHOTOS} ids", field="asset_ids")
    return [parse_asset_id(asset_id, f"asset_ids[{index}]") for index, asset_id in enumerate(asset_ids)]


def _tell_change(change_id: object, dry_run: bool) -> str:
    return "" if dry_run or change_id is None else str(change_id)
