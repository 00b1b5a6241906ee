"""What version N-1 has written is there after the upgrade, in the new form; what it writes beside this one is kept right."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Table, func, insert, select, text, update

from services.persons.domain.fields import Fields
from services.persons.domain.model import PersonsDeps
from services.persons.domain.naming import make_name_key, make_trigrams
from services.persons.domain.undoing import ChangeUndone, Undo, undo_change
from services.persons.repository.ledger_positions import number_changes
from services.persons.trigrams import fill_missing_trigrams
from shared.caller import Caller
from shared.config import Settings
from shared.db.schema import metadata
from shared.db.tables_persons import assignments, change_exclusions, change_faces, changes, exclusions, persons
from shared.db.tables_suggestions import discovery_settings
from shared.foundation import Foundation, open_foundation
from shared.migrate import migrate_database
from tests.integration.conftest import Stores, eventually
from tests.integration.library import random_vectors, seed_faces
from tests.integration.waiting import somebody_waits

BEFORE = "0002"
ANNA, BERT = UUID(int=1), UUID(int=2)
CREATED, RENAMED, GIVEN, ASSIGNED, TAKEN, EXCLUDED = (UUID(int=1000 + number) for number in range(6))


@pytest.fixture
async def base(settings: Settings, stores: Stores, stack: AsyncExitStack) -> AsyncIterator[Foundation]:
    """A foundation over a database of version N-1."""
    name = f"kith_{secrets.token_hex(6)}"
    await stores.execute(f"CREATE DATABASE {name}")
    database = settings.database.model_validate({"url": stores.database(name), "pool_size": 5})
    await migrate_database(database, BEFORE)
    yield await open_foundation(settings.model_copy(update={"database": database}), stack, "test")
    await stack.aclose()
    await stores.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def face_ids(base: Foundation) -> list[UUID]:
    """What N-1 has written: Anna was renamed, and has of four faces one that was Bert's; one is nobody's, and not Anna."""
    face_ids = (await seed_faces(base, random_vectors(4), with_collections=False)).face_ids
    first, second, third, fourth = face_ids
    was: Fields = {
        "name": "Ana",
        "status": "ACTIVE",
        "birth_date": None,
        "cover_face_id": None,
        "notes": "",
        "external_ids": {},
    }
    now = {
        **was,
        "name": "Anna  Ö.",
        "cover_face_id": str(first),
        "birth_date": {"date": "1950-01-01", "precision": "YEAR"},
    }
    await write(base, persons, person_id=BERT, **name_as_before("Bert"), created_at=None, updated_at=None)
    await write(
        base,
        persons,
        person_id=ANNA,
        **name_as_before("Anna  Ö."),
        birth_year=1950,
        face_count=2,
        cover_face_id=first,
        cover_by_hand=True,
        created_at=None,
        updated_at=None,
    )
    bert, anna = hold(second, BERT), [hold(face_id, ANNA) for face_id in (first, second)]
    await enter(base, CREATED, "PERSON_CREATED", [ANNA], [], {}, was)
    await enter(base, RENAMED, "PERSON_UPDATED", [ANNA], [], was, now)
    await enter(base, GIVEN, "FACES_ASSIGNED", [BERT], [second], {"assignments": []}, {"assignments": [bert]})
    await enter(
        base, ASSIGNED, "FACES_ASSIGNED", [ANNA, BERT], [first, second], {"assignments": [bert]}, {"assignments": anna}
    )
    taken = {"assignments": [hold(third, ANNA)]}
    await enter(base, TAKEN, "FACES_UNASSIGNED", [ANNA], [third], taken, {"excluded": True})
    await enter(base, EXCLUDED, "FACE_EXCLUDED", [BERT], [fourth], {"assignments": []}, {"excluded": True})
    for face_id in (first, second):
        held = {"source": "HUMAN", "confidence": 1.0, "version": 7, "change_id": ASSIGNED, "assigned_at": None}
        await write(base, assignments, face_id=face_id, person_id=ANNA, **held)
    for face_id, person_id, change_id in ((third, ANNA, TAKEN), (fourth, BERT, EXCLUDED)):
        made = {"created_by": "eve", "change_id": change_id, "created_at": None}
        await write(base, exclusions, exclusion_id=base.ids.new_uuid(), face_id=face_id, person_id=person_id, **made)
    return face_ids


def name_as_before(name: str) -> dict[str, str]:
    return {"name": name, "name_key": make_name_key(name)}


def hold(face_id: UUID, person_id: UUID) -> dict[str, Any]:
    """An assignment as N-1 describes it."""
    return {"face_id": str(face_id), "person_id": str(person_id), "source": "HUMAN", "confidence": 1.0, "version": 3}


async def write(base: Foundation, table: Table, **row: Any) -> None:
    """Add a row with these columns and no others; a time that is None is now."""
    now = {name: base.clock.now() for name, value in row.items() if name.endswith("_at") and value is None}
    async with base.database.transaction() as tx:
        await tx.execute(insert(table).values({"library_id": "default", **row, **now}))


async def enter(
    base: Foundation,
    change_id: UUID,
    kind: str,
    person_ids: list[UUID],
    face_ids: list[UUID],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> None:
    """Write into the ledger as N-1 does."""
    await write(
        base,
        changes,
        change_id=change_id,
        kind=kind,
        actor="eve",
        rpc="test",
        person_ids=person_ids,
        face_ids=face_ids,
        before=before,
        after=after,
        created_at=None,
    )


async def upgrade(base: Foundation, revision: str = "head") -> None:
    await migrate_database(base.settings.database, revision)


async def undo(base: Foundation, change_id: UUID) -> ChangeUndone:
    deps = PersonsDeps(base.clock, base.ids, base.settings.persons)
    async with base.database.transaction() as tx:
        return await undo_change(tx, deps, Undo("default", change_id), Caller("test", "test", ""))


async def read(base: Foundation, person_id: UUID) -> Any:
    async with base.database.transaction() as tx:
        return await tx.one_or_none(select(persons).where(persons.c.person_id == person_id))


async def test_the_ledger_has_the_new_form(base: Foundation, face_ids: list[UUID]) -> None:
    await upgrade(base)
    await number_changes(base.database, "default")
    first, second, third, fourth = face_ids
    async with base.database.transaction() as tx:
        entries = await tx.rows(select(changes).order_by(changes.c.sequence))
        moved = await tx.rows(select(change_faces))
        excluded = await tx.rows(select(change_exclusions))
    assert [entry.position for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert [entry.face_count for entry in entries] == [0, 0, 1, 2, 1, 1]
    anna = str(ANNA)
    made: Fields = {
        "name": "Ana",
        "status": "ACTIVE",
        "birth_date": None,
        "notes": "",
        "external_ids": {},
        "deleted": False,
    }
    assert [(entry.before, entry.after) for entry in entries[:2]] == [
        ({"persons": {anna: {"deleted": True}}}, {"persons": {anna: made}}),
        (
            {"persons": {anna: {"name": "Ana", "birth_date": None}}},
            {"persons": {anna: {"name": "Anna  Ö.", "birth_date": {"date": "1950-01-01", "precision": "YEAR"}}}},
        ),
    ]
    assert all((entry.before, entry.after) == ({}, {}) for entry in entries[2:])
    assert {(row.change_id, row.face_id, row.before_person, row.after_person) for row in moved} == {
        (GIVEN, second, None, BERT),
        (ASSIGNED, first, None, ANNA),
        (ASSIGNED, second, BERT, ANNA),
        (TAKEN, third, ANNA, None),
    }
    assert {(row.change_id, row.face_id, row.person_id, row.made, row.created_by) for row in excluded} == {
        (TAKEN, third, ANNA, True, "eve"),
        (EXCLUDED, fourth, BERT, True, "eve"),
    }


async def test_people_have_trigrams_and_the_covers_they_were_given(base: Foundation, face_ids: list[UUID]) -> None:
    await upgrade(base)
    anna, bert = await read(base, ANNA), await read(base, BERT)
    assert (anna.name_trigrams, anna.chosen_cover) == (make_trigrams(make_name_key("Anna  Ö.")), face_ids[0])
    assert (bert.name_trigrams, bert.chosen_cover) == (make_trigrams("bert"), None)


async def test_what_was_done_before_can_be_undone(base: Foundation, face_ids: list[UUID]) -> None:
    await upgrade(base)
    undone = await undo(base, ASSIGNED)
    assert (undone.reverted, undone.skipped) == (2, [])
    async with base.database.transaction() as tx:
        held = await tx.rows(select(assignments.c.face_id, assignments.c.person_id))
    assert [tuple(row) for row in held] == [(face_ids[1], BERT)]
    undone = await undo(base, RENAMED)
    assert (undone.reverted, undone.skipped) == (1, [])
    anna = await read(base, ANNA)
    assert (anna.name, anna.birth_year, anna.chosen_cover) == ("Ana", None, face_ids[0])
    for change_id, excluded in ((TAKEN, 1), (EXCLUDED, 0)):
        assert (await undo(base, change_id)).skipped == []
        async with base.database.transaction() as tx:
            assert await tx.scalar(select(func.count()).select_from(exclusions)) == excluded
    assert (await undo(base, CREATED)).skipped != [], "she has a face again"


async def test_an_upgrade_that_broke_off_goes_on(base: Foundation, face_ids: list[UUID]) -> None:
    await upgrade(base, "0003")
    # As if it had broken off while it built an index, with half of the work done.
    async with base.database.transaction() as tx:
        for statement in (
            "UPDATE alembic_version SET version_num = '0002'",
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_persons_name_trigrams'::regclass",
            "UPDATE persons SET name_trigrams = '{}', chosen_cover = NULL",
            "DROP TABLE people_to_settle",
            "ALTER TABLE suggestions DROP COLUMN dormant",
        ):
            await tx.execute(text(statement))
        entries = select(changes.c.before, changes.c.after, changes.c.face_count).order_by(changes.c.sequence)
        seen = await tx.rows(entries)
    late = UUID(int=2000)
    shown = {"name": "Bert", "status": "ACTIVE"}
    await enter(base, late, "PERSON_CREATED", [BERT], [], {}, shown)
    await upgrade(base)
    async with base.database.engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    async with base.database.transaction() as tx:
        *kept, converted = await tx.rows(entries)
        spoilt = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
        assert await tx.scalar(text(spoilt)) == 0
    assert kept == seen
    assert converted.after == {"persons": {str(BERT): {**shown, "deleted": False}}}
    anna = await read(base, ANNA)
    assert (anna.name_trigrams, anna.chosen_cover) == (make_trigrams(make_name_key("Anna  Ö.")), face_ids[0])


async def test_tables_that_were_made_before_it_broke_off_are_left_as_they_are(base: Foundation) -> None:
    await upgrade(base)
    await write(base, discovery_settings, library_id="other", auto_find_more_after=0, updated_at=None, updated_by="eve")
    async with base.database.transaction() as tx:
        await tx.execute(text("UPDATE alembic_version SET version_num = '0005'"))
        await tx.execute(text("DROP TABLE auto_finds"))
    await upgrade(base)
    async with base.database.engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(discovery_settings.c.library_id)) == "other"


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "target_metadata": metadata})
    return list(compare_metadata(context, metadata))


async def test_the_version_before_goes_on_writing_while_the_ledger_is_converted(
    base: Foundation, face_ids: list[UUID]
) -> None:

    same = "library_id, kind, actor, rpc, person_ids, face_ids, before, after, created_at"
    async with base.database.transaction() as holder:
        # Nothing but the conversion looks at this table.
        await holder.execute(text("LOCK TABLE exclusions IN ACCESS EXCLUSIVE MODE"))
        upgrading = asyncio.create_task(upgrade(base))
        await eventually(lambda: somebody_waits(base, table="exclusions"))
        async with base.database.transaction() as tx:
            await tx.execute(text("SET LOCAL lock_timeout = '300ms'"))
            for statement in (
                "UPDATE persons SET notes = 'meanwhile'",
                "UPDATE assignments SET confidence = 0.5",
                "UPDATE suggestions SET state = state",
                f"INSERT INTO changes (change_id, {same}) SELECT gen_random_uuid(), {same} FROM changes",
            ):
                await tx.execute(text(statement))
    await upgrading
    assert (await read(base, BERT)).notes == "meanwhile"
    async with base.database.transaction() as tx:
        written = select(changes.c.before.has_key("assignments")).order_by(changes.c.sequence)
        assert [row[0] for row in await tx.rows(written)] == [False] * 8 + [True] * 4
        # Another index than one built under that lock, as PostgreSQL names the file of each after the index it was built for.
        node = "SELECT pg_relation_filenode('ix_persons_name') <> 'ix_persons_name'::regclass::oid"
        assert await tx.scalar(text(node))


async def test_names_and_covers_that_the_version_before_writes_beside_this_one_are_found(
    base: Foundation, face_ids: list[UUID]
) -> None:
    await upgrade(base)
    carl = UUID(int=3)
    await write(base, persons, person_id=carl, **name_as_before("Carl"), created_at=None, updated_at=None)
    await write(base, persons, person_id=UUID(int=4), **name_as_before("..."), created_at=None, updated_at=None)
    await change(base, ANNA, **name_as_before("Hannah"))
    assert ((await read(base, ANNA)).name_trigrams, (await read(base, carl)).name_trigrams) == ([], [])
    await fill_missing_trigrams(base.database)
    assert (await read(base, ANNA)).name_trigrams == make_trigrams("hannah")
    assert (await read(base, carl)).name_trigrams == make_trigrams("carl")
    # It chooses a cover, settles her as she is, and hands the choice back.
    await change(base, ANNA, cover_face_id=face_ids[1], cover_by_hand=True)
    assert (await read(base, ANNA)).chosen_cover == face_ids[1]
    # What this version chooses, or chooses no longer, stays so when the one before settles.
    for chosen in (face_ids[0], None):
        await change(base, ANNA, chosen_cover=chosen)
        await change(base, ANNA, cover_face_id=face_ids[1], cover_by_hand=True)
        assert (await read(base, ANNA)).chosen_cover == chosen
    await change(base, ANNA, cover_face_id=face_ids[0], cover_by_hand=False)
    assert (await read(base, ANNA)).chosen_cover is None


async def change(base: Foundation, person_id: UUID, **columns: Any) -> None:
    async with base.database.transaction() as tx:
        await tx.execute(update(persons).where(persons.c.person_id == person_id).values(columns))
