"""The one way in which an RPC changes anything: one transaction, with the answer to a retry stored in it.

Where another service has to write first, its call goes before that transaction (:meth:`Mutations.run_after`), never inside.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from shared.caller import Caller
from shared.clock import Clock
from shared.db.engine import Database, Transaction
from shared.db.idempotency import RequestKey, claim_request, find_answer, make_request_key, store_answer
from shared.ids import parse_library_id, parse_uuid
from shared.rpc.ambient import current_principal

Answer = TypeVar("Answer", bound=Message)
Begun = TypeVar("Begun")


class Mutations:
    """Runs mutating calls of one process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def run(
        self,
        request: Message,
        answer_type: type[Answer],
        work: Callable[[Transaction, Caller], Awaitable[Answer]],
        *,
        dry_run: bool = False,
        few_rows: bool = False,
    ) -> Answer:
        """Do ``work`` in a transaction and answer with what it returns.

        If the request carries a ``request_id`` that was answered before, ``work`` is not done and the first answer comes
        again. Raises :class:`InvalidRequest` for an id that is no UUID or was used for another request, and
        :class:`AnswerForgotten` if that answer was about a person who was forgotten since.

        With ``dry_run`` the work is done, answered and rolled back: nothing is stored or looked up under the id, nobody
        is notified, nothing waits for the commit. Whatever ``work`` refuses it refuses all the same. ``few_rows`` is of
        :meth:`Database.transaction`.
        """
        caller = make_caller(request)
        key = _request_key(request, caller)
        if dry_run:
            async with self._database.trial() as tx:
                return await work(tx, caller)
        async with self._database.transaction(few_rows=few_rows) as tx:
            return await self._answer_once(tx, key, answer_type, lambda: work(tx, caller))

    async def run_after(
        self,
        request: Message,
        answer_type: type[Answer],
        first: Callable[[Caller], Awaitable[Begun]],
        work: Callable[[Transaction, Caller, Begun], Awaitable[Answer]],
    ) -> Answer:
        """Do ``first`` with no transaction open, then ``work`` with what it gave, as :meth:`run` would.

        For a change that begins in another service. A request that was answered before does neither, also if its
        answer was forgotten. ``first`` is done
        again by a retry after a crash between the two, and by a twin of the call that runs at the same moment: so what it
        writes elsewhere must carry a ``request_id`` made from the thing itself, and ``work`` must look again at what
        ``first`` has read.
        """
        caller = make_caller(request)
        key = _request_key(request, caller)
        if key is not None:
            stored = await find_answer(self._database.reads, key, self._clock)
            if stored is not None:
                return answer_type.FromString(stored)
        begun = await first(caller)
        async with self._database.transaction() as tx:
            return await self._answer_once(tx, key, answer_type, lambda: work(tx, caller, begun))

    async def _answer_once(
        self,
        tx: Transaction,
        key: RequestKey | None,
        answer_type: type[Answer],
        work: Callable[[], Awaitable[Answer]],
    ) -> Answer:
        if key is None:
            return await work()
        stored = await claim_request(tx, key, self._clock)
        if stored is not None:
            return answer_type.FromString(stored)
        answer = await work()
        await store_answer(tx, key, answer.SerializeToString(deterministic=True))
        return answer


def make_caller(request: Message) -> Caller:
    """The caller of the RPC being served, as the ledger names them: e.g. ``kith.persons.v1.AssignFace``."""
    rpc = request.DESCRIPTOR.full_name.removesuffix("Request")
    return Caller(current_principal().subject, rpc, getattr(request, "request_id", ""))


def _request_key(request: Message, caller: Caller) -> RequestKey | None:
    """What makes this call the same call; None for one that came without a ``request_id``."""
    if not caller.request_id:
        return None
    return make_request_key(
        parse_library_id(getattr(request, "library_id", "")),
        parse_uuid(caller.request_id, "request_id"),
        caller.rpc,
        request.SerializeToString(deterministic=True),
    )
