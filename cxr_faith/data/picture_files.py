"""Finds the picture that a table means where its path is not that of the file: another folder, or no suffix."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from cxr_faith.data.tally import Tally
from cxr_faith.printable import printable

BY_NAME = "images found by their name without folders and suffix"
"""What is counted as changed where a file was found by its stem."""

_SUFFIX = re.compile(r"\.(png|jpe?g|dcm|dicom)$", re.IGNORECASE)
_OTHER_SUFFIX = re.compile(r"\.[A-Za-z]\w*$")  # DICOM files are often named by numbers with dots alone
_LONGEST = 200


class PictureFiles:
    """The picture files below a folder, by the stem of their name.

    The folder is searched when a file is first missed, and then once: that takes minutes for hundreds of thousands of
    files on a shared file system.

    Args:
        root: folder of the pictures.
        tally: takes the first path that could mean several files, as the picture that was not found.
        asked: gives all paths that will be looked up. A stem that several of them have names no file.
    """

    def __init__(self, root: Path, tally: Tally, asked: Callable[[], Iterable[str]] = tuple) -> None:
        self._root, self._tally, self._asked = root, tally, asked
        self._files: dict[str, str] | None = None
        self._unclear: dict[str, str] = {}  # stem → why it names no file

    def find(self, path: str) -> str | None:
        """The file of a path, relative to the root: the path itself, else the only file with its stem, else None."""
        try:
            if not path or (self._root / path).is_file():
                return path or None
        except (OSError, ValueError):  # too long a name, a null byte
            return None
        if self._files is None:
            self._files = self._search()
        stem = _stem(path)
        if stem in self._unclear:
            self._tally.missing = self._tally.missing or self._unclear[stem]
            return None
        return self._files.get(stem)

    def _search(self) -> dict[str, str]:
        """The first file of each stem; stems of several files or paths are noted as unclear."""
        files: dict[str, str] = {}
        for file in pictures_below(self._root):
            stem = _stem(file)
            if files.setdefault(stem, file) != file:
                both = f"{printable(files[stem])} and {printable(file)}"
                self._unclear.setdefault(stem, f"several files are named {printable(stem)}: {both}")
        first: dict[str, str] = {}
        for path in self._asked():
            stem = _stem(path)
            if stem in files and first.setdefault(stem, path) != path:
                there = f"there is only {printable(files[stem])}"
                self._unclear.setdefault(stem, f"several paths of the table end in {printable(stem)}; {there}")
        return files


def pictures_below(root: Path) -> Iterator[str]:
    """Paths of the files below a folder that have a picture's suffix or none, relative to the folder, in a fixed order.

    Hidden files and folders, and links to folders, are left out.
    """
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and (_SUFFIX.search(name) or not _OTHER_SUFFIX.search(name)):
                yield str(PurePosixPath(Path(folder).relative_to(root), name))


def not_found(path: str, root: Path) -> str:
    """Says which file was tried for a path, and names one picture that is there."""
    here = next(pictures_below(root), None)
    there = f"there is {printable(str(root / here))[-_LONGEST:]}" if here else f"{root} holds no picture"
    # In a table whose columns are mixed up, the value may be any text of the data set, which must not be printed.
    plain = len(path) <= _LONGEST and (_SUFFIX.search(path) or not re.search(r"\s", path))
    return f"tried {printable(str(root / path)) if plain else 'a text that is no file name'}; {there}"


def _stem(path: str) -> str:
    """Name of a file without its folders, of either system, and without a picture's suffix."""
    return _SUFFIX.sub("", PureWindowsPath(path).name)
