"""Clients of a server that send what they should not, or not as they should."""

import contextlib
import dataclasses
import io
import select
import socket
import struct
from collections.abc import Callable, Sequence

from PIL import Image

from flax_resnet.serving.app import MAX_BYTES
from flax_resnet.serving.server import CONNECTION_SECONDS
from tests.stress.images import damaged_file, digit_files, mend_png, with_size
from tests.stress.mutations import Random, mutate

PATIENCE = CONNECTION_SECONDS + 10  # seconds until the server must have ended a connection

FILES = digit_files()
PICTURE = next(content for suffix, content in FILES if suffix == "png")


@dataclasses.dataclass(frozen=True)
class Client:
    """What a client sends and how it leaves.

    Attributes:
      sends: parts, with `pause` seconds after each.
      leaves: 'waits' for the server to close; 'half' closes its own direction first; 'closes' or
        'resets' the connection without reading.
    """

    sends: Sequence[bytes]
    pause: float = 0.0
    leaves: str = "waits"

    def run(self, port: int) -> str:
        """The first line that the server answers; '' if it closes without one."""
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            received = b""
            with contextlib.suppress(ConnectionError):
                for part in self.sends:
                    connection.sendall(part)
                    if select.select([connection], [], [], self.pause)[0]:
                        break  # an answer, or the end
                if self.leaves == "half":
                    with contextlib.suppress(OSError):  # ENOTCONN: the server has reset it
                        connection.shutdown(socket.SHUT_WR)
                elif self.leaves == "resets":
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                if self.leaves in ("closes", "resets"):
                    return ""
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(1 << 16):
                    received += part
            return received.split(b"\r\n")[0].decode("latin-1")


def request(body: bytes, *headers: str, line: str = "POST /predict HTTP/1.1") -> bytes:
    """A request; its content-length is the body's unless headers are given."""
    lines = [line, "host: localhost", *(headers or (f"content-length: {len(body)}",)), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def pick(random: Random, *choices: Client) -> Client:
    """One of them."""
    return choices[int(random.integers(len(choices)))]


def damaged(random: Random) -> Client:
    """A picture with damage."""
    return Client([request(damaged_file(FILES, random)[1])])


def no_picture(random: Random) -> Client:
    """A file of another type."""
    bodies = (b"", b"cat", b'{"a": 1}', b"<svg/>", b"%PDF-1.7", b"PK\3\4", random.bytes(5000))
    return Client([request(bodies[int(random.integers(len(bodies)))])])


def too_large(random: Random) -> Client:
    """Too many bytes, or pixels by the header, or as many pixels as are allowed or nearly."""
    size = MAX_BYTES + int(random.integers(1, 2 * MAX_BYTES))
    chunks = [b"%x\r\n%b\r\n" % (1 << 20, bytes(1 << 20))] * (size >> 20)
    wide = bytearray(PICTURE)
    struct.pack_into(">II", wide, 16, *(int(n) for n in random.integers(2000, 2**31, 2)))
    return pick(
        random,
        Client([request(bytes(size))]),
        Client([request(b"", "transfer-encoding: chunked"), *chunks, b"0\r\n\r\n"]),
        Client([request(mend_png(bytes(wide)))]),
        Client([request(with_size(PICTURE, "png", random))]),
        Client([request(large_png(int(random.integers(3000, 6000))))]),
    )


def large_png(side: int) -> bytes:
    """A whole PNG of side x side pixels, of some kilobytes."""
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def cut_off(random: Random) -> Client:
    """A request cut off anywhere."""
    whole = request(PICTURE)
    cut = whole[: int(random.integers(len(whole)))]
    return Client([cut], leaves=str(random.choice(["half", "closes", "resets"])))


def hasty(random: Random) -> Client:
    """A whole request of one who closes half of the connection, or does not wait."""
    leaves = str(random.choice(["half", "closes", "resets"]))
    return Client([request(PICTURE)], pause=float(random.random() / 50), leaves=leaves)


def slow(random: Random) -> Client:
    """A request that comes slowly, or not at all."""
    whole = request(PICTURE)
    start = int(random.integers(len(whole)))
    drops = [whole[i : i + 1] for i in range(start, len(whole))]
    return pick(
        random, Client([]), Client([whole[:start]]), Client([whole[:start], *drops], pause=0.7)
    )


def no_http(random: Random) -> Client:
    """Bytes that are no HTTP, or damaged HTTP."""
    head = request(b"", "content-length: 0", "accept: */*", "x-long: " + "a" * 200)
    return pick(
        random,
        Client([random.bytes(int(random.integers(1, 5000)))], leaves="half"),
        Client(
            [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.bytes(500)], leaves="half"
        ),
        Client([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], leaves="half"),
        Client([b"\r\n" * 50_000], leaves="half"),
        Client([mutate(head, random)], leaves="half"),
        Client([mutate(head, random) + PICTURE], leaves="half"),
    )


def bad_length(random: Random) -> Client:
    """A length that is none, wrong or contradicted; chunks likewise."""
    lengths = ("-1", "abc", "1e3", "0x10", "", " ", "9" * 30, "9" * 5000, "3, 4", str(2**63))
    chunks = (b"xyz\r\n", b"-5\r\nab", b"f" * 30 + b"\r\n", b"3\r\nabcdefg\r\n", b"5;a=b\r\nab")
    number = len(PICTURE)
    return pick(
        random,
        Client([request(PICTURE, f"content-length: {random.choice(lengths)}")], leaves="half"),
        Client([request(PICTURE, f"content-length: {number}", "content-length: 5")]),
        Client([request(PICTURE, f"content-length: {number - 9}")]),
        Client([request(PICTURE, f"content-length: {number + 9}")]),
        Client([request(PICTURE, f"content-length: {number}", "transfer-encoding: chunked")]),
        Client([request(PICTURE, "transfer-encoding: gzip")]),
        Client(
            [request(b"", "transfer-encoding: chunked"), chunks[int(random.integers(len(chunks)))]],
            pause=0.05,
        ),
    )


def odd(random: Random) -> Client:
    """HTTP that is right, and not what the page sends."""
    lines = ("GET / HTTP/1.0", "GET /predict HTTP/1.1", "DELETE / HTTP/1.1", "BREW / HTTP/1.1",
             "POST //predict HTTP/1.1", "GET /../../etc/passwd HTTP/1.1", "OPTIONS * HTTP/1.1",
             "GET /%00%ff HTTP/1.1", "CONNECT a:1 HTTP/1.1", "GET http://a/ HTTP/1.1",
             "POST /predict?saliency&saliency=%ff HTTP/1.1", f"GET /{'a' * 100_000} HTTP/1.1",
             "HEAD / HTTP/1.1")  # fmt: skip
    upgrade = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13",
               "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==")  # fmt: skip
    return pick(
        random,
        Client([request(b"", "content-length: 0", line=str(random.choice(lines)))]),
        Client([request(b"", *upgrade, line="GET / HTTP/1.1")]),
        Client([request(b"", *(f"x-{i}: {'b' * 99}" for i in range(3000)))], leaves="half"),
        Client([request(PICTURE, f"content-length: {len(PICTURE)}", "expect: 100-continue")]),
        Client([request(PICTURE) * 20]),
    )


KINDS: dict[str, Callable[[Random], Client]] = {
    "damaged picture": damaged,
    "no picture": no_picture,
    "too large": too_large,
    "cut off": cut_off,
    "hasty": hasty,
    "slow": slow,
    "no HTTP": no_http,
    "bad length": bad_length,
    "odd": odd,
}
