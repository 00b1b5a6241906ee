"""A web server that serves photos well and badly, on a real socket, with or without TLS."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme


@dataclass
class Page:
    """What the server does with one path, as often as ``failures`` says with ``failure`` before it does it well.

    ``endless`` sends chunks until the client has enough; ``silent`` sends nothing until the server ends.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    failure: int = 503
    failures: int = 0
    endless: bool = False
    silent: bool = False
    breaks_off: bool = False


@dataclass
class Web:
    """``base`` is scheme, host and port; ``requests`` are the paths asked for so far, as they were sent."""

    base: str
    pages: dict[str, Page]
    requests: list[str]
    sent: list[int]


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up in the middle, or do not trust the certificate, are what tests are about."""


@contextmanager
def serve_web(certificate: trustme.LeafCert | None = None) -> Iterator[Web]:
    """Serve ``pages``, which may be changed at any time, until the context ends."""
    over = threading.Event()
    web = Web("", {}, [], [0])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            web.requests.append(self.path)
            page = web.pages.get(self.path, Page(status=404))
            status = page.status
            if page.failures:
                page.failures -= 1
                status = page.failure
            if page.silent:
                over.wait()
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in page.headers.items():
                self.send_header(name, value)
            if page.endless:
                self._send_for_ever()
                return
            if "Content-Length" not in page.headers:
                self.send_header("Content-Length", str(len(page.body)))
            self.end_headers()
            self.close_connection = page.breaks_off
            self.wfile.write(page.body[: len(page.body) // 2] if page.breaks_off else page.body)

        def _send_for_ever(self) -> None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            while not over.is_set():
                self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                web.sent[0] += 0x10000

        def log_message(self, *_: object) -> None:
            """Tests have no use for a log of requests."""

    server = _Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if certificate is None else "https"
    web.base = f"{scheme}://127.0.0.1:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    try:
        yield web
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        serving.join()


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the test's own: the file with its certificate, and one for 127.0.0.1."""

    ca_file: Path
    certificate: trustme.LeafCert


def make_authority(folder: Path) -> Authority:
    """Make keys and certificates; the authority's goes into ``folder``."""
    authority = trustme.CA()
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    return Authority(ca_file, authority.issue_cert("127.0.0.1"))
