"""Open questions, and how many faces one answer to each settles.

The one place that says so: the review queue and the groups of questions order by it, and must not differ.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Subquery, exists, func, select

from services.suggestions.domain.model import SuggestionState
from services.suggestions.repository.suggestions import still_stands
from shared.db.tables_clustering import cluster_members
from shared.db.tables_detection import faces
from shared.db.tables_persons import assignments
from shared.db.tables_suggestions import suggestions


def select_open_questions(library_id: str, *conditions: ColumnElement[bool]) -> Subquery:
    """Pending suggestions that still stand: ``suggestion_id``, ``person_id``, ``confidence``, ``cluster_id`` (NULL: in none)
    and ``faces_settled``, as many as the cluster has that nobody was given yet, of a face in no cluster 1.

    ``conditions`` are of ``suggestions``, and of ``cluster_members``, whose columns are NULL for a face in no cluster.
    """
    asked = (
        select(
            suggestions.c.suggestion_id,
            suggestions.c.person_id,
            suggestions.c.confidence,
            cluster_members.c.cluster_id,
        )
        .select_from(suggestions)
        .outerjoin(cluster_members, cluster_members.c.face_id == suggestions.c.face_id)
        .where(
            suggestions.c.library_id == library_id,
            suggestions.c.state == SuggestionState.PENDING.value,
            still_stands(),
            *conditions,
        )
        .cte("asked")
        # Read once: it says which clusters are to be counted, too.
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    members = cluster_members.alias("members")
    taken = exists().where(assignments.c.face_id == members.c.face_id)
    aside = exists().where(
        faces.c.face_id == members.c.face_id, faces.c.library_id == library_id, faces.c.state != "ACTIVE"
    )
    free = (
        select(members.c.cluster_id, func.count().label("members"))
        .where(members.c.cluster_id.in_(select(asked.c.cluster_id)), ~taken, ~aside)
        .group_by(members.c.cluster_id)
        .subquery("free")
    )
    return (
        select(asked, func.coalesce(free.c.members, 1).label("faces_settled"))
        .outerjoin(free, free.c.cluster_id == asked.c.cluster_id)
        .subquery("questions")
    )
