"""Which RPCs are built, asked of the servers themselves: ``python -m deploy.local.rpc_status``.

What a server offers comes by gRPC reflection, so the page says what runs and not what this tree's stubs know. Each method is
then called once. UNIMPLEMENTED means that nobody has built it; any other answer that only its own code can give means that
it works. A call must reach that code, past authentication and the check of the library, and do nothing there:

- The library is a well-formed one that nobody uses; a malformed one would be refused before the method is reached.
- ``request_id`` is malformed, which is checked before a mutation opens its transaction; so is a watch's cursor.
- Page sizes and limits are negative.
- Everything else is left out: required fields, so that they are missed, and options, because one of them may not be built.
- A stream of requests ends without one.

The calls block: grpc.aio may report INTERNAL when a refusal crosses what is being sent
(https://github.com/grpc/grpc/issues/36066).
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import grpc
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from deploy.local.directory import StackDirectory, is_locked
from deploy.local.errors import StackError
from deploy.local.stack import StackOptions, start_stack

LIBRARY: Final = "rpc-status-probe"
# Neither a UUID nor a cursor.
MALFORMED: Final = "!"
# A watch that takes the probe for valid would stay open; then this is how long it takes to say so.
TIMEOUT_S: Final = 15.0
WORKS: Final = "works"
MISSING: Final = "not built yet"
# What a request says, by field; fields of these names are alike everywhere.
PROBE: Final[Mapping[str, Any]] = {
    "library_id": LIBRARY,
    "request_id": MALFORMED,
    "after_cursor": MALFORMED,
    "page_size": -1,
    "limit": -1,
}

# What a method's own code answers; the rest (INTERNAL, UNAVAILABLE, PERMISSION_DENIED, ...) says nothing about it.
_ANSWERS: Final = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
_STANDARD: Final = ("grpc.health.", "grpc.reflection.")
# A connection of its own, and no proxy on the way to this very machine.
_CHANNEL_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
_ROW: Final = re.compile(r"^\| ([\w-]+) \| `([\w.]+)` \| `(\w+)` \| (.+) \|$", re.MULTILINE)
_HEAD: Final = """\
# Status of the API

This page is generated from running servers by `make status-doc`, which calls every RPC of every server once. Nobody edits it.

