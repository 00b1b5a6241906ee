"""Tables written only by the clustering service."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Identity, Index, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, REAL, UUID

from shared.db.metadata import TIMESTAMP, library_column, metadata, one_of

cluster_runs = Table(
    "cluster_runs",
    metadata,
    Column("run_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("job_id", UUID(as_uuid=True), nullable=False),
    Column("mode", Text, nullable=False),
    Column("algorithm", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("faces", BigInteger, nullable=False),
    Column("clusters", BigInteger, nullable=False),
    Column("clustered", BigInteger, nullable=False),
    Column("noise", BigInteger, nullable=False),
    Column("kept", BigInteger, nullable=False),
    Column("thresholds", JSONB, nullable=False),
    Column("seconds", JSONB, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    Column("scope", Text, nullable=False, server_default="FULL"),
    # As resolved: the contract's GroupingParameters, and min_cluster_size.
    Column("parameters", JSONB, nullable=False, server_default="{}"),
    Column("metrics", JSONB, nullable=False, server_default="{}"),
    # How many clusters were grown, split, merged, created, gone, and faces assigned, suggested, missing.
    Column("outcome", JSONB, nullable=False, server_default="{}"),
    # The moment its faces were read at: those that came later are new to it. Of runs before 0004 it is not known.
    Column("read_at", TIMESTAMP),
    # The matcher in whose space the faces were grouped; null: the pack's own.
    Column("matcher_id", UUID(as_uuid=True)),
    one_of("scope", "FULL", "INCREMENTAL"),
    Index("ix_cluster_runs_page", "library_id", "run_id"),
)

clusters = Table(
    "clusters",
    metadata,
    Column("cluster_id", Text, primary_key=True),
    library_column(),
    Column("number", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default="ACTIVE"),
    Column("model_version", Text, nullable=False),
    Column("face_count", Integer, nullable=False),
    Column("cohesion", REAL, nullable=False),
    Column("cover_face_id", UUID(as_uuid=True), ForeignKey("faces.face_id", ondelete="SET NULL")),
    Column("medoid_face_id", UUID(as_uuid=True), ForeignKey("faces.face_id", ondelete="SET NULL")),
    # Cohesion less the cosine of its centroid to the nearest other's; null: there was none.
    Column("separation", REAL),
    Column("first_captured", TIMESTAMP),
    Column("last_captured", TIMESTAMP),
    Column("run_id", UUID(as_uuid=True), ForeignKey("cluster_runs.run_id"), nullable=False),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Column("created_at", TIMESTAMP, nullable=False),
    Column("updated_at", TIMESTAMP, nullable=False),
    one_of("state", "ACTIVE", "DISMISSED"),
    Index("uq_clusters_number", "library_id", "number", unique=True),
    Index("ix_clusters_size", "library_id", "face_count", "cluster_id"),
    # For the foreign key: without it every face that is deleted costs a scan.
    Index("ix_clusters_cover", "cover_face_id"),
    Index("ix_clusters_medoid", "medoid_face_id"),
)

cluster_members = Table(
    "cluster_members",
    metadata,
    # A face is in one cluster. Rows of faces that were assigned since count for nothing: readers join the assignments.
    Column("face_id", UUID(as_uuid=True), ForeignKey("faces.face_id", ondelete="CASCADE"), primary_key=True),
    library_column(),
    Column("cluster_id", Text, ForeignKey("clusters.cluster_id", ondelete="CASCADE"), nullable=False),
    # Cosine to the cluster's centroid.
    Column("confidence", REAL, nullable=False),
    # A human put it there (SplitCluster): later runs keep such faces together, and apart from those of other clusters.
    Column("pinned", Boolean, nullable=False, server_default="false"),
    Index("ix_cluster_members_page", "cluster_id", "confidence", "face_id"),
    Index("ix_cluster_members_library", "library_id"),
)

# People whose faces changed since their centroids were computed; filled by triggers on ``assignments`` and ``persons``, so
# that no writer can forget it, and emptied by whoever computes them.
centroids_to_compute = Table(
    "centroids_to_compute",
    metadata,
    Column("person_id", UUID(as_uuid=True), ForeignKey("persons.person_id", ondelete="CASCADE"), primary_key=True),
    library_column(),
    # Another number with each change, and never the same again: so one that comes while centroids are computed is not lost.
    Column("changes", BigInteger, Identity(), nullable=False),
    Column("since", TIMESTAMP, nullable=False),
    # A worker is at it till then, or will not try again before.
    Column("claimed_until", TIMESTAMP),
    Index("ix_centroids_to_compute_since", "since"),
)

# The model and the formula that all people of a library have been put into ``centroids_to_compute`` for: once one of them is
# another, everybody's centroids are due.
centroid_formulas = Table(
    "centroid_formulas",
    metadata,
    library_column(primary_key=True),
    Column("model_version", Text, nullable=False),
    Column("algorithm", Text, nullable=False),
)

# The last "Unnamed N" given out in a library; numbers are never used again.
cluster_numbers = Table(
    "cluster_numbers",
    metadata,
    library_column(primary_key=True),
    Column("last_number", BigInteger, nullable=False),
)

centroids = Table(
    "centroids",
    metadata,
    Column("centroid_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("person_id", UUID(as_uuid=True), ForeignKey("persons.person_id", ondelete="CASCADE"), nullable=False),
    Column("model_version", Text, nullable=False),
    Column("kind", Text, nullable=False),
    # 0 for GLOBAL; 0, 1, .. for the modes, largest first.
    Column("mode", Integer, nullable=False),
    # float16, little endian, unit length.
    Column("embedding", LargeBinary, nullable=False),
    Column("face_count", Integer, nullable=False),
    Column("trimmed_count", Integer, nullable=False),
    # Of the sorted member ids and their assignments' versions; differs = stale.
    Column("members_hash", LargeBinary, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("computed_at", TIMESTAMP, nullable=False),
    one_of("kind", "GLOBAL", "CLUSTER"),
    Index("uq_centroids_mode", "person_id", "model_version", "kind", "mode", unique=True),
    Index("ix_centroids_page", "library_id", "person_id", "kind", "mode"),
)

__all__ = [
    "centroid_formulas",
    "centroids",
    "centroids_to_compute",
    "cluster_members",
    "cluster_numbers",
    "cluster_runs",
    "clusters",
]
