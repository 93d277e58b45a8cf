import os
import stat
import subprocess
import sys

import pytest

from flax_resnet.process.compile_cache import others_may_rename_in
from tests.conftest import ROOT

CODE = """
import sys
from pathlib import Path
import jax
from flax_resnet.process.compile_cache import keep_compiled
keep_compiled(Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((9, 9))).block_until_ready()
print(sum(event.endswith("/cache_hits") for event in hits))
"""


def start(folder, **environment):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(folder)],
        cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(result.stdout)


def test_a_second_start_finds_what_the_first_compiled(tmp_path):
    assert start(tmp_path) == 0
    assert stat.S_IMODE((tmp_path / "compiled").stat().st_mode) == 0o700
    assert start(tmp_path) > 0


def test_a_folder_given_to_jax_is_left_alone(tmp_path):
    start(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert not (tmp_path / "ours").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="giving folders to another user takes root")
def test_a_folder_that_another_user_could_replace_is_not_used(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for owner, mode in ((12345, 0o755), (0, 0o757)):
        os.chown(theirs, owner, 0)
        theirs.chmod(mode)
        assert others_may_rename_in(theirs)
        assert start(theirs) == start(theirs) == 0
    theirs.chmod(0o1777)
    assert not others_may_rename_in(theirs)
    (tmp_path / "link").symlink_to(theirs)
    os.chown(theirs, 12345, 0)
    assert start(tmp_path / "link") == start(tmp_path / "link") == 0


def test_without_a_folder_it_still_runs(tmp_path):
    (tmp_path / "file").write_text("")
    assert start(tmp_path / "file") == 0
