"""The photos of a person, by capture date, each once and with the person's boxes in it.

There are two ways to a page. Reading all of the person's faces and sorting their photos is cheap as long as they are few. For a
person with many faces it is not, but such a person is in many of the library's photos: so those are walked by date from the
page's place on, by an index, and the first that show the person are taken. Where that does not fill the page within its stride
(the person is in few of the photos around) the same statement sorts after all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Row

from services.persons.domain.model import Person, PersonPhoto, PhotoFace
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, make_page
from shared.faces.boxes import Box

WALK_FROM_FACES = 5_000
STRIDE = 50
"""Photos walked at most, for each one of the page."""

_UNDATED = datetime(1, 1, 1, tzinfo=UTC)


async def list_photos(
    tx: Transaction, person: Person, request: PageRequest, walk_from_faces: int = WALK_FROM_FACES
) -> Page[PersonPhoto]:
    """Photos with ACTIVE faces of the person; those without a capture date come last. One statement."""
    values: dict[str, Any] = {
        "library_id": person.library_id,
        "person_id": person.person_id,
        "room": request.size + 1,
    }
    place = "start"
    if request.after is not None:
        undated, captured_at, values["asset_id"] = request.after
        place = "undated" if undated else "dated"
        if not undated:
            values["captured_at"] = captured_at
    walk = person.face_count >= walk_from_faces
    if walk:
        values["stride"] = STRIDE * (request.size + 1)
    rows = await tx.rows(_make_statement(place, walk), values)
    return make_page(
        rows, request, _photo, lambda row: [int(row.captured_at is None), row.captured_at or _UNDATED, row.asset_id]
    )


@cache
def _make_statement(place: str, walk: bool) -> TextClause:
    sort = _SORT.format(columns=_COLUMNS, after=_AFTER[place])
    if walk:
        photos = _WALK_OR_SORT.format(columns=_COLUMNS, after=_AFTER_IN_WALK[place], sort=sort)
    else:
        photos = f"WITH photos AS MATERIALIZED ({sort} LIMIT :room)"
    return text(
        f"{photos} SELECT photos.*, shown.* FROM photos"
        f" CROSS JOIN LATERAL ({_FACES.format(photo='photos')}) AS shown ORDER BY captured_at NULLS LAST, asset_id"
    )


_COLUMNS = "assets.asset_id, assets.captured_at, assets.captured_precision, assets.captured_offset"

# What comes after the page's place; of the photos that are walked, only as far as those with a date or those without go.
_LATER = "(assets.captured_at, assets.asset_id) > (:captured_at, :asset_id)"
_UNDATED_LATER = "AND assets.captured_at IS NULL AND assets.asset_id > :asset_id"
_AFTER = {"start": "", "dated": f"AND ({_LATER} OR assets.captured_at IS NULL)", "undated": _UNDATED_LATER}
_AFTER_IN_WALK = {"start": "AND assets.captured_at IS NOT NULL", "dated": f"AND {_LATER}", "undated": _UNDATED_LATER}

# The person's faces in one photo. The person is asked of each face, and not joined: nobody knows the person's faces in this
# photo but by the photo, and a plan made for persons with few faces would look through all of them for every photo.
_FACES = """
    SELECT array_agg(face_id ORDER BY face_id) AS face_ids, array_agg(box_x ORDER BY face_id) AS lefts,
        array_agg(box_y ORDER BY face_id) AS tops, array_agg(box_width ORDER BY face_id) AS widths,
        array_agg(box_height ORDER BY face_id) AS heights
    FROM faces
    WHERE library_id = :library_id AND asset_id = {photo}.asset_id AND state = 'ACTIVE'
        AND (SELECT person_id FROM assignments WHERE assignments.face_id = faces.face_id) = :person_id
    HAVING count(*) > 0
"""

_SORT = """
    SELECT DISTINCT {columns}
    FROM assignments
    JOIN faces ON faces.face_id = assignments.face_id
    JOIN assets ON assets.library_id = faces.library_id AND assets.asset_id = faces.asset_id
    WHERE assignments.person_id = :person_id AND assets.library_id = :library_id AND faces.state = 'ACTIVE' {after}
    ORDER BY assets.captured_at NULLS LAST, assets.asset_id
"""

_WALK_OR_SORT = """
    WITH walked AS MATERIALIZED (
        SELECT walk.* FROM (
            SELECT {columns} FROM assets WHERE assets.library_id = :library_id {after}
            ORDER BY assets.captured_at NULLS LAST, assets.asset_id LIMIT :stride
        ) AS walk
        WHERE EXISTS (
            SELECT FROM faces
            WHERE faces.library_id = :library_id AND faces.asset_id = walk.asset_id AND faces.state = 'ACTIVE'
                AND (SELECT person_id FROM assignments WHERE assignments.face_id = faces.face_id) = :person_id
            OFFSET 0
        )
        ORDER BY captured_at NULLS LAST, asset_id LIMIT :room
    ), sorted AS MATERIALIZED (
        {sort} LIMIT CASE WHEN (SELECT count(*) FROM walked) < :room THEN :room ELSE 0 END
    ), photos AS (
        SELECT * FROM walked WHERE (SELECT count(*) FROM walked) >= :room UNION ALL SELECT * FROM sorted
    )
"""


def _photo(row: Row[Any]) -> PersonPhoto:
    columns: Sequence[Sequence[Any]] = (row.face_ids, row.lefts, row.tops, row.widths, row.heights)
    return PersonPhoto(
        asset_id=row.asset_id,
        captured_at=row.captured_at,
        precision=row.captured_precision,
        utc_offset_minutes=row.captured_offset,
        faces=[PhotoFace(face_id, Box(*box)) for face_id, *box in zip(*columns, strict=True)],
    )
