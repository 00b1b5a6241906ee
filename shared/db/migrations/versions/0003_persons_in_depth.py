"""A ledger by faces, so that any change can be undone; choices of prototypes, doubles, matchers, receipts, names alike.

Revision: 0003, after 0002. Expand only: version N-1 runs beside it, while it is applied, too. So no statement of it both locks
a table against that version and takes long: every statement is a transaction of its own, indexes are built beside writers, what
there is is converted in batches. Broken off anywhere it is run again from the beginning, and does what is not done yet.

What N-1 writes into the ledger meanwhile, and until its last server is gone, keeps its old form, and is not undone. The persons
workers give positions. One thing N-1 does see: names get another order, so a page token from before may miss or repeat some.
To what N-1 writes of names and covers two triggers see; the version after this one drops them.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from shared.db.migrations.beside import create_index, run_together

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
BATCH = 5_000
PERSONS = sa.table(
    "persons",
    sa.column("person_id", sa.UUID()),
    sa.column("name_key", sa.Text()),
    sa.column("name_trigrams", postgresql.ARRAY(sa.Text())),
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _expand_tables()
        _create_tables()
        _follow_version_before()
        _create_indexes()
        _sort_names_by_code_point()
        op.execute("ALTER TABLE assignments VALIDATE CONSTRAINT ck_assignments_choice")
        _convert_ledger()
        _fill_covers()
        _fill_trigrams()


def downgrade() -> None:
    for trigger in ("persons_renamed_before", "persons_cover_before"):
        op.execute(f"DROP TRIGGER {trigger} ON persons")
        op.execute(f"DROP FUNCTION {trigger}()")
    for table in ("people_to_settle", "receipts", "matchers", "allowed_doubles", "change_exclusions", "change_faces"):
        op.drop_table(table)
    op.drop_index("ix_suggestions_moved", table_name="suggestions")
    op.drop_column("suggestions", "dormant")
    op.drop_column("suggestions", "moved_from")
    op.drop_constraint("ck_assignments_choice", "assignments")
    op.drop_column("assignments", "choice")
    for index in ("ix_changes_new", "uq_changes_position", "ix_changes_person"):
        op.drop_index(index, table_name="changes")
    op.drop_column("changes", "position")
    op.drop_column("changes", "face_count")
    op.drop_index("ix_persons_last_seen", table_name="persons")
    op.create_index("ix_persons_last_seen", "persons", ["library_id", "last_seen", "person_id"])
    op.alter_column("persons", "name_key", type_=sa.Text(), existing_nullable=False)
    op.drop_index("ix_persons_merged_into", table_name="persons")
    op.drop_index("ix_persons_name_trigrams", table_name="persons")
    op.drop_column("persons", "chosen_cover")
    op.drop_column("persons", "name_trigrams")
    op.execute(sa.schema.DropSequence(sa.Sequence("assignment_versions")))


def _expand_tables() -> None:
    """Columns that need no row to be written, one short lock for each table."""
    op.execute("CREATE SEQUENCE IF NOT EXISTS assignment_versions")
    op.execute(
        """
        SELECT setval('assignment_versions',
            greatest(nextval('assignment_versions'), (SELECT 1 + coalesce(max(version), 0) FROM assignments)))
        """
    )
    op.execute(
        """
        ALTER TABLE persons
            ADD COLUMN IF NOT EXISTS name_trigrams text[] DEFAULT '{}' NOT NULL,
            ADD COLUMN IF NOT EXISTS chosen_cover uuid
        """
    )
    op.execute(
        """
        ALTER TABLE changes
            ADD COLUMN IF NOT EXISTS face_count integer DEFAULT 0 NOT NULL,
            ADD COLUMN IF NOT EXISTS position bigint
        """
    )
    # Checked for what is written from now on; the rows that are there are looked at later, under a lock that lets others write.
    op.execute(
        f"""
        ALTER TABLE assignments
            ADD COLUMN IF NOT EXISTS choice text,
            DROP CONSTRAINT IF EXISTS ck_assignments_choice,
            ADD CONSTRAINT ck_assignments_choice CHECK ({_one_of("choice", "PINNED", "CHOSEN", "REFUSED")}) NOT VALID
        """
    )
    op.execute(
        """
        ALTER TABLE suggestions
            ADD COLUMN IF NOT EXISTS moved_from uuid,
            ADD COLUMN IF NOT EXISTS dormant boolean DEFAULT false NOT NULL
        """
    )


def _create_tables() -> None:
    op.create_table(
        "change_faces",
        sa.Column("change_id", sa.UUID(), nullable=False),
        sa.Column("face_id", sa.UUID(), nullable=False),
        sa.Column("before_person", sa.UUID(), nullable=True),
        sa.Column("before_source", sa.Text(), nullable=True),
        sa.Column("before_confidence", sa.REAL(), nullable=True),
        sa.Column("before_choice", sa.Text(), nullable=True),
        sa.Column("before_assigned_at", TIMESTAMP, nullable=True),
        sa.Column("after_person", sa.UUID(), nullable=True),
        sa.Column("after_source", sa.Text(), nullable=True),
        sa.Column("after_confidence", sa.REAL(), nullable=True),
        sa.Column("after_choice", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["change_id"], ["changes.change_id"], name=op.f("fk_change_faces_change_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("change_id", "face_id", name=op.f("pk_change_faces")),
        if_not_exists=True,
    )
    op.create_index("ix_change_faces_face", "change_faces", ["face_id"], if_not_exists=True)
    op.create_table(
        "change_exclusions",
        sa.Column("change_id", sa.UUID(), nullable=False),
        sa.Column("face_id", sa.UUID(), nullable=False),
        sa.Column("person_id", sa.UUID(), nullable=False),
        sa.Column("exclusion_id", sa.UUID(), nullable=False),
        sa.Column("made", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.ForeignKeyConstraint(
            ["change_id"], ["changes.change_id"], name=op.f("fk_change_exclusions_change_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("change_id", "face_id", "person_id", name=op.f("pk_change_exclusions")),
        if_not_exists=True,
    )
    op.create_index("ix_change_exclusions_face", "change_exclusions", ["face_id"], if_not_exists=True)
    op.create_table(
        "allowed_doubles",
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.ForeignKeyConstraint(
            ["library_id", "asset_id"],
            ["assets.library_id", "assets.asset_id"],
            name=op.f("fk_allowed_doubles_library_id_asset_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("library_id", "asset_id", name=op.f("pk_allowed_doubles")),
        if_not_exists=True,
    )
    op.create_table(
        "matchers",
        sa.Column("matcher_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("active", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("input_dimension", sa.Integer(), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("projection", sa.LargeBinary(), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("activated_at", TIMESTAMP, nullable=True),
        sa.PrimaryKeyConstraint("matcher_id", name=op.f("pk_matchers")),
        if_not_exists=True,
    )
    op.create_index("ix_matchers_page", "matchers", ["library_id", "matcher_id"], if_not_exists=True)
    op.create_index(
        "uq_matchers_active",
        "matchers",
        ["library_id"],
        unique=True,
        postgresql_where=sa.text("active"),
        if_not_exists=True,
    )
    op.create_table(
        "receipts",
        sa.Column("person_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("delete_faces", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("stores", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("completed_at", TIMESTAMP, nullable=True),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_receipts")),
        if_not_exists=True,
    )
    op.create_index("ix_receipts_library", "receipts", ["library_id"], if_not_exists=True)
    op.create_table(
        "people_to_settle",
        sa.Column("person_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("queued_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_people_to_settle")),
        if_not_exists=True,
    )
    op.create_index("ix_people_to_settle_queue", "people_to_settle", ["queued_at"], if_not_exists=True)


def _follow_version_before() -> None:
    """Keep right what N-1 does not know of.

    A name it has changed loses its trigrams, and one it has written has none: those the persons workers find and make, so that
    they are made by one program alone. A cover it has chosen, or handed back to the machine, becomes the choice; this version
    never writes ``cover_by_hand``, so its own choices are left alone. In the database, because afterwards nobody can tell whose
    word on a cover is the newer one.
    """
    op.execute(
        """
        CREATE OR REPLACE FUNCTION persons_renamed_before() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.name_key <> OLD.name_key AND NEW.name_trigrams = OLD.name_trigrams THEN
                NEW.name_trigrams := '{}';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    # Of the name, since a column that a trigger is of can get no other collation.
    op.execute(
        """
        CREATE OR REPLACE TRIGGER persons_renamed_before BEFORE UPDATE OF name ON persons FOR EACH ROW
        EXECUTE FUNCTION persons_renamed_before()
        """
    )
    op.execute(
        """
        CREATE OR REPLACE FUNCTION persons_cover_before() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.chosen_cover := CASE WHEN NEW.cover_by_hand THEN NEW.cover_face_id END;
            RETURN NEW;
        END $$
        """
    )
    # Settling anybody, N-1 writes the columns as they were.
    op.execute(
        """
        CREATE OR REPLACE TRIGGER persons_cover_before BEFORE UPDATE OF cover_by_hand ON persons FOR EACH ROW
        WHEN (NEW.cover_by_hand <> OLD.cover_by_hand
            OR NEW.cover_by_hand AND NEW.cover_face_id IS DISTINCT FROM OLD.cover_face_id)
        EXECUTE FUNCTION persons_cover_before()
        """
    )


