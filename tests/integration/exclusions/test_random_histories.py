"""What humans refused stays refused, whatever humans and jobs do: random histories over real servers and workers.

``KITH_TEST_REFUSALS`` and ``KITH_TEST_REFUSAL_STEPS`` make it longer: 12 histories of 50 steps are the nightly measure. Only
then a history that fails is made shorter before it is printed, which takes minutes.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from kith.detection.v1 import faces_pb2
from kith.suggestions.v1 import suggestions_pb2 as pb
from shared.errors import KithError, PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.exclusions.library import CENTROID, DUAL, PLAIN, PROTOTYPES, Library
from tests.integration.exclusions.lookalikes import FACES
from tests.integration.exclusions.refusals import Entry, Pair, allow, merge, refuse, take_back
from tests.integration.exclusions.servers import Servers
from tests.integration.exclusions.watching import Watch

T = TypeVar("T")
NIGHTLY = os.environ.get("KITH_TEST_HYPOTHESIS") == "nightly"
HISTORIES = int(os.environ.get("KITH_TEST_REFUSALS", "12" if NIGHTLY else "3"))
STEPS = int(os.environ.get("KITH_TEST_REFUSAL_STEPS", "50" if NIGHTLY else "20"))
NAMED, KNOWN_BY = 4, 2

FACE = st.integers(0, FACES - 1)
SOME = st.lists(FACE, min_size=1, max_size=8, unique=True)
YES = st.booleans()
ACTIONS = (
    *("find_more", "propagate", "cluster", "assign_known", "assign_by_machine", "tidy", "move_to_the_other_model"),
    *("answer", "answer_many", "accept_what_was_refused", "assign", "exclude", "unassign", "allow_again"),
    *("label_a_cluster", "put_aside", "bring_back", "merge", "merge", "undo", "undo", "undo", "delete_or_bring_back"),
)


class Refusals(RuleBasedStateMachine):
    """All that refuses a pair, all that might bring it back, in any order."""

    base: Foundation
    servers: Servers
    loop: asyncio.AbstractEventLoop
    seen: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.library = self.wait(Library.make(self.base, self.servers))
        self.watch = Watch(self.library)
        self.faces = self.library.faces.seeded.face_ids
        self.people: list[UUID] = []
        self.open: list[pb.Suggestion] = []
        self.next_model = False
        self.steps = 0
        self.sound = True

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the test's own loop: the machine itself lives in a thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def attempt(self, work: Coroutine[Any, Any, T], *reasons: Reason) -> T | None:
        """The answer, or None where it was refused for one of these reasons."""
        self.sound = False
        try:
            return self.wait(work)
        except KithError as error:
            if error.reason not in reasons:
                raise
            note(f"refused: {error.reason}")
            return None

    def look(self, *args: Any) -> None:
        self.wait(self.watch.look(*args))
        found = self.wait(self.library.list_suggestions())
        places = {face_id: at for at, face_id in enumerate(self.faces)}
        order = sorted(found, key=lambda pair: (places[pair[0]], self.people.index(pair[1])))
        self.open = [found[pair] for pair in order]
        self.sound = True

    def one(self, data: st.DataObject) -> UUID:
        """Somebody, who is there more often than not."""
        living = [at for at, person in enumerate(self.people) if self.watch.now.lives(person)]
        at: int = data.draw(st.sampled_from([*living, *living, *range(len(self.people))]))
        return self.people[at]

    def one_held(self, data: st.DataObject) -> UUID:
        return self.faces[
            data.draw(st.sampled_from([at for at, it in enumerate(self.faces) if it in self.watch.now.held]))
        ]

    def one_refused(self, data: st.DataObject) -> Pair:
        refused = [pair for pair in self.order() if pair in self.watch.now.excluded]
        return refused[data.draw(st.integers(0, len(refused) - 1))]

    def order(self) -> list[Pair]:
        return [(face_id, person_id) for face_id in self.faces for person_id in self.people]

    @initialize()
    def begin(self) -> None:
        """Two pairs of people are known by a few of their faces each; of what is asked some is refused, in each way."""
        self.wait(self.library.find_more_by_itself())
        for number in range(NAMED):
            self.people.append(self.wait(self.library.create(f"Person {number}")))
            self.wait(self.library.assign(self.library.faces.of(number)[:KNOWN_BY], self.people[-1]))
        self.wait(self.library.find_more(PROTOTYPES))
        self.look()
        for pair in [(UUID(each.face_id), UUID(each.person_id)) for each in self.open[:3]]:
            self.wait(self.library.exclude(*pair))
            self.look(refuse(self.watch.now, pair))
        self.reject(self.open[0])

    @rule(data=st.data())
    def act(self, data: st.DataObject) -> None:
        """Anything that can be done now, each as likely as the others: of many rules only some would be tried at all."""
        now = self.watch.now
        needed = {"answer": self.open, "answer_many": self.open, "propagate": now.held, "unassign": now.held}
        needed |= {"accept_what_was_refused": now.excluded, "allow_again": now.excluded, "bring_back": now.aside}
        possible = [name for name in ACTIONS if needed.get(name, True)]
        # From another place in each step: else the simplest history, which is always tried, would be one action over and over.
        self.steps += 1
        place = data.draw(st.integers(0, len(possible) - 1)) + 7 * self.steps
        step = possible[place % len(possible)]
        note(step)
        getattr(self, step)(data)

    # What jobs do.

    def find_more(self, data: st.DataObject) -> None:
        self.attempt(self.library.find_more(data.draw(st.sampled_from([PROTOTYPES, CENTROID]))))
        self.look()

    def propagate(self, data: st.DataObject) -> None:
        face_id = self.one_held(data)
        self.attempt(self.library.propagate(self.watch.now.held[face_id][0], [face_id]))
        self.look()

    def cluster(self, data: st.DataObject) -> None:
        self.attempt(self.library.cluster(data.draw(st.sampled_from([PLAIN, DUAL, DUAL]))))
        self.look()

    def assign_known(self, _: st.DataObject) -> None:
        self.attempt(self.library.assign_known())
        self.look()

    def assign_by_machine(self, data: st.DataObject) -> None:
        """As a job of anybody's would, which has not looked at what was refused."""
        person = self.one(data)
        refused = [pair[0] for pair in self.order() if pair[1] == person and pair in self.watch.now.excluded]
        given = [self.faces[face] for face in data.draw(SOME)] + refused
        work = self.library.assign(list(dict.fromkeys(given)), person, machine=True)
        self.attempt(work, Reason.PERSON_NOT_ACTIVE)
        self.look()

    def tidy(self, _: st.DataObject) -> None:
        self.attempt(self.library.tidy())
        self.look()

    def move_to_the_other_model(self, _: st.DataObject) -> None:
        self.attempt(self.library.move(back=self.next_model))
        self.next_model = not self.next_model
        self.look()

    # What humans do.

    def answer(self, data: st.DataObject) -> None:
        asked = self.open[data.draw(st.integers(0, len(self.open) - 1))]
        if data.draw(YES):
            self.attempt(self.library.answer(asked.id, yes=True))
            self.look()
        else:
            self.reject(asked)

    def reject(self, asked: pb.Suggestion) -> None:
        self.attempt(self.library.answer(asked.id, yes=False))
        self.look(refuse(self.watch.now, (UUID(asked.face_id), UUID(asked.person_id))))

    def answer_many(self, data: st.DataObject) -> None:
        answers = data.draw(st.lists(YES, min_size=2, max_size=8))
        given = dict(zip((each.id for each in self.open), answers, strict=False))
        etags = {each.id: each.etag for each in self.open}
        done = self.attempt(self.library.answer_many({it: (etags[it], yes) for it, yes in given.items()}))
        assert done is not None
        expected = dict(self.watch.now.excluded)
        for asked in self.open:
            if asked.id in done and not given[asked.id]:
                expected |= {
                    pair: it
                    for pair, it in refuse(self.watch.now, (UUID(asked.face_id), UUID(asked.person_id))).items()
                    if pair not in expected
                }
        self.look(expected)

    def accept_what_was_refused(self, data: st.DataObject) -> None:
        """No question about the pair, whatever became of it, can be answered yes."""
        pair = self.one_refused(data)
        states = (pb.SUGGESTION_STATE_REJECTED, pb.SUGGESTION_STATE_EXPIRED, pb.SUGGESTION_STATE_ACCEPTED)
        asked = self.wait(self.library.list_suggestions(*states)).get(pair)
        if asked is not None and asked.state != pb.SUGGESTION_STATE_ACCEPTED:
            with pytest.raises(PreconditionFailed):
                self.wait(self.library.answer(asked.id, yes=True))
        self.look()

    def assign(self, data: st.DataObject) -> None:
        work = self.library.assign([self.faces[face] for face in data.draw(SOME)[:2]], self.one(data))
        self.attempt(work, Reason.PERSON_NOT_ACTIVE)
        self.look()

    def exclude(self, data: st.DataObject) -> None:
        pair = self.faces[data.draw(FACE)], self.one(data)
        there = pair in self.watch.now.excluded
        self.attempt(self.library.exclude(*pair), *([] if there else [Reason.PERSON_NOT_ACTIVE]))
        self.look(refuse(self.watch.now, pair) if self.watch.now.lives(pair[1]) else None)

    def unassign(self, data: st.DataObject) -> None:
        face_id, exclude = self.one_held(data), data.draw(st.sampled_from([True, True, False]))
        person_id, _ = self.watch.now.held[face_id]
        self.attempt(self.library.unassign(face_id, exclude=exclude))
        self.look(refuse(self.watch.now, (face_id, person_id)) if exclude else None)

    def allow_again(self, data: st.DataObject) -> None:
        """Or only until it is refused once more: which is another refusal, that outlasts the undoing of the first."""
        pair = self.one_refused(data)
        self.attempt(self.library.allow(self.watch.now.excluded[pair]))
        self.look(allow(self.watch.now, pair))
        if data.draw(YES) and self.watch.now.lives(pair[1]):
            self.attempt(self.library.exclude(*pair))
            self.look(refuse(self.watch.now, pair))

    def label_a_cluster(self, data: st.DataObject) -> None:
        clusters = self.wait(self.library.list_clusters())
        if clusters:
            cluster_id = clusters[data.draw(st.integers(0, len(clusters) - 1))]
            # A cluster may have nobody left but those who were put aside.
            reasons = (Reason.PERSON_NOT_ACTIVE, Reason.INVALID_FIELD)
            self.attempt(self.library.label(cluster_id, self.one(data)), *reasons)
            self.look()

    def put_aside(self, data: st.DataObject) -> None:
        state = data.draw(st.sampled_from([faces_pb2.FACE_STATE_NOT_A_FACE, faces_pb2.FACE_STATE_IGNORED]))
        work = self.library.set_state(self.faces[data.draw(FACE)], state)
        self.attempt(work, Reason.FACE_ALREADY_ASSIGNED)
        self.look()

    def bring_back(self, data: st.DataObject) -> None:
        aside = [at for at, face_id in enumerate(self.faces) if face_id in self.watch.now.aside]
        face_id = self.faces[data.draw(st.sampled_from(aside))]
        self.attempt(self.library.set_state(face_id, faces_pb2.FACE_STATE_ACTIVE))
        self.look()

    def merge(self, data: st.DataObject) -> None:
        survivor, merged = self.one(data), self.one(data)
        before = len(self.watch.entries)
        self.attempt(self.library.merge(survivor, merged), Reason.PERSON_NOT_ACTIVE, Reason.INVALID_FIELD)
        done = len(self.wait(self.library.list_changes(before)))
        self.look(merge(self.watch.now, self.watch.now.resolve(survivor), merged) if done else None)

    def delete_or_bring_back(self, data: st.DataObject) -> None:
        person = self.one(data)
        if person in self.watch.now.deleted:
            self.attempt(self.library.undelete(person), Reason.PERSON_NOT_ACTIVE)
        else:
            self.attempt(self.library.delete(person), Reason.PERSON_NOT_ACTIVE)
        self.look()

    def undo(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from(["any", "last", "refusing", "merge", "undo"]))
        entries = [entry for entry in self.watch.entries[2 * NAMED :] if self.may_undo(entry, which)]
        if not entries:
            return
        entry = entries[-1] if which == "last" else entries[data.draw(st.integers(0, len(entries) - 1))]
        note(f"undo of change {self.watch.entries.index(entry)}, {entry.kind}")
        before = self.watch.now
        skipped = self.attempt(self.library.undo(entry.change_id), Reason.CHANGE_NOT_UNDOABLE)
        then = self.wait(self.library.read())
        if skipped is None or (then.parts == before.parts and skipped & {str(person) for person in self.people}):
            # Undone before, or a merge that could not be made again.
            expected = before.excluded if skipped is None else then.excluded
            assert then.excluded == before.excluded
        else:
            expected = take_back(entry, before, then)
        self.look(expected, skipped or ())

    def may_undo(self, entry: Entry, which: str) -> bool:
        match which:
            case "refusing":
                return entry.refuses
            case "merge":
                return entry.kind == "PERSONS_MERGED"
            case "undo":
                return entry.kind == "UNDONE"
        return True

    def teardown(self) -> None:
        """Everything that jobs might still find, they do not."""
        if self.sound and self.people:
            for work in (
                self.library.find_more(PROTOTYPES),
                self.library.find_more(CENTROID),
                self.library.cluster(DUAL),
            ):
                self.attempt(work)
                self.look()
            self.wait(self.watch.look_closely())
        self.seen.update(self.watch.seen)


@pytest.mark.timeout(300 + 2 * HISTORIES * STEPS)
async def test_what_was_refused_stays_refused(base: Foundation, servers: Servers) -> None:
    class Here(Refusals):
        pass

    Here.base, Here.servers, Here.loop, Here.seen = base, servers, asyncio.get_running_loop(), Counter()
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    limits = settings(
        max_examples=HISTORIES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=checks,
        phases=[Phase.generate, Phase.shrink] if NIGHTLY else [Phase.generate],
        print_blob=True,
    )
    await asyncio.to_thread(run_state_machine_as_test, Here, settings=limits)
    for what in ("asked", "assigned by machine", "blocked"):
        assert Here.seen[what], f"nothing was {what}: then nothing was held back either"
