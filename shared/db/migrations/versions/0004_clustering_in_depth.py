"""Runs that say all they did, faces that humans put into clusters, and the people whose centroids are to be computed.

Revision: 0004, after 0003. Expand only: version N-1 must run beside it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Statement triggers: one insert however many faces a statement moves. In order of id, as all who lock people do.
QUEUE_PEOPLE = """
CREATE FUNCTION queue_centroids() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE FUNCTION queue_centroids_person() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO centroids_to_compute (person_id, library_id, since) VALUES (NEW.person_id, NEW.library_id, now())
    ON CONFLICT (person_id) DO UPDATE SET changes = EXCLUDED.changes;
    RETURN NULL;
END $$
"""
QUEUE_PERSON_WHEN = """
CREATE TRIGGER queue_centroids_person AFTER UPDATE OF status, deleted_at ON persons FOR EACH ROW
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
    json = postgresql.JSONB(astext_type=sa.Text())
    op.add_column("cluster_runs", sa.Column("scope", sa.Text(), server_default="FULL", nullable=False))
    for name in ("parameters", "metrics", "outcome"):
        op.add_column("cluster_runs", sa.Column(name, json, server_default="{}", nullable=False))
    op.add_column("cluster_runs", sa.Column("read_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("cluster_runs", sa.Column("matcher_id", sa.UUID(), nullable=True))
    op.create_check_constraint("ck_cluster_runs_scope", "cluster_runs", "scope IN ('FULL', 'INCREMENTAL')")
    op.add_column("clusters", sa.Column("medoid_face_id", sa.UUID(), nullable=True))
    op.add_column("clusters", sa.Column("separation", sa.REAL(), nullable=True))
    op.create_foreign_key(
        "fk_clusters_medoid_face_id", "clusters", "faces", ["medoid_face_id"], ["face_id"], ondelete="SET NULL"
    )
    op.create_index("ix_clusters_medoid", "clusters", ["medoid_face_id"])
    op.add_column("cluster_members", sa.Column("pinned", sa.Boolean(), server_default="false", nullable=False))
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
    )
    op.create_index("ix_centroids_to_compute_since", "centroids_to_compute", ["since"])
    op.create_table(
        "centroid_formulas",
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("library_id", name="pk_centroid_formulas"),
    )
    op.add_column("suggestions", sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_reviews_model", "reviews", ["library_id", sa.text("(evidence ->> 'model_version')"), "created_at"]
    )
    op.add_column("reviews", sa.Column("change_id", sa.UUID(), nullable=True))
    op.create_table(
        "review_leases",
        sa.Column("suggestion_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["suggestion_id"],
            ["suggestions.suggestion_id"],
            name="fk_review_leases_suggestion_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("suggestion_id", name="pk_review_leases"),
    )
    op.create_table(
        "calibrations",
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("parameters", json, nullable=False),
        sa.Column("answers", sa.Integer(), nullable=False),
        sa.Column("answered_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("library_id", "model_version", name="pk_calibrations"),
    )
    for name, (event, transition, touched) in TRIGGERS.items():
        function = f"queue_centroids_{name}"
        op.execute(QUEUE_PEOPLE.replace("queue_centroids()", f"{function}()").replace("{touched}", touched))
        op.execute(
            f"CREATE TRIGGER {function} AFTER {event} ON assignments {transition} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )
    op.execute(QUEUE_PERSON)
    op.execute(QUEUE_PERSON_WHEN)


def downgrade() -> None:
    op.drop_table("calibrations")
    op.drop_table("review_leases")
    op.drop_column("reviews", "change_id")
    op.drop_index("ix_reviews_model", "reviews")
    op.drop_column("suggestions", "asked_at")
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
