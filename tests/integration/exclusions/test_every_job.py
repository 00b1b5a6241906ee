"""Everything that jobs find is refused until they find nothing: then no job finds anything, wherever people and models go.

What is left unassigned then is exactly what each job would ask about or assign, were it not refused: so each job that forgets
to look at what was refused fails here.
"""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest

from kith.detection.v1 import faces_pb2
from shared.foundation import Foundation
from tests.integration.exclusions.library import CENTROID, DUAL, PROTOTYPES, Library
from tests.integration.exclusions.refusals import Entry, Excluded, Pair, allow, merge, refuse, take_back
from tests.integration.exclusions.servers import Servers
from tests.integration.exclusions.watching import Watch

NAMED, KNOWN_BY = 4, 2
# More rounds than there are people to be refused for one face.
MOST_ROUNDS = 12


class Refused:
    """A library in which everything that was ever found has been refused, and the people in it."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.watch = Watch(library)
        self.people: list[UUID] = []

    async def begin(self) -> None:
        """Name people by a few of their faces, and refuse whatever follows from that."""
        for number in range(NAMED):
            self.people.append(await self.library.create(f"Person {number}"))
            await self.library.assign(self.library.faces.of(number)[:KNOWN_BY], self.people[-1])
        await self.watch.look()
        await self.library.cluster(DUAL)
        await self.watch.look()
        assert await self.refuse_what_was_found()
        # From here on one job alone asks about everything that any job would.
        for _ in range(MOST_ROUNDS):
            await self.library.find_more(PROTOTYPES)
            await self.watch.look()
            if not await self.refuse_what_was_found():
                return
        pytest.fail("there is always something new to refuse")

    async def run_every_job(self) -> None:
        """By every job that asks or assigns, one after the other."""
        library = self.library
        await library.find_more(PROTOTYPES)
        await library.find_more(CENTROID)
        known: dict[UUID, list[UUID]] = {}
        for face_id, (person_id, _) in sorted(self.watch.now.held.items()):
            known.setdefault(person_id, []).append(face_id)
        for person_id, face_ids in known.items():
            await library.propagate(person_id, face_ids)
        await self.watch.look()
        await library.assign_known()
        await library.cluster(DUAL)
        await self.watch.look()
        await library.tidy()
        await self.watch.look()

    async def refuse_what_was_found(self) -> bool:
        """In each way there is; answers whether anything was found."""
        asked = sorted((await self.library.list_suggestions()).items())
        many = {each.id: (each.etag, False) for _, each in asked[1::3]}
        if many:
            assert await self.library.answer_many(many) == many.keys()
        expected = dict(self.watch.now.excluded)
        for at, (pair, each) in enumerate(asked):
            if at % 3 == 0:
                await self.library.answer(each.id, yes=False)
            elif at % 3 == 2:
                await self.library.exclude(*pair)
            expected |= self._refuse(pair)
        given = self.list_given()
        for at, (face_id, person_id) in enumerate(given):
            if at % 2:
                await self.library.unassign(face_id, exclude=True)
            else:
                await self.library.exclude(face_id, person_id)
            expected |= self._refuse((face_id, person_id))
        await self.watch.look(expected)
        return bool(asked or given)

    def list_given(self) -> list[Pair]:
        """What machines have assigned."""
        held = sorted(self.watch.now.held.items())
        return [(face_id, person_id) for face_id, (person_id, source) in held if source == "MACHINE"]

    async def find_nothing(self) -> None:
        """No job asks about anything, or assigns it."""
        await self.run_every_job()
        assert await self.library.list_asked() == set()
        assert self.list_given() == []
        await self.watch.look_closely()

    def _refuse(self, pair: Pair) -> Excluded:
        return {pair: refuse(self.watch.now, pair)[pair]}


async def test_what_was_refused_is_found_by_no_job_until_it_is_taken_back(base: Foundation, servers: Servers) -> None:
    refused = Refused(await Library.make(base, servers))
    library, watch = refused.library, refused.watch
    await refused.begin()
    assert watch.seen["asked"] >= 10
    assert watch.seen["assigned by machine"] > 5
    # Who is refused makes room for the next best, who is refused then.
    assert sum(persons > 1 for persons in Counter(face_id for face_id, _ in watch.now.excluded).values()) > 5
    await refused.find_nothing()

    await library.move(back=False)
    await watch.look()
    joined = await join(refused)
    await refused.find_nothing()

    await library.move(back=True)
    await watch.look()
    before = watch.now
    await library.undo(joined.change_id)
    await watch.look(take_back(joined, before, await library.read()))
    for put_away in (library.delete, library.undelete):
        await put_away(refused.people[2])
        await watch.look()
    await refused.find_nothing()
    assert watch.seen["blocked"] > 20

    await take_back_unassigning(refused)
    await find_what_is_allowed_again(refused)


async def join(refused: Refused) -> Entry:
    """Make two who look alike one; answers the change."""
    watch, (one, other, *_) = refused.watch, refused.people
    await refused.library.merge(one, other)
    await watch.look(merge(watch.now, one, other))
    return watch.entries[-1]


async def take_back_unassigning(refused: Refused) -> None:
    """The machine's assignment stands again, and nobody else's."""
    library, watch = refused.library, refused.watch
    entry = list_unassigned(refused)[-1]
    ((pair, _),) = entry.made.items()
    before = watch.now
    assert await library.undo(entry.change_id) == set()
    await watch.look(take_back(entry, before, await library.read()))
    assert watch.now.held[pair[0]] == (pair[1], "MACHINE")
    assert refused.list_given() == [pair]


async def find_what_is_allowed_again(refused: Refused) -> None:
    """That it was not found was so because of what was said, and of nothing else; but not while the face is none."""
    library, watch = refused.library, refused.watch
    # Nobody was asked about this pair: so no answer stands beside the exclusion.
    ((pair, exclusion_id),) = list_unassigned(refused)[0].made.items()
    await library.allow(exclusion_id)
    await watch.look(allow(watch.now, pair))
    await library.set_state(pair[0], faces_pb2.FACE_STATE_NOT_A_FACE)
    await refused.run_every_job()
    assert pair[0] not in watch.now.held
    await library.set_state(pair[0], faces_pb2.FACE_STATE_ACTIVE)
    await library.find_more(PROTOTYPES)
    await library.cluster(DUAL)
    await watch.look()
    assert pair in {*await library.list_asked(), *refused.list_given()}


def list_unassigned(refused: Refused) -> list[Entry]:
    """The changes by which a face was taken from the person that a machine had given it to, and excluded."""
    return [entry for entry in refused.watch.entries if entry.made and entry.kind == "FACES_UNASSIGNED"]
