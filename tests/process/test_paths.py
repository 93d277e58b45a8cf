from pathlib import Path

import pytest

from flax_resnet.process.errors import UserError
from flax_resnet.process.paths import default_cache_dir, expand_user


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("FLAX_RESNET_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache_dir() == Path.home() / ".cache" / "flax_resnet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "flax_resnet"
    monkeypatch.setenv("FLAX_RESNET_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"


def test_a_home_folder_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv("FLAX_RESNET_CACHE", "~no_such_user/cache")
    with pytest.raises(UserError, match="~no_such_user") as caught:
        default_cache_dir()
    assert caught.value.field == "FLAX_RESNET_CACHE"
    with pytest.raises(UserError) as caught:
        expand_user("~no_such_user", "config.archive")
    assert caught.value.field == "config.archive"
