"""A ledger by faces, so that any change can be undone; choices of prototypes, doubles, matchers, receipts, names alike.

Revision: 0003, after 0002. Expand only: version N-1 must run beside it. What N-1 writes into the ledger meanwhile keeps its
old form, and is not undone.
"""

from __future__ import annotations

import unicodedata

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
BATCH = 5_000


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("assignment_versions")))
    op.execute("SELECT setval('assignment_versions', 1 + (SELECT coalesce(max(version), 0) FROM assignments))")
    _expand_tables()
    _create_tables()
    _convert_ledger()
    _fill_trigrams()


def downgrade() -> None:
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
    texts = postgresql.ARRAY(sa.Text())
    op.add_column("persons", sa.Column("name_trigrams", texts, server_default="{}", nullable=False))
    op.create_index("ix_persons_name_trigrams", "persons", ["name_trigrams"], postgresql_using="gin")
    op.add_column("persons", sa.Column("chosen_cover", sa.UUID(), nullable=True))
    op.execute("UPDATE persons SET chosen_cover = cover_face_id WHERE cover_by_hand")
    # Names in the order of their code points, whatever the server's locale: so that beginnings of names are found by the index.
    op.alter_column("persons", "name_key", type_=sa.Text(collation="C"), existing_nullable=False)
    # Those never seen have a place in it, so that it holds the order of a page.
    op.drop_index("ix_persons_last_seen", table_name="persons")
    op.create_index(
        "ix_persons_last_seen", "persons", ["library_id", sa.text("coalesce(last_seen, '-infinity')"), "person_id"]
    )
    op.create_index(
        "ix_persons_merged_into", "persons", ["merged_into"], postgresql_where=sa.text("merged_into IS NOT NULL")
    )
    op.add_column("changes", sa.Column("face_count", sa.Integer(), server_default="0", nullable=False))
    op.add_column("changes", sa.Column("position", sa.BigInteger(), nullable=True))
    op.create_index("ix_changes_person", "changes", ["person_ids"], postgresql_using="gin")
    op.create_index(
        "uq_changes_position",
        "changes",
        ["library_id", "position"],
        unique=True,
        postgresql_where=sa.text("position IS NOT NULL"),
    )
    op.create_index(
        "ix_changes_new", "changes", ["library_id", "sequence"], postgresql_where=sa.text("position IS NULL")
    )
    op.add_column("assignments", sa.Column("choice", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_assignments_choice"), "assignments", _one_of("choice", "PINNED", "CHOSEN", "REFUSED")
    )
    op.add_column("suggestions", sa.Column("moved_from", sa.UUID(), nullable=True))
    op.add_column("suggestions", sa.Column("dormant", sa.Boolean(), server_default="false", nullable=False))
    op.create_index(
        "ix_suggestions_moved", "suggestions", ["moved_from"], postgresql_where=sa.text("moved_from IS NOT NULL")
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
    )
    op.create_index("ix_change_faces_face", "change_faces", ["face_id"])
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
    )
    op.create_index("ix_change_exclusions_face", "change_exclusions", ["face_id"])
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
    )
    op.create_index("ix_matchers_page", "matchers", ["library_id", "matcher_id"])
    op.create_index("uq_matchers_active", "matchers", ["library_id"], unique=True, postgresql_where=sa.text("active"))
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
    )
    op.create_index("ix_receipts_library", "receipts", ["library_id"])
    op.create_table(
        "people_to_settle",
        sa.Column("person_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("queued_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_people_to_settle")),
    )
    op.create_index("ix_people_to_settle_queue", "people_to_settle", ["queued_at"])


def _convert_ledger() -> None:
    """Take the faces and exclusions out of the JSON of what was written before, and put persons under their ids; number it."""
    op.execute(
        """
        INSERT INTO change_faces (change_id, face_id, before_person, before_source, before_confidence,
            after_person, after_source, after_confidence)
        SELECT changes.change_id, face.face_id,
            (old.value ->> 'person_id')::uuid, old.value ->> 'source', (old.value ->> 'confidence')::real,
            (new.value ->> 'person_id')::uuid, new.value ->> 'source', (new.value ->> 'confidence')::real
        FROM changes
        CROSS JOIN LATERAL unnest(changes.face_ids) AS face(face_id)
        LEFT JOIN LATERAL jsonb_array_elements(changes.before -> 'assignments') AS old
            ON (old.value ->> 'face_id')::uuid = face.face_id
        LEFT JOIN LATERAL jsonb_array_elements(changes.after -> 'assignments') AS new
            ON (new.value ->> 'face_id')::uuid = face.face_id
        WHERE changes.kind IN ('FACES_ASSIGNED', 'FACES_UNASSIGNED', 'FACE_EXCLUDED')
            AND NOT (old.value IS NULL AND new.value IS NULL)
        """
    )
    op.execute(
        """
        INSERT INTO change_exclusions (change_id, face_id, person_id, exclusion_id, made, created_by, created_at)
        SELECT change_id, face_id, person_id, exclusion_id, true, created_by, created_at FROM exclusions
        """
    )
    op.execute(
        """
        UPDATE changes SET
            face_count = cardinality(face_ids),
            position = numbered.position,
            before = CASE kind
                WHEN 'PERSON_CREATED' THEN
                    jsonb_build_object('persons', jsonb_build_object(person_ids[1], '{"deleted": true}'::jsonb))
                WHEN 'PERSON_UPDATED' THEN jsonb_build_object('persons', jsonb_build_object(person_ids[1], before))
                ELSE '{}' END,
            after = CASE kind
                WHEN 'PERSON_CREATED' THEN
                    jsonb_build_object('persons', jsonb_build_object(person_ids[1], after || '{"deleted": false}'))
                WHEN 'PERSON_UPDATED' THEN jsonb_build_object('persons', jsonb_build_object(person_ids[1], after))
                ELSE '{}' END
        FROM (
            SELECT change_id, row_number() OVER (PARTITION BY library_id ORDER BY sequence) AS position FROM changes
        ) AS numbered
        WHERE numbered.change_id = changes.change_id
        """
    )


def _fill_trigrams() -> None:
    """As services.persons.domain.naming makes them; written out here, since a migration must not change with the code."""
    connection = op.get_bind()
    persons = sa.table("persons", sa.column("person_id", sa.UUID()), sa.column("name_key", sa.Text()))
    statement = sa.text("UPDATE persons SET name_trigrams = :trigrams WHERE person_id = :id").bindparams(
        sa.bindparam("trigrams", type_=postgresql.ARRAY(sa.Text()))
    )
    last = None
    while True:
        page = sa.select(persons.c.person_id, persons.c.name_key).order_by(persons.c.person_id).limit(BATCH)
        rows = connection.execute(page if last is None else page.where(persons.c.person_id > last)).all()
        if not rows:
            return
        connection.execute(statement, [{"id": row.person_id, "trigrams": _trigrams(row.name_key)} for row in rows])
        last = rows[-1].person_id


def _trigrams(name_key: str) -> list[str]:
    found = set()
    for word in "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in name_key).split():
        padded = f"  {word} "
        found |= {padded[at : at + 3] for at in range(len(padded) - 2)}
    return sorted(found)


def _one_of(column: str, *values: str) -> str:
    words = ", ".join(f"'{value}'" for value in values)
    return f"{column} IN ({words})"
