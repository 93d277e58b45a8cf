from pathlib import Path

import pytest

from flax_resnet.process.files import LARGEST, open_regular, read_text


def test_a_huge_file_is_not_read(tmp_path: Path):
    path = tmp_path / "config.json"
    with open(path, "wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(OSError, match="268,435,457 bytes, more than 268,435,456"):
        read_text(path)
    with open_regular(path, "rb", largest=LARGEST + 1) as file:
        assert file.read(1) == b"\0"
