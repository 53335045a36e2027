"""A small web server on the loopback interface, with ranges and ways to fail."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Served:
    """What the server offers and what it was asked for.

    Attributes:
        files: content by path, without the leading slash.
        requests: path and range of each request, in order.
        ranges: whether ranges are honoured.
        break_after: bytes after which a connection is dropped, once.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    ranges: bool = True
    break_after: int | None = None


@contextlib.contextmanager
def serve() -> Iterator[Served]:
    """Serve until the context ends."""
    served = Served()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            respond(self, served)

        def log_message(self, format, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def respond(handler: http.server.BaseHTTPRequestHandler, served: Served) -> None:
    """Answer one request for a file or a part of it."""
    path, asked = handler.path.lstrip("/"), handler.headers.get("Range")
    served.requests.append((path, asked))
    content = served.files.get(path)
    if content is None:
        handler.send_error(404)
        return
    start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
    if not served.ranges:
        asked, start = None, 0
    if start >= len(content):
        handler.send_error(416)
        return
    handler.send_response(206 if asked else 200)
    if asked:
        total = len(content)
        handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
    body = content[start:]
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if served.break_after is not None:
        body, served.break_after = body[: served.break_after], None
    handler.wfile.write(body)