def _create_indexes() -> None:
    create_index("ix_persons_name_trigrams", "persons USING gin (name_trigrams)")
    create_index("ix_persons_merged_into", "persons (merged_into) WHERE merged_into IS NOT NULL")
    create_index("ix_changes_person", "changes USING gin (person_ids)")
    create_index(
        "uq_changes_position", "changes (library_id, position) WHERE position IS NOT NULL", kind="UNIQUE INDEX"
    )
    create_index("ix_changes_new", "changes (library_id, sequence) WHERE position IS NULL")
    create_index("ix_suggestions_moved", "suggestions (moved_from) WHERE moved_from IS NOT NULL")
    # Those never seen have a place in it, so that it holds the order of a page.
    create_index("ix_persons_last_seen_next", "persons (library_id, coalesce(last_seen, '-infinity'), person_id)")
    run_together(
        "DROP INDEX IF EXISTS ix_persons_last_seen",
        "ALTER INDEX ix_persons_last_seen_next RENAME TO ix_persons_last_seen",
    )


def _sort_names_by_code_point() -> None:
    """Put names in the order of their code points, whatever the server's locale, so that the index finds their beginnings.

    The column's new collation is that of an index built before, which PostgreSQL then keeps as it is.
    """
    create_index("ix_persons_name_next", 'persons (library_id, name_key COLLATE "C", person_id)')
    run_together(
        "DROP INDEX IF EXISTS ix_persons_name",
        'ALTER TABLE persons ALTER COLUMN name_key TYPE text COLLATE "C"',
        "ALTER INDEX ix_persons_name_next RENAME TO ix_persons_name",
    )


