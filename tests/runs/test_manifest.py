import json

import pytest

from flax_resnet.runs.manifest import NAME, Damaged, check_files, read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part/a").write_bytes(b"0123456789")
    (tmp_path / "b").write_bytes(b"")
    write_manifest(tmp_path, {"step": 3})
    return tmp_path


def test_what_is_as_it_was_written_passes(folder):
    assert read_manifest(folder) == {"step": 3}
    check_files(folder)
    assert set(json.loads((folder / NAME).read_text())["files"]) == {"part/a", "b"}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "part/a").write_bytes(b"0123456788"), "part/a has another checksum"),
        (lambda f: (f / "part/a").write_bytes(b"012345678"), "part/a has 9 bytes in place of 10"),
        (lambda f: (f / "part/a").unlink(), "part/a is missing"),
        (lambda f: (f / "b").write_bytes(b"x"), "b has 1 bytes in place of 0"),
    ],
)
def test_a_file_that_is_not_is_named(folder, damage, words):
    damage(folder)
    with pytest.raises(Damaged, match=words):
        check_files(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"sha256": "0"}'],
    ids=lambda content: str(content[:20]),
)
def test_a_manifest_that_is_not_is_told(folder, content):
    (folder / NAME).write_bytes(content)
    with pytest.raises(Damaged, match=NAME):
        read_manifest(folder)


def test_a_flipped_bit_in_a_manifest_is_noticed_or_changes_nothing(folder):
    data = bytearray((folder / NAME).read_bytes())
    for position in range(len(data)):
        for bit in range(8):
            data[position] ^= 1 << bit
            (folder / NAME).write_bytes(data)
            try:
                assert read_manifest(folder) == {"step": 3}  # white space
                check_files(folder)
            except Damaged:
                pass
            data[position] ^= 1 << bit
