"""All tables of all owners, for migrations and their check; services import only the owners' modules they need."""

from __future__ import annotations

from shared.db import tables_clustering, tables_detection, tables_persons, tables_shared, tables_suggestions
from shared.db.metadata import metadata

OWNERS = (tables_clustering, tables_detection, tables_persons, tables_shared, tables_suggestions)

__all__ = ["OWNERS", "metadata"]