def _convert_ledger() -> None:
    """Take the faces and exclusions out of the JSON of what was written before, and put persons under their ids.

    Of a person's fields those that changed are kept, and no cover: it was the one shown, and nobody need have chosen it.
    """
    bind = op.get_bind()
    values: dict[str, Any] = {
        "after": 0,
        "last": bind.scalar(sa.text("SELECT coalesce(max(sequence), 0) FROM changes")),
        "batch": BATCH,
    }
    while values["after"] is not None:
        values["after"] = bind.scalar(_CONVERT, values)


# A batch is one statement, and so converted as a whole or not at all; what has the new form already is passed over.
_CONVERT = sa.text(
    """
    WITH batch AS MATERIALIZED (
        SELECT * FROM changes WHERE sequence > :after AND sequence <= :last ORDER BY sequence LIMIT :batch
    ),
    old AS MATERIALIZED (
        SELECT change_id, kind, person_ids, face_ids, before, after,
            before - 'cover_face_id' AS fields_before, after - 'cover_face_id' AS fields_after
        FROM batch
        WHERE (kind IN ('PERSON_CREATED', 'PERSON_UPDATED') AND after ? 'name')
            OR (kind IN ('FACES_ASSIGNED', 'FACES_UNASSIGNED', 'FACE_EXCLUDED') AND before ? 'assignments')
    ),
    faces AS (
        INSERT INTO change_faces (change_id, face_id, before_person, before_source, before_confidence,
            after_person, after_source, after_confidence)
        SELECT old.change_id, face.face_id,
            (held.value ->> 'person_id')::uuid, held.value ->> 'source', (held.value ->> 'confidence')::real,
            (got.value ->> 'person_id')::uuid, got.value ->> 'source', (got.value ->> 'confidence')::real
        FROM old
        CROSS JOIN LATERAL unnest(old.face_ids) AS face (face_id)
        LEFT JOIN LATERAL jsonb_array_elements(old.before -> 'assignments') AS held (value)
            ON (held.value ->> 'face_id')::uuid = face.face_id
        LEFT JOIN LATERAL jsonb_array_elements(old.after -> 'assignments') AS got (value)
            ON (got.value ->> 'face_id')::uuid = face.face_id
        WHERE old.before ? 'assignments' AND NOT (held.value IS NULL AND got.value IS NULL)
        ON CONFLICT DO NOTHING
    ),
    excluded AS (
        INSERT INTO change_exclusions (change_id, face_id, person_id, exclusion_id, made, created_by, created_at)
        SELECT e.change_id, e.face_id, e.person_id, e.exclusion_id, true, e.created_by, e.created_at
        FROM exclusions AS e JOIN old ON old.change_id = e.change_id
        ON CONFLICT DO NOTHING
    ),
    converted AS (
        UPDATE changes SET
            face_count = cardinality(old.face_ids),
            before = CASE old.kind
                WHEN 'PERSON_CREATED' THEN
                    jsonb_build_object('persons', jsonb_build_object(old.person_ids[1], '{"deleted": true}'::jsonb))
                WHEN 'PERSON_UPDATED' THEN jsonb_build_object('persons', jsonb_build_object(old.person_ids[1], (
                    SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(fields_before)
                    WHERE value IS DISTINCT FROM fields_after -> key)))
                ELSE '{}' END,
            after = CASE old.kind
                WHEN 'PERSON_CREATED' THEN
                    jsonb_build_object('persons', jsonb_build_object(old.person_ids[1], fields_after || '{"deleted": false}'))
                WHEN 'PERSON_UPDATED' THEN jsonb_build_object('persons', jsonb_build_object(old.person_ids[1], (
                    SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(fields_after)
                    WHERE value IS DISTINCT FROM fields_before -> key)))
                ELSE '{}' END
        FROM old
        WHERE old.change_id = changes.change_id
    )
    SELECT max(sequence) FROM batch
    """
)


