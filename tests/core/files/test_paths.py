"""Paths that the system refuses to look at: one line, for networks, weights and data."""

from __future__ import annotations

import os

import pytest

from netwright.core.errors import BadInput
from netwright.core.files.load import load, read_state
from netwright.core.files.paths import exists
from netwright.data import task

USES = (load, lambda path: load(f"{path}:build"), read_state, task)


def test_what_is_there_and_what_is_not(tmp_path):
    assert exists(tmp_path)
    assert not exists(tmp_path / "none")
    (tmp_path / "file").touch()
    assert not exists(tmp_path / "file" / "below")


@pytest.mark.parametrize("use", USES)
def test_a_name_that_no_file_can_have_is_one_line(tmp_path, use):
    with pytest.raises(BadInput, match="File name too long") as error:
        use(tmp_path / ("n" * 300))
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
@pytest.mark.parametrize("use", USES)
def test_a_closed_folder_is_one_line(tmp_path, use):
    (tmp_path / "closed").mkdir(mode=0)
    try:
        with pytest.raises(BadInput, match="Permission denied"):
            use(tmp_path / "closed" / "x")
    finally:
        (tmp_path / "closed").chmod(0o755)
