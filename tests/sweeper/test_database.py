"""The URL of a sweep's database."""

from pathlib import Path

import pytest

from joyful.sweeper.database import storage_url, without_password


@pytest.mark.parametrize(("typed", "query"), [("mine.db", ""), ("sub/my file.db", "?timeout=5"), ("../mine.db", "")])
def test_a_relative_path_refers_to_the_folder_where_the_command_was_typed(tmp_path, monkeypatch, typed, query):
    monkeypatch.chdir(tmp_path)
    url = storage_url(f"sqlite:///{typed}{query}", Path("multirun/x"))
    assert url.database == f"{tmp_path}/{typed}"
    assert dict(url.query) == ({"timeout": "5"} if query else {})
    monkeypatch.chdir("/")
    assert storage_url(without_password(url), Path("multirun/x")) == url


def test_an_absolute_path_stays():
    assert str(storage_url("sqlite:////tmp/mine.db?timeout=5", Path("x"))) == "sqlite:////tmp/mine.db?timeout=5"
    assert str(storage_url(None, Path("/tmp/x"))) == "sqlite:////tmp/x/study.db"
