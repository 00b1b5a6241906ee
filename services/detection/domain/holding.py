"""How many bytes of decoded photos may be held at once."""

from __future__ import annotations

import asyncio
from collections import deque


class ByteRoom:
    """Room for so many bytes, first come, first served.

    A count of photos is no bound for memory: one of 60 megapixels is as large as thirty of two.
    """

    def __init__(self, limit: int) -> None:
        """``limit`` in bytes; what is larger by itself gets the whole room."""
        self._limit = limit
        self._held = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """Bytes that are taken now."""
        return self._held

    async def take(self, size: int) -> int:
        """Wait until there is room for ``size`` bytes; returns how many to give back. Cancelling leaves the line."""
        wanted = min(size, self._limit)
        if not self._line and self._held + wanted <= self._limit:
            self._held += wanted
            return wanted
        turn = asyncio.get_running_loop().create_future()
        self._line.append((wanted, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                # Whoever let others in meanwhile may have taken us out of the line.
                if (wanted, turn) in self._line:
                    self._line.remove((wanted, turn))
                self._let_in()
            else:
                self.give_back(wanted)
            raise
        return wanted

    def give_back(self, size: int) -> None:
        """As many bytes as :meth:`take` returned are free again."""
        self._held -= size
        self._let_in()

    def _let_in(self) -> None:
        while self._line and self._held + self._line[0][0] <= self._limit:
            wanted, turn = self._line.popleft()
            # A waiter that is cancelled leaves the line only when its task has its turn, which may be after this.
            if not turn.cancelled():
                self._held += wanted
                turn.set_result(None)
