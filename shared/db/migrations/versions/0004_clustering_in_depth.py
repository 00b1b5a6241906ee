"""Runs that say all they did, faces that humans put into clusters, and the people whose centroids are to be computed.

Revision: 0004, after 0003. Expand only, and like it: version N-1 runs beside it while it is applied, every statement is a
transaction of its own, and broken off anywhere it is run again from the beginning.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shared.db.migrations.beside import create_index

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Statement triggers: one insert however many faces a statement moves. In order of id, as all who lock people do.
QUEUE_PEOPLE = """
CREATE OR REPLACE FUNCTION queue_centroids() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO centroids_to_compute (person_id, library_id, since)
    SELECT touched.person_id, touched.library_id, now()
    FROM (SELECT DISTINCT person_id, library_id FROM {touched}) AS touched
    JOIN persons ON persons.person_id = touched.person_id
    ORDER BY touched.person_id
    ON CONFLICT (person_id) DO UPDATE SET changes = EXCLUDED.changes;
    RETURN NULL;
END $$
"""
# Who is put away, brought back or merged has other centroids, too, and perhaps no face that moves. By row: the condition costs
# nothing where neither column is written, as when a face is assigned.
QUEUE_PERSON = """
CREATE OR REPLACE FUNCTION queue_centroids_person() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO centroids_to_compute (person_id, library_id, since) VALUES (NEW.person_id, NEW.library_id, now())
    ON CONFLICT (person_id) DO UPDATE SET changes = EXCLUDED.changes;
    RETURN NULL;
END $$
"""
QUEUE_PERSON_WHEN = """
CREATE OR REPLACE TRIGGER queue_centroids_person AFTER UPDATE OF status, deleted_at ON persons FOR EACH ROW
WHEN (OLD.status <> NEW.status OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at)
EXECUTE FUNCTION queue_centroids_person()
"""
TRIGGERS = {
    "insert": ("INSERT", "REFERENCING NEW TABLE AS new_rows", "new_rows"),
    "delete": ("DELETE", "REFERENCING OLD TABLE AS old_rows", "old_rows"),
    "update": (
        "UPDATE",
        "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
        "(SELECT person_id, library_id FROM old_rows UNION ALL SELECT person_id, library_id FROM new_rows) AS both_rows",
    ),
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _expand_tables()
        _create_tables()
        create_index("ix_clusters_medoid", "clusters (medoid_face_id)")
        op.execute("ALTER TABLE cluster_runs VALIDATE CONSTRAINT ck_cluster_runs_scope")
        op.execute("ALTER TABLE clusters VALIDATE CONSTRAINT fk_clusters_medoid_face_id")
        _follow_people()


def _expand_tables() -> None:
    op.execute(
        """
        ALTER TABLE cluster_runs
            ADD COLUMN IF NOT EXISTS scope text DEFAULT 'FULL' NOT NULL,
            ADD COLUMN IF NOT EXISTS parameters jsonb DEFAULT '{}' NOT NULL,
            ADD COLUMN IF NOT EXISTS metrics jsonb DEFAULT '{}' NOT NULL,
            ADD COLUMN IF NOT EXISTS outcome jsonb DEFAULT '{}' NOT NULL,
            ADD COLUMN IF NOT EXISTS read_at timestamptz,
            ADD COLUMN IF NOT EXISTS matcher_id uuid,
            DROP CONSTRAINT IF EXISTS ck_cluster_runs_scope,
            ADD CONSTRAINT ck_cluster_runs_scope CHECK (scope IN ('FULL', 'INCREMENTAL')) NOT VALID
        """
    )
    op.execute("ALTER TABLE cluster_members ADD COLUMN IF NOT EXISTS pinned boolean DEFAULT false NOT NULL")
    op.execute(
        """
        ALTER TABLE clusters
            ADD COLUMN IF NOT EXISTS medoid_face_id uuid,
            ADD COLUMN IF NOT EXISTS separation real,
            DROP CONSTRAINT IF EXISTS fk_clusters_medoid_face_id,
            ADD CONSTRAINT fk_clusters_medoid_face_id FOREIGN KEY (medoid_face_id) REFERENCES faces (face_id)
                ON DELETE SET NULL NOT VALID
        """
    )


def _create_tables() -> None:
    op.create_table(
        "centroids_to_compute",
        sa.Column("person_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("changes", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["persons.person_id"],
            name="fk_centroids_to_compute_person_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("person_id", name="pk_centroids_to_compute"),
        if_not_exists=True,
    )
    op.create_index("ix_centroids_to_compute_since", "centroids_to_compute", ["since"], if_not_exists=True)
    op.create_table(
        "centroid_formulas",
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("library_id", name="pk_centroid_formulas"),
        if_not_exists=True,
    )


def _follow_people() -> None:
    for name, (event, transition, touched) in TRIGGERS.items():
        function = f"queue_centroids_{name}"
        op.execute(QUEUE_PEOPLE.replace("queue_centroids()", f"{function}()").replace("{touched}", touched))
        op.execute(
            f"CREATE OR REPLACE TRIGGER {function} AFTER {event} ON assignments {transition} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )
    op.execute(QUEUE_PERSON)
    op.execute(QUEUE_PERSON_WHEN)


def downgrade() -> None:
    op.execute("DROP TRIGGER queue_centroids_person ON persons")
    op.execute("DROP FUNCTION queue_centroids_person()")
    op.drop_table("centroid_formulas")
    for name in TRIGGERS:
        op.execute(f"DROP TRIGGER queue_centroids_{name} ON assignments")
        op.execute(f"DROP FUNCTION queue_centroids_{name}()")
    op.drop_table("centroids_to_compute")
    op.drop_column("cluster_members", "pinned")
    op.drop_index("ix_clusters_medoid", table_name="clusters")
    op.drop_column("clusters", "separation")
    op.drop_column("clusters", "medoid_face_id")
    op.drop_constraint("ck_cluster_runs_scope", "cluster_runs")
    for name in ("matcher_id", "read_at", "outcome", "metrics", "parameters", "scope"):
        op.drop_column("cluster_runs", name)
