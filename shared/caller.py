"""Who asks for a change, through which call: what the ledger and the jobs record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """``subject`` of the token, name of the RPC or job kind, and the request's id (empty if it came without)."""

    subject: str
    rpc: str
    request_id: str = ""