def _fill_covers() -> None:
    """Make the covers that are by hand the chosen ones, for those who have chosen none since."""
    chosen = sa.text(
        """
        UPDATE persons SET chosen_cover = cover_face_id
        WHERE person_id IN (
            SELECT person_id FROM persons WHERE cover_by_hand AND chosen_cover IS NULL AND cover_face_id IS NOT NULL
            LIMIT :batch
        )
        """
    )
    while op.get_bind().execute(chosen, {"batch": BATCH}).rowcount == BATCH:
        pass


def _fill_trigrams() -> None:
    """As services.persons.domain.naming makes them; written out here, since a migration must not change with the code.

    A name that is changed at this moment is left to the persons workers.
    """
    bind = op.get_bind()
    empty = sa.select(PERSONS.c.person_id, PERSONS.c.name_key).where(PERSONS.c.name_trigrams == [])
    fill = (
        PERSONS.update()
        .where(PERSONS.c.person_id == sa.bindparam("id"), PERSONS.c.name_key == sa.bindparam("key"))
        .values(name_trigrams=sa.bindparam("trigrams"))
    )
    page = empty.order_by(PERSONS.c.person_id).limit(BATCH)
    while rows := bind.execute(page).all():
        bind.execute(
            fill, [{"id": row.person_id, "key": row.name_key, "trigrams": _trigrams(row.name_key)} for row in rows]
        )
        page = page.where(PERSONS.c.person_id > rows[-1].person_id)


def _trigrams(name_key: str) -> list[str]:
    found = set()
    for word in "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in name_key).split():
        padded = f"  {word} "
        found |= {padded[at : at + 3] for at in range(len(padded) - 2)}
    return sorted(found)


def _one_of(column: str, *values: str) -> str:
    words = ", ".join(f"'{value}'" for value in values)
    return f"{column} IN ({words})"
