"""Damaged image files: each is read or refused in one line, soon and in little memory.

scikit-learn's digits are written in every format and many modes, and damaged byte by byte. A
process of its own reads them as `predict` does, so that a crash of a decoder or an endless loop in
it is seen as such. A file that fails is kept in the output folder.
"""

import dataclasses
import io
import multiprocessing
import os
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flax_resnet.data.image_files import read_image, resize_and_crop
from flax_resnet.process.errors import UserError
from tests.stress.arguments import arguments
from tests.stress.mutations import Random, mutate
from tests.stress.tally import Tally

FILE_SECONDS = 10.0  # a file may take, resizing included
PEAK_MB = 2000  # of the reading process; an image of MAX_PIXELS takes up to 1,800

# (file name's end, Pillow's mode, options of Image.save)
SOURCES: list[tuple[str, str, dict[str, Any]]] = [
    *[("png", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
    *[("jpg", mode, {"quality": 90}) for mode in ("L", "RGB", "CMYK")],
    ("jpg", "RGB", {"progressive": True, "restart_marker_blocks": 2}),
    ("jpg", "RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"}),
    *[("gif", mode, {}) for mode in ("L", "P", "RGBA")],
    *[("bmp", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")],
    *[("tiff", mode, {}) for mode in ("1", "L", "LAB", "CMYK", "RGB", "RGBA", "I;16", "F")],
    *[
        ("tiff", "RGB", {"compression": compression})
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    ],
    ("tiff", "1", {"compression": "group4"}),
    *[("webp", "RGBA", {"lossless": lossless}) for lossless in (True, False)],
    *[("ppm", mode, {}) for mode in ("1", "L", "RGB", "I;16", "F")],
    ("avif", "RGB", {}),
]  # fmt: skip


def digit_files() -> list[tuple[str, bytes]]:
    """A digit in each way of SOURCES, and two animations: (file name's end, content)."""
    from sklearn.datasets import load_digits

    pixels: Any = load_digits().images
    grey = np.kron(pixels[:3] * 15, np.ones((4, 4))).astype(np.uint8)  # [3, 32, 32]
    files = []
    for index, (suffix, mode, options) in enumerate(SOURCES):
        files.append((suffix, _encode(_in_mode(grey[index % 3], mode), suffix, options)))
    frames = [Image.fromarray(image).convert("RGB") for image in grey]
    for suffix in ("gif", "webp", "png"):
        options = {"save_all": True, "append_images": frames[1:]}
        files.append((suffix, _encode(frames[0], suffix, options)))
    return files


def _in_mode(grey: np.ndarray, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if mode == "LAB":
        return Image.merge("LAB", [Image.fromarray(grey)] * 3)
    colors = np.stack([grey, 255 - grey, grey // 2], axis=-1)
    return Image.fromarray(colors).convert(mode)


def _encode(image: Image.Image, suffix: str, options: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    formats = {"jpg": "JPEG", "ppm": "PPM"}
    image.save(stream, formats.get(suffix, suffix.upper()), **options)
    return stream.getvalue()


def mend_png(content: bytes) -> bytes:
    """A PNG whose chunks have right checksums again, so that its decoder sees the damage."""
    mended, position = bytearray(content), 8
    while position + 12 <= len(mended):
        (length,) = struct.unpack_from(">I", mended, position)
        end = position + 8 + length
        if end + 4 > len(mended):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(mended[position + 4 : end]))
        position = end + 4
    return bytes(mended)


def with_size(content: bytes, suffix: str, random: Random) -> bytes:
    """A file that claims another number of pixels, up to its format's most."""
    place, form = {"png": (16, ">II"), "gif": (6, "<HH"), "bmp": (18, "<ii")}[suffix]
    most = {"png": 31, "gif": 16, "bmp": 31}[suffix]
    sides = [min(2**most - 1, int(2 ** (random.random() * most))) for _ in range(2)]
    changed = bytearray(content)
    struct.pack_into(form, changed, place, *sides)
    return mend_png(bytes(changed)) if suffix == "png" else bytes(changed)


def damaged_file(files: list[tuple[str, bytes]], random: Random) -> tuple[str, bytes]:
    """(kind of case, content) of a case."""
    suffix, content = files[int(random.integers(len(files)))]
    if suffix in ("png", "gif", "bmp") and random.random() < 0.15:
        return f"{suffix}, other size", with_size(content, suffix, random)
    damaged = mutate(content, random)
    if suffix == "png" and random.random() < 0.6:
        return "png, checksums mended", mend_png(damaged)
    return suffix, damaged


def read_files(connection: Connection) -> None:
    """Reads the files whose paths come; answers (outcome, seconds, what failed, peak MB)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff complains there on its own
    for path in iter(connection.recv, None):
        start, failure = time.perf_counter(), None
        try:
            image = resize_and_crop(read_image(path), 32, 32)
            outcome = "read"
            if image.shape != (32, 32, 3) or image.dtype != np.uint8:
                failure = f"it gave {image.dtype} {image.shape}"
        except UserError as error:
            outcome, message = "refused", str(error)
            if str(path) not in message or len(message.splitlines()) != 1:
                failure = f"not one line that names the file: {message!r}"
        except BaseException as error:  # whatever it is, it is the finding
            outcome, failure = "", f"{type(error).__name__}: {error}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        connection.send((outcome, time.perf_counter() - start, failure, peak))
    connection.close()


@dataclasses.dataclass
class Reader:
    """A process that reads files, started again when it died or hangs.

    Attributes:
      peak_mb: the most memory that one had, in MB.
    """

    peak_mb: float = 0.0

    def __post_init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=read_files, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def read(self, path: Path, seconds: float | None = None) -> tuple[str, float, str | None]:
        """(outcome, seconds, what failed), the last where it takes longer than `seconds`."""
        seconds = FILE_SECONDS if seconds is None else seconds
        try:
            self._connection.send(path)
            if self._connection.poll(seconds):
                outcome, took, failure, peak = self._connection.recv()
                self.peak_mb = max(self.peak_mb, peak)
                return outcome, took, failure
            failure = f"it took more than {seconds:.0f} s"
        except (EOFError, ConnectionError):
            self._process.join()
            failure = f"the process died: exit code {self._process.exitcode}"
        self._process.kill()
        self._start()
        return "", seconds, failure

    def close(self) -> None:
        """Ends the process."""
        self._connection.send(None)
        self._process.join()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the cases; returns 1 if one failed."""
    args = arguments("images", __doc__, count=5000).parse_args(argv)
    tally, files, reader = Tally(args), digit_files(), Reader()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case"
        # The first file also waits for the process to start.
        for suffix, content in files:
            path.write_bytes(content)
            outcome, seconds, failure = reader.read(path, seconds=60)
            problem = failure or (None if outcome == "read" else f"it was {outcome}")
            tally.add("undamaged", outcome, seconds, problem and f"a whole {suffix}: {problem}")
        for number in range(args.count):
            if not tally.in_time:
                break
            kind, content = damaged_file(files, np.random.default_rng((args.seed, number)))
            path.write_bytes(content)
            outcome, seconds, failure = reader.read(path)
            if failure:
                kept = args.output / f"images-{args.seed}-{number}"
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(content)
                failure = f"{kind}, kept as {kept}: {failure}"
            tally.add(kind, outcome, seconds, failure)
    reader.close()
    if reader.peak_mb > PEAK_MB:
        tally.failures.append(f"the reading process took {reader.peak_mb:.0f} MB")
    return tally.finish("images", peak_mb=reader.peak_mb)


if __name__ == "__main__":
    sys.exit(main())
