"""Pickles are read as data: none runs anything, whatever it asks for."""

import collections
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flax_resnet.formats.cifar_pickle import read_cifar_pickle
from flax_resnet.formats.pickles import Refused, read_pickle
from flax_resnet.formats.torch_file import open_state
from flax_resnet.process.errors import UserError

VALUES = [
    None, True, False, 0, -1, 255, 65536, -(2**40), 2**200, 1.5, "", "text", "ä", b"bytes",
    [], [1, [2]], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, {"a": {1: [2.5]}, b"b": ()},
    collections.OrderedDict(a=1, b=[2]), [[1]] * 3, "x" * 300, b"y" * 70_000,
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_values_come_back(protocol):
    for value in VALUES:
        if protocol < 3 and (b"b" in value if isinstance(value, dict) else type(value) is bytes):
            continue  # a call of _codecs.encode, which not every file may make
        if protocol < 2 and isinstance(value, collections.OrderedDict):
            continue
        found = read_pickle(pickle.dumps(value, protocol), {})
        assert found == value and type(found) is type(value), value


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def harmful(target: Path) -> list[bytes]:
    """Pickles that make a file, or would, when unpickled."""
    import os
    import subprocess

    calls = [
        Calls(os.system, f"touch {target}"),
        Calls(eval, f"open({str(target)!r}, 'w')"),
        Calls(exec, f"open({str(target)!r}, 'w')"),
        Calls(subprocess.call, ["touch", str(target)]),
        Calls(Path.touch, target),
        Calls(getattr, os, "system"),
    ]
    found = [pickle.dumps({"a": call}, p) for call in calls[:-1] for p in (0, 2, 4)]
    command = f"touch {target}".encode()
    found += [
        b"cos\nsystem\n(V" + command + b"\ntR.",
        b"(V" + command + b"\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nV" + command + b"\no.",  # OBJ
        b"\x80\x02cos\nsystem\nX" + bytes([len(command), 0, 0, 0]) + command + b"\x85\x81.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(command)]) + command + b"\x85R.",
        b"\x80\x02\x82\x01.",  # EXT1
        b"ccollections\nOrderedDict\n(tR}b0ccollections\nOrderedDict.__init__\n.",
        b"\x80\x04\x8c\x0bcollections\x8c\x17OrderedDict.__reduce__\x93.",
    ]
    return found


def test_nothing_is_run(tmp_path):
    target = tmp_path / "ran"
    for number, content in enumerate(harmful(target)):
        with pytest.raises(Refused):
            read_pickle(content, {})
        (tmp_path / "a.pkl").write_bytes(content)
        with pytest.raises(UserError) as error:
            read_cifar_pickle(tmp_path / "a.pkl")
        assert error.value.code == "unreadable" and len(str(error.value).splitlines()) == 1, number
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            archive.writestr("a/data.pkl", content)
        with pytest.raises(UserError), open_state(tmp_path / "a.pt"):
            pass
        assert not target.exists()
    pickle.loads(harmful(target)[0])  # they would have
    assert target.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b".", b"\x80", b"(.", b"K\x01", b"}K\x01s.", b"N}K\x01K\x02ub.", b"h\x05.", b"(K\x01d.",
     b"N(K\x01K\x02u.", b"N(K\x01e.", b"K\x01)R.", b"}(N)\x86K\x01u.", b"K\x01Q.", b"}}b.",
     b"X\xff\xff\xff\x7fa.", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa."],
)  # fmt: skip
def test_malformed_pickles_are_refused(content):
    with pytest.raises(Refused):
        read_pickle(content, {})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_images_of_pickled_arrays(protocol, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    planes = images.transpose(0, 3, 1, 2).reshape(4, -1)
    path = tmp_path / "cifar_test_nolabel.pkl"
    for data in (images, planes, np.asfortranarray(planes)):
        for key, ids in (("ids", np.array([3, 1, 0, 2], ">i4")), ("ids", [3, 1, 0, 2])):
            path.write_bytes(pickle.dumps({b"data": data, key.encode(): ids}, protocol))
            found, names = read_cifar_pickle(path)
            np.testing.assert_array_equal(found, images)
            assert names == ["3", "1", "0", "2"]
    path.write_bytes(pickle.dumps({"data": planes, "labels": [1, 2, 3, 4]}, protocol))
    assert read_cifar_pickle(path)[1] == ["0", "1", "2", "3"]


def test_python_2s_pickle_of_an_array(tmp_path):
    # As Python 2.7 wrote CIFAR-10's data_batch_1: text of bytes, numpy.core, 8 bits a character.
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01"
        b"\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00"
        + bytes([200]) * 3072 + b"tbU\x06labelsq\x08]q\tK\x06au."
    )  # fmt: skip
    (tmp_path / "a.pkl").write_bytes(content)
    images, _ = read_cifar_pickle(tmp_path / "a.pkl")
    assert images.shape == (1, 32, 32, 3) and (images == 200).all()


@pytest.mark.parametrize(
    "value",
    [{"data": np.zeros((2, 5), np.uint8)}, {"data": np.zeros((2, 3072))}, {}, [1], {"data": [1]},
     {"data": np.zeros((2, 3072), np.uint8), "ids": [1]},
     {"data": np.array([object()])}, {"data": np.zeros(2, "M8[s]")}],
)  # fmt: skip
def test_other_pickles_are_no_images(value, tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(UserError) as error:
        read_cifar_pickle(tmp_path / "a.pkl")
    assert error.value.code == "unreadable" and str(tmp_path) in str(error.value)
