"""`python -m deploy.local.qdrant`: the command line of the embedded Qdrant."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from deploy.local.qdrant.errors import StartupError
from deploy.local.qdrant.server import serve

_DESCRIPTION = """\
Serve Qdrant's gRPC protocol from a folder on this machine, for development and demonstration.

Use it as a server, over gRPC only:
  AsyncQdrantClient(host="127.0.0.1", grpc_port=PORT, prefer_grpc=True, check_compatibility=False)

It prints "ready" on stdout when it answers. SIGTERM or SIGINT stops it with everything flushed (status 0).
One process at a time can use a folder; a second one ends with status 1. Search is exact, meant for up to
about 100,000 points in a collection."""


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.local.qdrant",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="where it keeps everything; made where missing",
    )
    parser.add_argument("--port", required=True, type=_port, help="gRPC port on 127.0.0.1")
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a port")
    return port


async def _serve_until_signal(folder: Path, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(folder, port, stop, announce=lambda: print("ready", flush=True))


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal; the status of the process."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(_serve_until_signal(options.data, options.port))
    except StartupError as error:
        print(f"embedded Qdrant: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
