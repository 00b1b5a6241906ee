"""ListSuggestionGroups: open questions by person and by cluster, first those of which one answer settles most."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from kith.persons.v1 import persons_pb2
from kith.suggestions.v1 import suggestions_pb2 as pb
from services.suggestions.repository.suggestion_groups import (
    GroupFilter,
    SuggestionGrouping,
    list_suggestion_groups,
)
from shared.db.pagination import PageRequest
from shared.db.tables_detection import faces as face_table
from shared.db.tables_persons import persons
from shared.db.tables_suggestions import suggestions
from shared.errors import InvalidRequest, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.counting import recording_statements
from tests.integration.library import SeededFaces, seed_faces
from tests.integration.suggestions.album import People, Person, draw_people, seed_library
from tests.integration.suggestions.asking import ask
from tests.integration.suggestions.clusters import put_in_cluster
from tests.integration.suggestions.conftest import Questions, Scene

PERSON, CLUSTER = pb.SUGGESTION_GROUPING_PERSON, pb.SUGGESTION_GROUPING_CLUSTER


async def list_groups(questions: Questions, **fields: Any) -> pb.ListSuggestionGroupsResponse:
    async with translate_errors("suggestions"):
        return await questions.suggestions.ListSuggestionGroups(pb.ListSuggestionGroupsRequest(**fields))


async def read_pages(questions: Questions, size: int, **fields: Any) -> list[pb.SuggestionGroup]:
    """Every group, page by page."""
    found: list[pb.SuggestionGroup] = []
    token = ""
    while True:
        answer = await list_groups(questions, page_size=size, page_token=token, **fields)
        assert len(answer.groups) <= size
        found += answer.groups
        token = answer.next_page_token
        if not token:
            return found


def figures(groups: Sequence[pb.SuggestionGroup]) -> list[tuple[str, int, int]]:
    """Of each group whom or what it is about, how much is asked, and what one answer settles."""
    return [(group.person_id or group.cluster_id, group.pending, group.faces_settled) for group in groups]


def shown(group: pb.SuggestionGroup) -> list[str]:
    return [each.id for each in group.suggestions]


async def test_people_come_by_what_one_answer_settles_then_by_what_is_asked(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 16))
    anna, bert, cleo, dora = [await people.create(name) for name in ("Anna", "Bert", "Cleo", "Dora")]
    asked = [
        *[(0, bert, 0.5), (1, bert, 0.99), (2, bert, 0.98), (3, bert, 0.97)],
        *[(0, anna, 0.6), (5, anna, 0.7), (6, anna, 0.8)],
        *[(8, dora, 0.9), (9, dora, 0.9), (10, cleo, 0.9), (11, cleo, 0.9)],
    ]
    ids = await ask(base, faces, asked)
    # Of the five two have a person: an answer settles three.
    await put_in_cluster(base, faces, [0, 12, 13, 14, 15])
    await people.assign(cleo, faces.face_ids[14:])
    groups = (await list_groups(questions)).groups
    assert figures(groups) == [
        (str(bert.person_id), 4, 3),
        (str(anna.person_id), 3, 3),
        *sorted([(str(cleo.person_id), 2, 1), (str(dora.person_id), 2, 1)]),
    ]
    assert [group.max_confidence for group in groups] == pytest.approx([0.99, 0.8, 0.9, 0.9])
    assert not any(group.cluster_id for group in groups)
    # Within a group, too, what settles most comes first, and then the surest.
    assert shown(groups[0]) == ids[:3]
    assert shown(groups[1]) == [ids[4], ids[6], ids[5]]
    assert list(groups[0].suggestions[:1]) == [await questions.get(ids[0])]
    assert (await list_groups(questions, group_by=PERSON)).groups == groups


async def test_clusters_hold_the_questions_about_anybody_and_faces_in_none_are_one_group(
    base: Foundation, questions: Questions, scene: Scene
) -> None:
    faces, anna, bert = scene.faces, scene.anna, scene.bert
    asked = [
        *[(0, anna, 0.6), (0, bert, 0.9), (1, bert, 0.7)],
        (4, anna, 0.99),
        *[(8, anna, 0.5), (9, bert, 0.8), (10, bert, 0.6), (11, anna, 0.7)],
    ]
    ids = await ask(base, faces, asked)
    await put_in_cluster(base, faces, [0, 1, 2], cluster_id="clu_00000000000b", number=1)
    await put_in_cluster(base, faces, [4, 5, 6, 7], cluster_id="clu_00000000000a", number=2)
    groups = (await list_groups(questions, group_by=CLUSTER)).groups
    assert figures(groups) == [("clu_00000000000a", 1, 4), ("clu_00000000000b", 3, 3), ("", 4, 1)]
    assert [shown(group) for group in groups] == [[ids[3]], [ids[1], ids[2], ids[0]], [ids[5], ids[7], ids[6]]]
    assert [group.max_confidence for group in groups] == pytest.approx([0.99, 0.9, 0.8])
    assert not any(group.person_id for group in groups)
    assert {each.cluster_id for each in groups[1].suggestions} == {"clu_00000000000b"}


@pytest.mark.parametrize("group_by", [PERSON, CLUSTER])
async def test_pages_hold_every_group_once_in_one_order(
    base: Foundation, people: People, questions: Questions, group_by: pb.SuggestionGrouping.ValueType
) -> None:
    faces, everybody = await seed_crowd(base, people)
    await ask_at_random(base, faces, everybody)
    whole = list((await list_groups(questions, group_by=group_by, page_size=100)).groups)
    assert len(whole) > 10
    keys = [(-settled, -pending, key) for key, pending, settled in figures(whole)]
    assert keys == sorted(keys)
    assert len({key for _, _, key in keys}) == len(keys)
    for size in (1, 3, 7, len(whole)):
        assert await read_pages(questions, size, group_by=group_by) == whole
    # What is shown of a group decides nothing about which groups come.
    first = await list_groups(questions, group_by=group_by, page_size=5)
    rest = await list_groups(
        questions, group_by=group_by, page_size=100, page_token=first.next_page_token, suggestions_per_group=1
    )
    assert figures([*first.groups, *rest.groups]) == figures(whole)


async def test_what_an_answer_settles_is_what_the_review_queue_says(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces, everybody = await seed_crowd(base, people)
    await ask_at_random(base, faces, everybody)
    await people.assign(everybody[0], faces.face_ids[::7])
    await people.exclude(everybody[1], faces.face_ids[1])
    queue = await questions.suggestions.LeaseReviewQueue(pb.LeaseReviewQueueRequest(limit=100))
    settled = dict(zip([each.id for each in queue.suggestions], queue.faces_settled, strict=True))
    assert len(settled) == len(await questions.list())
    for group_by in (PERSON, CLUSTER):
        answer = await list_groups(questions, group_by=group_by, page_size=100, suggestions_per_group=20)
        assert sum(group.pending for group in answer.groups) == len(settled)
        for group in answer.groups:
            assert len(group.suggestions) == min(group.pending, 20)
            assert (
                group.faces_settled == settled[group.suggestions[0].id] == max(settled[each] for each in shown(group))
            )
            rank = {each.id: place for place, each in enumerate(queue.suggestions)}
            assert shown(group) == sorted(shown(group), key=rank.__getitem__)


async def test_what_is_less_sure_counts_for_nothing(base: Foundation, questions: Questions, scene: Scene) -> None:
    faces, anna, bert = scene.faces, scene.anna, scene.bert
    ids = await ask(base, faces, [(0, anna, 0.4), (1, anna, 0.9), (2, anna, 0.8), (3, bert, 0.5)])
    await put_in_cluster(base, faces, [0, 4, 5])
    await put_in_cluster(base, faces, [2, 6], cluster_id="clu_00000000000a", number=2)
    everything = (await list_groups(questions)).groups
    assert figures(everything) == [(str(anna.person_id), 3, 3), (str(bert.person_id), 1, 1)]
    sure = (await list_groups(questions, min_confidence=0.6)).groups
    assert figures(sure) == [(str(anna.person_id), 2, 2)]
    assert shown(sure[0]) == [ids[2], ids[1]]
    by_cluster = (await list_groups(questions, min_confidence=0.6, group_by=CLUSTER)).groups
    assert figures(by_cluster) == [("clu_00000000000a", 1, 2), ("", 1, 1)]
    assert not (await list_groups(questions, min_confidence=0.95)).groups


async def test_questions_that_do_not_stand_count_for_nothing(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 10))
    anna, bert, cleo = [await people.create(name) for name in ("Anna", "Bert", "Cleo")]
    ids = await ask(base, faces, [(row, anna, 0.9 - row / 100) for row in range(6)] + [(8, bert, 0.9), (9, cleo, 0.9)])
    await put_in_cluster(base, faces, [0, 5, 9])
    await questions.reject(ids[0])
    await people.exclude(anna, faces.face_ids[1])
    await people.assign(bert, [faces.face_ids[2]])
    async with base.database.transaction() as tx:
        await tx.execute(update(face_table).where(face_table.c.face_id == faces.face_ids[3]).values(state="IGNORED"))
        await tx.execute(update(suggestions).where(suggestions.c.suggestion_id == UUID(ids[4])).values(state="EXPIRED"))
        gone = persons.c.person_id == cleo.person_id
        await tx.execute(update(persons).where(gone).values(deleted_at=base.clock.now()))
    groups = (await list_groups(questions)).groups
    assert figures(groups) == [(str(anna.person_id), 1, 3), (str(bert.person_id), 1, 1)]
    assert [shown(group) for group in groups] == [[ids[5]], [ids[6]]]
    assert figures((await list_groups(questions, group_by=CLUSTER)).groups) == [("clu_0123456789ab", 1, 3), ("", 1, 1)]


async def test_as_many_are_shown_as_was_asked_for(base: Foundation, questions: Questions, scene: Scene) -> None:
    faces = await seed_faces(base, draw_people(1, 25))
    ids = await ask(base, faces, [(row, scene.anna, 0.9 - row / 100) for row in range(25)])
    for wanted, given in ((0, 3), (1, 1), (4, 4), (20, 20), (500, 20)):
        (group,) = (await list_groups(questions, suggestions_per_group=wanted)).groups
        assert shown(group) == ids[:given]
        assert group.pending == 25


async def test_what_cannot_be_meant_is_refused(base: Foundation, questions: Questions, scene: Scene) -> None:
    await ask(base, scene.faces, [(0, scene.anna, 0.9), (1, scene.bert, 0.9)])
    for field, value in (
        ("page_size", -1),
        ("suggestions_per_group", -1),
        ("min_confidence", 1.5),
        ("min_confidence", float("nan")),
        ("group_by", 7),
        ("library_id", "no library/"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await list_groups(questions, **{field: value})
        assert refused.value.violations[0].field == field
    token = (await list_groups(questions, page_size=1)).next_page_token
    assert token
    for fields in ({"min_confidence": 0.5}, {"group_by": CLUSTER}, {"library_id": "other"}, {"page_token": token[:-2]}):
        with pytest.raises(InvalidRequest) as refused:
            await list_groups(questions, **{"page_token": token, **fields})
        assert refused.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_a_library_has_its_own_groups_and_an_empty_one_none(
    base: Foundation, people: People, questions: Questions, scene: Scene
) -> None:
    (mine,) = await ask(base, scene.faces, [(0, scene.anna, 0.5)])
    theirs = await seed_faces(base, draw_people(1, 3), library_id="other")
    made = await people.persons.CreatePerson(
        persons_pb2.CreatePersonRequest(
            library_id="other", person=persons_pb2.Person(name="Olga"), request_id=str(uuid4())
        )
    )
    olga = Person(UUID(made.person.id), "Olga")
    yours = await ask(base, theirs, [(0, olga, 0.9), (1, olga, 0.8)], library_id="other")
    await put_in_cluster(base, theirs, [0, 2], library_id="other")
    for group_by, first in ((PERSON, str(olga.person_id)), (CLUSTER, "clu_0123456789ab")):
        (group,) = (await list_groups(questions, group_by=group_by)).groups
        assert shown(group) == [mine]
        groups = (await list_groups(questions, group_by=group_by, library_id="other")).groups
        assert [each for group in groups for each in shown(group)] == yours
        assert figures(groups)[0][0] == first
        nothing = await list_groups(questions, group_by=group_by, library_id="empty")
        assert nothing == pb.ListSuggestionGroupsResponse()


@pytest.mark.parametrize("grouping", list(SuggestionGrouping))
async def test_two_statements_whatever_the_number_of_groups(
    base: Foundation, people: People, grouping: SuggestionGrouping
) -> None:
    faces, everybody = await seed_crowd(base, people)
    await ask_at_random(base, faces, everybody)
    for size in (1, 10):
        with recording_statements(base.database) as sent:
            async with base.database.snapshot() as tx:
                page = await list_suggestion_groups(
                    tx, "default", PageRequest(size, None, ""), GroupFilter(grouping), 20
                )
        assert len(page.items) == size
        assert [statement.executions for statement in sent] == [1, 1]


async def seed_crowd(base: Foundation, people: People) -> tuple[SeededFaces, list[Person]]:
    """60 faces, 40 of them in clusters of one to six, and 12 people without a face."""
    faces = await seed_library(base, draw_people(1, 60))
    start = 0
    for number, size in enumerate([1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6], start=1):
        rows = range(start, start + size)
        await put_in_cluster(base, faces, rows, cluster_id=f"clu_{number:012x}", number=number)
        start += size
    return faces, [await people.create(f"Person {number}") for number in range(12)]


async def ask_at_random(base: Foundation, faces: SeededFaces, everybody: Sequence[Person]) -> None:
    """Most of the faces may be somebody, and some of them one of two; confidences are often alike."""
    drawn = random.Random(7)
    pairs = [
        (row, person, drawn.choice([0.5, 0.7, 0.9]))
        for row in range(len(faces.face_ids))
        for person in drawn.sample(everybody, drawn.choice([0, 1, 1, 2]))
    ]
    await ask(base, faces, pairs)
