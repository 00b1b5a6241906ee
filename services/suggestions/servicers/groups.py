"""SuggestionService's list of groups."""

from __future__ import annotations

from typing import Final

from kith.suggestions.v1 import suggestions_pb2 as pb
from services.suggestions.convert import read_confidence
from services.suggestions.convert_groups import from_grouping, to_group
from services.suggestions.repository.suggestion_groups import GroupFilter, list_suggestion_groups
from shared.db.engine import Database
from shared.db.pagination import read_page_request
from shared.errors import InvalidRequest
from shared.ids import parse_library_id

USUAL_SHOWN: Final = 3
MAX_SHOWN: Final = 20


async def list_groups(database: Database, request: pb.ListSuggestionGroupsRequest) -> pb.ListSuggestionGroupsResponse:
    """Answer ListSuggestionGroups."""
    library_id = parse_library_id(request.library_id)
    where = GroupFilter(from_grouping(request.group_by), read_confidence(request.min_confidence))
    # How many questions are shown of a group is no filter: it decides nothing about which groups come.
    page = read_page_request(
        request.page_size, request.page_token, default=20, maximum=100, filters=(library_id, where)
    )
    if request.suggestions_per_group < 0:
        raise InvalidRequest("suggestions_per_group must not be negative", field="suggestions_per_group")
    shown = min(request.suggestions_per_group or USUAL_SHOWN, MAX_SHOWN)
    async with database.snapshot() as tx:
        found = await list_suggestion_groups(tx, library_id, page, where, shown)
    return pb.ListSuggestionGroupsResponse(
        groups=[to_group(group, where.grouping) for group in found.items], next_page_token=found.next_token
    )
