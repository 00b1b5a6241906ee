"""No text of a request may hold NUL: PostgreSQL cannot store it, and nothing a person writes needs it.

In one place for every unary request, whatever its fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from shared.errors import InvalidRequest
from shared.rpc.interceptors.call import Call, CallInterceptor, Proceed


class TextInterceptor(CallInterceptor):
    """Refuses a request by the path of its first field with NUL in it."""

    async def around(self, call: Call, proceed: Proceed) -> Any:
        # Text holds NUL only where the bytes do; most requests have none, and their fields need not be looked at.
        if (
            call.data is not None
            and b"\x00" in call.data
            and isinstance(call.request, Message)
            and not call.method.is_infrastructure
        ):
            for path in find_nul(call.request):
                raise InvalidRequest(f"{path} must not hold NUL", field=path)
        return await proceed(call)


def find_nul(message: Message, prefix: str = "") -> Iterator[str]:
    """Paths of the string fields of ``message``, and of those in it, that hold NUL."""
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if field.type not in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE}:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key, entry in value.items():
                if "\x00" in str(key) or (isinstance(entry, str) and "\x00" in entry):
                    yield path
            continue
        values = value if field.is_repeated else [value]
        for index, item in enumerate(values):
            where = f"{path}[{index}]" if field.is_repeated else path
            if isinstance(item, Message):
                yield from find_nul(item, f"{where}.")
            elif "\x00" in item:
                yield where
