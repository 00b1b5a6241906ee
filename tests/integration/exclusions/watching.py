"""Watches over what was refused: the model of it, held against what is stored and shown after every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from uuid import UUID

from kith.persons.v1 import changes_pb2
from tests.integration.exclusions.library import Library
from tests.integration.exclusions.refusals import Entry, Excluded, Pair, Standing, compare

EXCLUDING = (changes_pb2.CHANGE_KIND_FACE_EXCLUDED, changes_pb2.CHANGE_KIND_FACES_UNASSIGNED)
SAID_BY_HUMANS = {"excluded", "rejected"}


class Watch:
    """What is refused in a library, whose each face is, and the changes that made it so. ``seen`` counts what there was."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.now = Standing()
        self.entries: list[Entry] = []
        self.seen: Counter[str] = Counter()

    async def look(self, expected: Excluded | None = None, told: Collection[str] = ()) -> None:
        """After a step: what is excluded is ``expected``, or as before, and nobody is asked or assigned against it.

        ``told``: the items that the step was said to have left alone.
        """
        before, self.now = self.now, await self.library.read()
        compare(before.excluded if expected is None else expected, self.now.excluded, told)
        await self._remember(before)
        self._check(set(await self.library.list_suggestions()))
        # And once everything has come after that a step sets off.
        await self.library.wait_quiet()
        self.now = await self.library.read()
        assert self.now.excluded == await self.library.list_excluded()
        self._check(await self.library.list_asked())

    async def look_closely(self) -> None:
        """Whoever is refused for a face is shown as refused when one asks who the face may be."""
        for face_id in sorted({face_id for face_id, _ in self.now.excluded}):
            for person_id, blocked_by in (await self.library.match(face_id)).items():
                if (face_id, person_id) in self.now.excluded:
                    self.seen["blocked"] += 1
                    assert blocked_by & SAID_BY_HUMANS, f"{face_id}: {blocked_by} speaks against {person_id}"

    def _check(self, asked: set[Pair]) -> None:
        self.seen["asked"] += len(asked)
        for pair in asked:
            assert pair not in self.now.excluded, f"{pair} is asked about and was refused"
            assert pair[0] not in self.now.aside, f"{pair[0]} is asked about and was put aside"
            assert self.now.lives(pair[1]), f"{pair[1]} is asked about and not there"
        for face_id, (person_id, source) in self.now.held.items():
            assert (face_id, person_id) not in self.now.excluded, f"{face_id} is {person_id}'s and was refused"
            assert source == "HUMAN" or face_id not in self.now.aside, f"{face_id} was put aside and is {person_id}'s"
            self.seen[f"assigned by {source.lower()}"] += 1

    async def _remember(self, before: Standing) -> None:
        made = dict(self.now.excluded.items() - before.excluded.items())
        gone = dict(before.excluded.items() - self.now.excluded.items())
        changes = await self.library.list_changes(len(self.entries))
        for change in changes:
            kind = changes_pb2.ChangeKind.Name(change.kind).removeprefix("CHANGE_KIND_")
            if len(changes) == 1:
                self.entries.append(Entry(change.id, kind, made, gone))
                continue
            # Of several, those exclude that are of one pair.
            pairs = [(UUID(change.face_ids[0]), UUID(change.person_ids[0]))] if change.kind in EXCLUDING else []
            mine = {pair: made[pair] for pair in pairs if pair in made}
            self.entries.append(Entry(change.id, kind, mine, {}))
