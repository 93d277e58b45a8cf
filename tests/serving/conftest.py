"""A real server on a free port, of the tiny run."""

import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from flax_resnet.inference.model import Model, load
from flax_resnet.serving.app import make_answer, make_app
from flax_resnet.serving.page import make_page
from flax_resnet.serving.server import listen, make_server


class Served:
    """Where it listens, and requests to it."""

    def __init__(self, port: int) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[HTTPResponse, bytes]:
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response, response.read()

    def predict(self, picture: Any, query: str = "") -> tuple[int, dict[str, Any]]:
        response, body = self.ask("POST", f"/predict{query}", picture)
        assert response.getheader("content-type") == "application/json"
        assert body.endswith(b"\n") and body.count(b"\n") == 1
        return response.status, json.loads(body)


@contextlib.contextmanager
def serving(answer: Callable[[io.BytesIO, bool], Any], page: str = "page") -> Iterator[Served]:
    listening = listen("127.0.0.1", 0)
    server = make_server(make_app(answer, page))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        end = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        yield Served(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> Model:
    return load(tiny_run)


@pytest.fixture(scope="module")
def served(model: Model, tiny_run: Path) -> Iterator[Served]:
    with serving(make_answer(model), make_page(model, str(tiny_run))) as found:
        yield found
