"""Answers over HTTP are the model's; what is no picture, or too much, is refused in one line."""

import base64
import io
import json
import socket
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from flax_resnet.data.image_files import resize_and_crop
from flax_resnet.data.load import load_dataset
from flax_resnet.inference.saliency import grad_cam, overlay
from flax_resnet.serving import app as module
from flax_resnet.serving import server as server_module
from tests.serving.conftest import Served, serving


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels_of(uri: str) -> np.ndarray:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def test_answers_are_the_models(served, model):
    for image in load_dataset("digits").test_images[:3]:
        status, found = served.predict(png(image))
        scores = model.probabilities(image[None])[0]
        best = np.argsort(-scores)[:5]
        assert status == 200 and list(found) == ["predictions"]
        assert [p["class"] for p in found["predictions"]] == [str(i) for i in best]
        assert [p["probability"] for p in found["predictions"]] == pytest.approx(list(scores[best]))
        assert best[0] == model.predict(image[None])[0]


def test_a_picture_of_any_size_is_resized_as_predict_does(served, model):
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    _, found = served.predict(png(image))
    scores = model.probabilities(resize_and_crop(image, 32, 32)[None])[0]
    assert found["predictions"][0]["probability"] == pytest.approx(scores.max())


def test_saliency_is_grad_cam_of_each_class(served, model):
    image = np.asarray(load_dataset("digits").test_images)[5]
    _, found = served.predict(png(image), "?saliency")
    np.testing.assert_array_equal(pixels_of(found["image"]), image)
    classes = np.array([int(p["class"]) for p in found["predictions"]])
    images = np.repeat(image[None], len(classes), 0)
    expected = overlay(images, grad_cam(model, images, classes))
    shown = np.stack([pixels_of(p["saliency"]) for p in found["predictions"]])
    np.testing.assert_allclose(shown.astype(int), expected.astype(int), atol=2)
    assert np.abs(shown[0].astype(int) - shown[1]).max() > 10


PICTURE = png(np.zeros((32, 32, 3), np.uint8))
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


@pytest.mark.parametrize(
    ("picture", "status", "words"),
    [
        (b"", 400, "is missing"),
        (b"hello", 400, "not an image"),
        (SVG, 400, "not an image"),
        (PICTURE[:60], 400, "cannot be read"),
        (bomb(60_000, 60_000), 413, "3600000000 pixels"),
        (bomb(5_793, 5_793), 413, "the limit is 33,554,432"),
        (bytes(module.MAX_BYTES + 1), 413, "the limit is 20 MB"),
    ],
    ids=["empty", "text", "svg", "truncated", "bomb", "large", "huge"],
)
def test_what_is_no_picture_or_too_large_is_refused(served, picture, status, words):
    start = time.monotonic()
    found = served.predict(picture)
    assert found[0] == status and list(found[1]) == ["error"] and words in found[1]["error"]
    assert time.monotonic() - start < 5
    assert served.predict(PICTURE)[0] == 200


def test_a_huge_file_in_chunks_of_unknown_number_is_refused(served):
    chunks = (bytes(1_000_000) for _ in range(21))
    assert served.predict(chunks)[0] == 413


def test_a_picture_as_large_as_allowed_is_read(served):
    assert served.predict(png(np.zeros((4096, 4096, 3), np.uint8)))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/predict", 405), ("PUT", "/predict", 405), ("POST", "/", 405), ("GET", "/x", 404),
     ("GET", "/../../etc/passwd", 404), ("GET", "/favicon.ico", 404)],
)  # fmt: skip
def test_other_methods_and_paths_are_refused(served, method, path, status):
    response, body = served.ask(method, path)
    assert response.status == status and list(json.loads(body)) == ["error"]
    assert status != 405 or "POST" in response.headers["allow"] or path == "/"


def test_a_connection_takes_one_request(served):
    with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert received.count(b"HTTP/1.1 200") == 1 and b"connection: close" in received


def test_slow_clients_are_told_or_cut_off(served, monkeypatch):
    monkeypatch.setattr(module, "RECEIVE_SECONDS", 0.3)
    monkeypatch.setattr(server_module, "CONNECTION_SECONDS", 0.8)
    for sent, answer in [
        (b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nab", b"HTTP/1.1 408"),
        (b"POST /predict HTTP/1.1\r\nhost:", b""),
        (b"", b""),
    ]:
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
            connection.sendall(sent)
            try:
                received = connection.recv(1 << 16)
            except ConnectionResetError:
                received = b""
        assert received[:12] == answer and 0.2 < time.monotonic() - start < 5


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"])
def test_a_client_may_close_its_half_after_a_whole_request(served, more):
    picture = png(np.asarray(load_dataset("digits").test_images)[5])
    length = f"content-length: {len(picture)}\r\n".encode()
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\n" + more + length + b"\r\n"
    for sent, answer in [(head + picture, b"HTTP/1.1 200"), (head + picture[:-1], b"")]:
        with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.recv(1 << 16), b""))  # noqa: B023
        assert received[:12] == answer


def test_one_picture_at_a_time_and_the_page_does_not_wait(monkeypatch):
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    release, at_work = threading.Event(), threading.Semaphore(0)
    most = running = 0

    def answer(picture: io.BytesIO, _: bool) -> dict[str, str]:
        nonlocal most, running
        running += 1
        most = max(most, running)
        at_work.release()
        release.wait(20)
        running -= 1
        return {"picture": picture.read().decode()}

    with serving(answer) as served:
        found: list[tuple[int, dict[str, str]]] = []
        threads = [
            threading.Thread(target=lambda i=i: found.append(served.predict(str(i))))
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        assert at_work.acquire(timeout=10)
        assert served.ask("GET", "/")[0].status == 200  # while a picture is worked on
        for thread in threads:
            thread.join(10)
        assert [status for status, _ in found] == [503] * 4 and "busy" in found[0][1]["error"]
        release.set()
        assert served.predict(b"last") == (200, {"picture": "last"})
    assert most == 1


def test_a_fault_of_the_programs_is_no_end_of_it(caplog):
    def answer(picture: io.BytesIO, _: bool) -> dict[str, str]:
        return {"result": str(1 // len(picture.read()))}

    with serving(answer) as served:
        status, found = served.predict(b"")
        assert status == 500 and "ZeroDivisionError" in found["error"]
        assert served.predict(b"a") == (200, {"result": "1"})


def test_a_crowd_is_refused_and_then_served(served: Served, monkeypatch):
    monkeypatch.setattr(server_module, "CONNECTION_SECONDS", 3.0)
    crowd = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(40)]
    time.sleep(0.2)
    assert served.ask("POST", "/predict", PICTURE)[0].status == 503
    end = time.monotonic() + 20
    while served.ask("POST", "/predict", PICTURE)[0].status != 200:  # the crowd is cut off
        assert time.monotonic() < end
        time.sleep(0.1)
    for connection in crowd:
        connection.close()
