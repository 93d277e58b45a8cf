"""Sends odd requests to `serve`: none ends it, and the good one after each is answered right.

Pictures that are damaged, too large or none; bytes that are no HTTP; clients that are slow, stop in
the middle, or close half of the connection or all of it. A process serves a run (default: a small
one, trained first). Clients that wait hang on while the others go on. The resident memory is
followed: it rises to what the largest picture takes, and must not rise on and on. At the end
SIGTERM must end the process in time.
"""

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np

import flax_resnet
from benchmarks.measure import ROOT
from flax_resnet.data.image_files import decode_image, resize_and_crop
from tests.stress import trainings
from tests.stress.arguments import arguments
from tests.stress.clients import KINDS, PATIENCE, PICTURE, Client
from tests.stress.tally import Tally

STOP_SECONDS = 5.0
WAITING = 12  # clients at a time that hang on
KIB_A_REQUEST = 20.0  # of growth in the later half: a gigabyte in 50,000 requests


@contextlib.contextmanager
def served(workdir: Path, errors: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that serves a run, and its port."""
    command = [sys.executable, "-m", "flax_resnet", "serve", "--workdir", str(workdir), "--port"]
    with errors.open("w") as file:
        process = subprocess.Popen(
            [*command, "0"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=file
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:(\d+) ", line)
        assert found, line + errors.read_text()
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()  # closes its pipe, too


def resident_kib(process: subprocess.Popen[str]) -> int:
    """Memory that a process holds."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(found[1]) if found else 0


class Asker:
    """Sends the good picture and knows the answer."""

    def __init__(self, workdir: Path, port: int) -> None:
        model = flax_resnet.load(workdir)
        height, width, _ = model.image_shape
        image = resize_and_crop(decode_image(PICTURE, ""), height, width)
        scores = model.probabilities(image[None])[0]
        self._best = [model.class_names[i] for i in np.argsort(-scores)[:5]]
        self._scores = np.sort(scores)[::-1][:5]
        self._port = port

    def problem(self) -> str | None:
        """What is wrong with the answer."""
        try:
            with contextlib.closing(HTTPConnection("127.0.0.1", self._port, timeout=60)) as server:
                server.request("POST", "/predict", PICTURE)
                answer = server.getresponse().read()
            found = json.loads(answer)["predictions"]
        except (OSError, HTTPException, KeyError) as error:
            return f"the good request after it: {type(error).__name__} {error}"
        names = [prediction["class"] for prediction in found]
        scores = [prediction["probability"] for prediction in found]
        if names == self._best and np.allclose(scores, self._scores, rtol=1e-4):
            return None
        return f"the good request after it: {answer[:200]!r}"


@dataclasses.dataclass
class Sender:
    """Sends a case in a thread, so that the next need not wait for it.

    Attributes:
      kind: of the case.
      number: of the case.
      client: what it sends.
      first_line: of the answer; None: not there yet.
    """

    kind: str
    number: int
    client: Client
    port: int
    first_line: str | None = None

    def __post_init__(self) -> None:
        self.start = time.monotonic()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.first_line = self.client.run(self.port)
        except OSError as error:
            self.first_line = f"{type(error).__name__}: {error}"
        self.seconds = time.monotonic() - self.start

    def count(self, tally: Tally, problem: str | None) -> None:
        """Waits for the answer and counts the case."""
        self.thread.join()
        line, outcome = self.first_line or "", "closed"
        if line:
            status = re.match(r"HTTP/1\.1 (\d+) ", line)
            refused = status is not None and (status[1][0] == "4" or status[1] == "503")
            outcome = "refused" if refused else "answered"
            if not refused and line[:12] not in ("HTTP/1.1 200", "HTTP/1.1 100"):
                problem = problem or f"answered {line[:80]!r}"
        if problem:
            problem = f"{self.kind} (case {self.number}, seed {tally.args.seed}): {problem}"
        tally.add(self.kind, outcome, self.seconds, problem)


def send_all(tally: Tally, workdir: Path, process: subprocess.Popen[str], port: int) -> list[int]:
    """Sends the cases; returns the resident KiB after each."""
    asker, resident = Asker(workdir, port), []
    waiting: list[tuple[Sender, str | None]] = []
    kinds = list(KINDS)
    for number in range(tally.args.count):
        if not tally.in_time or process.poll() is not None:
            break
        kind = kinds[number % len(kinds)]
        client = KINDS[kind](np.random.default_rng((tally.args.seed, number)))
        sender = Sender(kind, number, client, port)
        sender.thread.join(1)
        waiting.append((sender, asker.problem()))
        resident.append(resident_kib(process))
        hanging = [pair for pair in waiting if pair[0].thread.is_alive()]
        if len(hanging) == WAITING:
            hanging[0][0].thread.join()
        for pair in [pair for pair in waiting if not pair[0].thread.is_alive()]:
            waiting.remove(pair)
            pair[0].count(tally, pair[1])
    for sender, problem in waiting:
        sender.count(tally, problem)
    problem = asker.problem()
    tally.add("the last request", "answered", 0.0, problem)
    return resident


def stop(process: subprocess.Popen[str], port: int) -> tuple[float, str | None]:
    """Seconds that SIGTERM took while a client was waiting, and what was wrong."""
    late = Client([b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n"])
    sender = Sender("stop", 0, late, port)
    time.sleep(0.5)
    start = time.monotonic()
    process.terminate()
    try:
        code: int | str = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        code = "still running"
    seconds = time.monotonic() - start
    sender.thread.join()
    if code == 0 and seconds < STOP_SECONDS:
        return seconds, None
    return seconds, f"after SIGTERM: {code} after {seconds:.1f} s"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if an answer was wrong, the process ended or grew."""
    parser = arguments("requests", __doc__, count=500)
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="a run to serve")
    args = parser.parse_args(argv)
    tally = Tally(args)
    with tempfile.TemporaryDirectory() as folder:
        workdir, errors = args.workdir or Path(folder) / "run", Path(folder) / "stderr"
        if args.workdir is None:
            flax_resnet.train(trainings.load_tiny_config(), workdir)
        with served(workdir, errors) as (process, port):
            resident = send_all(tally, workdir, process, port)
            seconds, problem = stop(process, port)
        tally.add("SIGTERM", "ended", seconds, problem)
        if "Traceback" in (written := errors.read_text()):  # libtiff complains there, too
            tally.failures.append(f"on stderr: {written[-2000:]}")
    later = resident[len(resident) // 2 :]
    slope = float(np.polyfit(np.arange(len(later)), later, 1)[0]) if len(later) > 1 else 0.0
    if slope > KIB_A_REQUEST and args.count >= 300:
        tally.failures.append(f"the process grows by {slope:.1f} KiB a request")
    return tally.finish(
        "requests", slope_kib_a_request=round(slope, 2), resident_mib_first=resident[0] / 1024,
        resident_mib_middle=later[0] / 1024, resident_mib_last=resident[-1] / 1024,
        resident_mib_most=max(resident) / 1024,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
