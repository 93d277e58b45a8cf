"""Several processes train, evaluate and decide as one does with the same devices."""

from pathlib import Path

import jax
import numpy as np
import pytest

from flax_resnet.engine.processes import Processes
from flax_resnet.process.signals import StopRequest
from tests.engine.group_worker import trained
from tests.groups import outputs, start_group


def test_two_processes_of_four_devices_and_four_of_two_are_one_of_eight(tmp_path):
    groups = {
        number: start_group(
            ["-m", "tests.engine.group_worker", str(tmp_path / f"of{number}-")], number, 8 // number
        )
        for number in (2, 4)
    }
    with jax.enable_x64(True):
        expected = trained(jax.devices())
    for number, group in groups.items():
        texts = outputs(group)
        assert [process.returncode for process in group] == [0] * number, texts
        found = [load(tmp_path / f"of{number}-{i}.npz") for i in range(number)]
        # Asked at the fourth call, all stop at the same one, two calls later.
        assert {tuple(f.pop("agreed")) for f in found} == {(6, 12, 1, number - 1, 8 - number, 1, 0)}
        for arrays in found:
            assert arrays.keys() == expected.keys()
            for name, array in arrays.items():
                np.testing.assert_array_equal(array, found[0][name], err_msg=name)
                assert distance(array, expected[name]) < 1e-9, name


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


@pytest.mark.parametrize("signum", [None, 15])
def test_one_process_decides_alone(signum):
    processes, stop = Processes(), StopRequest()
    if signum:
        stop.request(signum)
    assert processes.alone and processes.is_main
    assert processes.should_stop(stop, 2.5) == bool(signum)
    assert (processes.seconds, processes.largest(-3), processes.all_have(5)) == (2.5, -3, True)
    assert processes.of_main(lambda: 4) == 4