"Works" means that code of its own answers the RPC, although an option of it may still be refused with `UNIMPLEMENTED`; "not
built yet", that all of it is. An RPC that several servers offer is counted with each of them.
"""


class UndecidedError(StackError):
    """A server answered something that does not tell whether the RPC is built."""


@dataclass(frozen=True, slots=True, order=True)
class Rpc:
    """One method as one server offers it, e.g. ``persons``, ``kith.persons.v1.PersonService``, ``GetPerson``."""

    server: str
    service: str
    method: str

    def __str__(self) -> str:
        return f"{self.server} {self.service}/{self.method}"


Statuses = Mapping[Rpc, str]
"""``works`` or ``not built yet``, by RPC."""


def ask_servers(addresses: Mapping[str, str], *, token: str | None = None) -> dict[Rpc, str]:
    """Call every RPC of the servers at ``addresses`` (gRPC targets by name) once, sorted; with ``token`` as the bearer.

    Raises :class:`UndecidedError`, also for a server that does not answer.
    """
    statuses: dict[Rpc, str] = {}
    for server, target in sorted(addresses.items()):
        with grpc.insecure_channel(target, options=_CHANNEL_OPTIONS) as channel:
            for method in _find_methods(channel, server, target):
                service = method.containing_service
                rpc = Rpc(server, service.full_name, method.name)
                statuses[rpc] = _judge(rpc, _call(channel, method, token))
    return dict(sorted(statuses.items()))


def _find_methods(channel: grpc.Channel, server: str, target: str) -> list[MethodDescriptor]:
    try:
        database = ProtoReflectionDescriptorDatabase(channel)
        names = [name for name in database.get_services() if not name.startswith(_STANDARD)]
        pool = DescriptorPool(database)
        return [method for name in names for method in pool.FindServiceByName(name).methods]
    except grpc.RpcError as error:
        raise UndecidedError(f"{server} at {target} did not say what it offers: {error}") from error


def _call(channel: grpc.Channel, method: MethodDescriptor, token: str | None) -> grpc.StatusCode:
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call: Any = getattr(channel, kind)(f"/{method.containing_service.full_name}/{method.name}")
    request = iter(()) if method.client_streaming else make_probe(method.input_type).SerializeToString()
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    try:
        answer = call(request, timeout=TIMEOUT_S, metadata=metadata)
        if method.server_streaming:
            next(answer, None)
            answer.cancel()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def _judge(rpc: Rpc, code: grpc.StatusCode) -> str:
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return MISSING
    if code in _ANSWERS:
        return WORKS
    raise UndecidedError(f"{rpc} answered {code.name}, which does not tell whether it is built; see the server's log")


def make_probe(request: Descriptor) -> Message:
    """A request of this type that its method refuses before it does anything; the module says why."""
    return GetMessageClass(request)(**{name: PROBE[name] for name in request.fields_by_name if name in PROBE})


def format_page(statuses: Statuses) -> str:
    """The page in Markdown: counts, then every RPC, sorted."""
    counts = Counter((rpc.server, status) for rpc, status in statuses.items())
    works = sum(status == WORKS for status in statuses.values())
    lines = [
        _HEAD,
        f"**{works} of {len(statuses)} RPCs work.**",
        "",
        f"| server | {WORKS} | {MISSING} |",
        "|---|---:|---:|",
    ]
    for server in sorted({rpc.server for rpc in statuses}):
        lines.append(f"| {server} | {counts[server, WORKS]} | {counts[server, MISSING]} |")
    lines += ["", "| server | service | RPC | status |", "|---|---|---|---|"]
    for rpc, status in sorted(statuses.items()):
        lines.append(f"| {rpc.server} | `{rpc.service}` | `{rpc.method}` | {status} |")
    return "\n".join([*lines, ""])


def find_differences(page: str, statuses: Statuses) -> list[str]:
    """What ``page`` says otherwise than the servers do, in words; empty if it is what :func:`format_page` makes."""
    said = {Rpc(server, service, method): status for server, service, method, status in _ROW.findall(page)}
    differences = []
    for rpc in sorted(said.keys() | statuses.keys()):
        if rpc not in said:
            differences.append(f"{rpc} is not on the page; it is '{statuses[rpc]}'")
        elif rpc not in statuses:
            differences.append(f"{rpc} is on the page, but no server offers it")
        elif said[rpc] != statuses[rpc]:
            differences.append(f"{rpc} is '{said[rpc]}' on the page and '{statuses[rpc]}' on the server")
    if not differences and page != format_page(statuses):
        differences.append("the RPCs are the same, but the text around them is not")
    return differences


@contextmanager
def open_stack(path: Path) -> Iterator[tuple[Mapping[str, str], Mapping[str, str]]]:
    """Addresses and environment of the stack that runs in ``path``, or of one made for this and stopped afterwards.

    Raises :class:`StackError` if the stack there is not ready, or the new one does not get so.
    """
    directory = StackDirectory.at(path)
    if is_locked(directory.lock):
        if not directory.stack.exists():
            raise StackError(f"the stack in {directory.root} is not ready; kith status says why")
        described = json.loads(directory.stack.read_text(encoding="utf-8"))
        yield described["addresses"], described["env"]
        return
    click.echo(f"nothing runs in {directory.root}; starting a stack for this", err=True)
    with tempfile.TemporaryDirectory(prefix="kith-") as made:
        options = StackOptions(directory=Path(made), port_base=0, fsync=False)
        with start_stack(options) as stack:
            yield stack.addresses, stack.env


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".kith"),
    show_default=True,
    help="The stack to ask; if none runs there, one is started for this and stopped again.",
)
@click.option("--write", type=click.Path(dir_okay=False, path_type=Path), help="Write the page to this file.")
@click.option(
    "--check", type=click.Path(dir_okay=False, path_type=Path), help="Compare with this file; 1 if it differs."
)
def main(directory: Path, write: Path | None, check: Path | None) -> None:
    """Say which RPCs of a running stack are built; print the page if there is nothing to do with it."""
    try:
        with open_stack(directory) as (addresses, env):
            statuses = ask_servers(addresses, token=env.get("KITH_AUTH_SERVICE_TOKEN"))
    except StackError as error:
        raise click.ClickException(str(error)) from error
    if write is not None:
        write.parent.mkdir(parents=True, exist_ok=True)
        write.write_text(format_page(statuses), encoding="utf-8")
    if check is not None:
        _report_differences(check, statuses)
    if write is None and check is None:
        click.echo(format_page(statuses), nl=False)


def _report_differences(path: Path, statuses: Statuses) -> None:
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    differences = find_differences(page, statuses)
    for difference in differences:
        click.echo(difference, err=True)
    if differences:
        click.echo(f"{path} is not what the servers say; make status-doc writes it anew", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
