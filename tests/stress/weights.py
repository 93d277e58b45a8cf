"""Damaged files of weights: each is read or refused in one line, and none runs anything.

The state of a small network is written as .pt and .safetensors, damaged byte by byte, and read as
`import` does. Half of the .pt files get right checksums again, so that the damage reaches the
reader of pickles; some pickles get calls of functions. An audit hook tells if anything is run,
imported or opened meanwhile.
"""

import codecs
import shutil
import sys
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from flax_resnet.formats.torch_file import open_state
from flax_resnet.formats.torch_names import PROGRAMS, from_torch, pooled_size, to_torch
from flax_resnet.formats.torch_writer import write_torch_archive
from flax_resnet.models.designs import Design
from flax_resnet.models.resnet import ResNet
from flax_resnet.process.errors import UserError
from tests.stress.arguments import arguments
from tests.stress.mutations import Random, mutate
from tests.stress.tally import Tally

NETWORK = ResNet(Design((1, 1), (4, 8), (3, 3), (1, 1), pool_size=16), num_classes=10)
SHAPE = (32, 32, 3)
MOST_SECONDS, MOST_BYTES = 5.0, 64 << 20  # of a case
RUNS = {
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "exec", "compile",
    "import", "pickle.find_class", "ctypes.dlopen", "socket.connect", "os.remove", "os.mkdir",
}  # fmt: skip
# Put where a value stands: what an unpickler would call.
CALLS = (
    b"cos\nsystem\n(Vfalse\ntR",
    b"cbuiltins\neval\n(V1\ntR",
    b"(Vfalse\nios\nsystem\n",
    b"ctorch.hub\nload\n)R",
    b"cnumpy\nload\n(Vx\ntR",
    b"c__builtin__\nexec\n(Vx\ntR",
)


class Audit:
    """Notes what the interpreter does while `on`."""

    def __init__(self) -> None:
        self.on, self.seen = False, []
        sys.addaudithook(self)

    def __call__(self, event: str, details: tuple[Any, ...]) -> None:
        if self.on and (event in RUNS or (event == "open" and details[1] not in (None, "r", "rb"))):
            self.seen.append((event, str(details)[:200]))


def variables() -> Any:
    """The network's, of random numbers."""
    shapes = jax.eval_shape(lambda: NETWORK.init(jax.random.key(0), jnp.zeros((1, *SHAPE))))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), shapes)


def mend(content: bytes, path: Path, random: Random) -> bytes:
    """The archive with its pickle damaged, or with a call in it, and right checksums."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    pickle = members[name]
    if random.random() < 0.3:
        # Before the tensors, after a name, at the end: wherever a value may stand.
        places = [i for i in range(2, len(pickle)) if pickle[i : i + 1] in b"c(JX.u"]
        place = places[int(random.integers(len(places)))]
        call = CALLS[int(random.integers(len(CALLS)))]
        members[name] = pickle[:place] + call + pickle[place:]
    else:
        members[name] = mutate(pickle, random)
    made = path.with_name("mended.pt")
    with zipfile.ZipFile(made, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return made.read_bytes()


def read(path: Path, expected: Any, pooled: tuple[int, int]) -> tuple[str, str | None]:
    """(outcome, what failed) of a file."""
    try:
        with open_state(path) as state:
            found = from_torch(state, expected, pooled, path)
    except UserError as error:
        one_line = str(path) in str(error) and len(str(error).splitlines()) == 1
        return "refused", None if one_line else f"not one line that names the file: {error}"
    except BaseException as error:  # whatever it is, it is the finding
        return "", f"{type(error).__name__}: {error}"
    same = jax.tree.map(
        lambda a, b: a.shape == b.shape and bool(np.isfinite(a).all()), found, expected
    )
    return "read", None if jax.tree.all(same) else "it gave other shapes, or a NaN"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if anything was run, or raised but a UserError."""
    args = arguments("weights", __doc__, count=1000).parse_args(argv)
    random, tally, audit = np.random.default_rng(args.seed), Tally(args), Audit()
    expected, pooled = variables(), pooled_size(NETWORK, SHAPE)
    state = to_torch(expected, PROGRAMS["paper"], pooled, steps=3)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.pt"
        write_torch_archive(whole, state)
        read(whole, expected, pooled)  # imports what it needs
        for codec in ("unicode_escape", "raw_unicode_escape", "latin-1"):
            codecs.lookup(codec)  # of text in old pickles, which Python imports when first used
        contents = {".pt": whole.read_bytes(), ".safetensors": save(state)}
        for number in range(args.count):
            if not tally.in_time:
                break
            suffix = (".pt", ".safetensors")[number % 2]
            kind = suffix
            content = mutate(contents[suffix], random)
            if suffix == ".pt" and random.random() < 0.5:
                kind, content = ".pt, checksums mended", mend(content, whole, random)
            path = Path(folder) / f"case{suffix}"
            path.write_bytes(content)
            tracemalloc.start()
            audit.on, start = True, time.monotonic()
            outcome, failure = read(path, expected, pooled)
            seconds, audit.on = time.monotonic() - start, False
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if audit.seen:
                failure = f"it did {audit.seen}"
                audit.seen = []
            if peak > MOST_BYTES or seconds > MOST_SECONDS:
                failure = failure or f"it took {peak >> 20} MiB and {seconds:.1f} s"
            if failure:
                failure = f"--seed {args.seed}, case {number} ({kind}): {failure}"
                (args.output / "kept").mkdir(parents=True, exist_ok=True)
                shutil.move(path, args.output / "kept" / f"{args.seed}-{number}{suffix}")
            tally.add(kind, outcome, seconds, failure)
    return tally.finish("weights")


if __name__ == "__main__":
    sys.exit(main())
