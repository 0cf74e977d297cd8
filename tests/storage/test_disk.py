"""What a disk that takes nothing more makes a command say."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cxr_faith.storage.disk import FAILING, UNWRITABLE, disk_line


@pytest.mark.parametrize("number", (*UNWRITABLE, *FAILING), ids=errno.errorcode.get)
def test_every_error_of_a_disk_says_what_to_do(number: int, tmp_path: Path) -> None:
    file = str(tmp_path / "summary.json")
    line = disk_line(OSError(number, os.strerror(number), file))
    assert line.startswith(f"{file}: {os.strerror(number)}; nothing that was written is lost: ")
    assert "another disk" in line and "then run the same command again" in line
    assert disk_line(OSError(number, os.strerror(number))).startswith(os.strerror(number))


def test_a_full_disk_is_named_with_its_free_space(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("1m")
    line = disk_line(OSError(errno.ENOSPC, "No space left on device", str(disk / "m" / "card.json")))
    assert f"the disk at {disk} has 1.0 MB left; free space there, or choose" in line, "there is no run directory"
    (disk / "run").mkdir()
    (disk / "run" / "provenance.json").touch()
    line = disk_line(OSError(errno.ENOSPC, "No space left on device", str(disk / "run" / "summary.json")))
    assert f"the disk at {disk} has 1.0 MB left; free space there (cache/ and tensorboard/" in line


def test_other_errors_name_the_file_alone() -> None:
    assert disk_line(OSError(errno.ENOENT, "No such file or directory", "a")) == "a: No such file or directory"
