"""The HTTP server: where it listens, how long a connection may last, how it ends."""

import asyncio
import signal
import socket

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from flax_resnet.process.errors import UserError, reason
from flax_resnet.serving.app import ANSWER_SECONDS, RECEIVE_SECONDS

CONNECTIONS = 32  # at a time, so bodies take 640 MB at most; more are answered 503
CONNECTION_SECONDS = 2 * RECEIVE_SECONDS + ANSWER_SECONDS  # header, body, answer
STOP_SECONDS = 2  # for answers that are due when the server is told to stop


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0: any that is free.

    Raises:
      UserError: it is in use, not this machine's, or not allowed.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"cannot listen at {host}, port {port} ({reason(error)}): choose another --host or "
            "--port",
            code="unavailable",
            field="--port",
        ) from error


def url_of(listening: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Connection(H11Protocol):
    """A connection for one request; uvicorn alone would wait for a slow header for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end = self.loop.call_later(CONNECTION_SECONDS, transport.abort)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keeps the connection of a client that sent a whole request, and then only listens."""
        return self.conn.their_state in (h11.DONE, h11.MUST_CLOSE)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end.cancel()


def make_server(app: Starlette) -> uvicorn.Server:
    """The server of an application; `run([socket])` returns once `should_exit` is set."""
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=_Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",  # app.py logs what fails
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[("connection", "close")],
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return uvicorn.Server(config)


def serve(app: Starlette, listening: socket.socket) -> None:
    """Answers until SIGTERM or Ctrl-C, and returns some seconds later; in the main thread."""
    server = make_server(app)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn catches them while it runs, and afterwards raises them again.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    server.run([listening])
