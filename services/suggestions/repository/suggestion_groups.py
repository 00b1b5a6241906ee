"""SQL of open questions by person and by cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.engine import Row

from services.suggestions.domain.model import Suggestion
from services.suggestions.repository.open_questions import select_open_questions
from services.suggestions.repository.suggestions import make_suggestion, select_suggestions
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_clustering import cluster_members
from shared.db.tables_suggestions import suggestions

_NO_CLUSTER = ""


class SuggestionGrouping(StrEnum):
    """What the questions of a group have in common."""

    PERSON = "PERSON"
    CLUSTER = "CLUSTER"


@dataclass(frozen=True, slots=True)
class GroupFilter:
    """Which questions count, and how they are grouped."""

    grouping: SuggestionGrouping
    min_confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class SuggestionGroup:
    """Open questions about one person, or about the faces of one cluster.

    ``key``: the person, or the cluster; "" is that of faces in no cluster. ``faces_settled``: by one answer to the question
    that settles most. ``suggestions``: the first of them.
    """

    key: UUID | str
    pending: int
    faces_settled: int
    max_confidence: float
    suggestions: list[Suggestion]


async def list_suggestion_groups(
    tx: Transaction, library_id: str, request: PageRequest, where: GroupFilter, shown: int
) -> Page[SuggestionGroup]:
    """Groups with their first ``shown`` questions: those that settle most faces by one answer, then those with most questions.

    Two statements, which agree only in a snapshot.
    """
    counted = await _count_groups(tx, library_id, request, where)
    first = await _get_first_questions(tx, library_id, where, [row.key for row in counted.items], shown)
    groups = [
        SuggestionGroup(row.key, row.pending, row.faces_settled, row.max_confidence, first[row.key])
        for row in counted.items
    ]
    return Page(groups, counted.next_token)


async def _count_groups(tx: Transaction, library_id: str, request: PageRequest, where: GroupFilter) -> Page[Row[Any]]:
    questions = select_open_questions(library_id, suggestions.c.confidence >= where.min_confidence)
    key = _key(where.grouping, questions.c.person_id, questions.c.cluster_id)
    groups = (
        select(
            key.label("key"),
            func.count().label("pending"),
            func.max(questions.c.faces_settled).label("faces_settled"),
            func.max(questions.c.confidence).label("max_confidence"),
        )
        .group_by(key)
        .subquery("groups")
    )
    order = [
        SortKey(groups.c.faces_settled, descending=True),
        SortKey(groups.c.pending, descending=True),
        SortKey(groups.c.key),
    ]
    rows = await tx.rows(keyset(select(groups), request, order))
    return make_page(rows, request, lambda row: row, lambda row: [row.faces_settled, row.pending, row.key])


async def _get_first_questions(
    tx: Transaction, library_id: str, where: GroupFilter, keys: Sequence[UUID | str], shown: int
) -> dict[UUID | str, list[Suggestion]]:
    """The first questions of each group, in the order of the review queue."""
    first: dict[UUID | str, list[Suggestion]] = {key: [] for key in keys}
    if not keys:
        return first
    questions = select_open_questions(
        library_id, suggestions.c.confidence >= where.min_confidence, _is_of(where.grouping, keys)
    )
    key = _key(where.grouping, questions.c.person_id, questions.c.cluster_id)
    order = [questions.c.faces_settled.desc(), questions.c.confidence.desc(), questions.c.suggestion_id]
    # Ranked without their evidence, which is most of a row.
    ranked = select(
        questions.c.suggestion_id,
        key.label("key"),
        func.row_number().over(partition_by=key, order_by=order).label("rank"),
    ).subquery("ranked")
    rows = await tx.rows(
        select_suggestions()
        .join(ranked, ranked.c.suggestion_id == suggestions.c.suggestion_id)
        .add_columns(ranked.c.key)
        .where(ranked.c.rank <= shown)
        .order_by(ranked.c.rank)
    )
    for row in rows:
        first[row.key].append(make_suggestion(row))
    return first


def _key(
    grouping: SuggestionGrouping, person_id: ColumnElement[Any], cluster_id: ColumnElement[Any]
) -> ColumnElement[Any]:
    return person_id if grouping is SuggestionGrouping.PERSON else func.coalesce(cluster_id, _NO_CLUSTER)


def _is_of(grouping: SuggestionGrouping, keys: Sequence[UUID | str]) -> ColumnElement[bool]:
    if grouping is SuggestionGrouping.PERSON:
        return suggestions.c.person_id == func.any(list(keys))
    clustered = cluster_members.c.cluster_id == func.any([key for key in keys if key != _NO_CLUSTER])
    return or_(clustered, cluster_members.c.cluster_id.is_(None)) if _NO_CLUSTER in keys else clustered
