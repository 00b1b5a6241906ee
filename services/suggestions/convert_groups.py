"""Groups of questions as messages."""

from __future__ import annotations

from kith.suggestions.v1 import suggestions_pb2 as pb
from services.suggestions.convert import to_suggestion
from services.suggestions.repository.suggestion_groups import SuggestionGroup, SuggestionGrouping
from shared.errors import InvalidRequest


def to_group(group: SuggestionGroup, grouping: SuggestionGrouping) -> pb.SuggestionGroup:
    """Questions about one person, or one cluster."""
    by_person = grouping is SuggestionGrouping.PERSON
    return pb.SuggestionGroup(
        person_id=str(group.key) if by_person else "",
        cluster_id="" if by_person else str(group.key),
        pending=group.pending,
        faces_settled=group.faces_settled,
        max_confidence=group.max_confidence,
        suggestions=[to_suggestion(suggestion) for suggestion in group.suggestions],
    )


def from_grouping(grouping: pb.SuggestionGrouping.ValueType) -> SuggestionGrouping:
    """How to group; unset is by person. Raises :class:`InvalidRequest` for an unknown way."""
    if grouping in (pb.SUGGESTION_GROUPING_UNSPECIFIED, pb.SUGGESTION_GROUPING_PERSON):
        return SuggestionGrouping.PERSON
    if grouping == pb.SUGGESTION_GROUPING_CLUSTER:
        return SuggestionGrouping.CLUSTER
    raise InvalidRequest("group_by must be PERSON or CLUSTER", field="group_by")
