"""Finds the picture that a table means where its path is not that of the file: another folder, or no suffix."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from cxr_faith.printable import printable

_SUFFIX = re.compile(r"\.(png|jpe?g|dcm|dicom)$", re.IGNORECASE)
_OTHER_SUFFIX = re.compile(r"\.[A-Za-z]\w*$")  # DICOM files are often named by numbers with dots alone
_LONGEST = 200


class PictureFiles:
    """The picture files below a folder, by the stem of their name.

    The folder is searched when a file is first missed, and then once: that takes minutes for hundreds of thousands of
    files on a shared file system.

    Args:
        root: folder of the pictures.
        asked: gives all paths that will be looked up. A stem that several of them have names no file.
    """

    def __init__(self, root: Path, asked: Callable[[], Iterable[str]] = tuple) -> None:
        self._root, self._asked = root, asked
        self._files: dict[str, str | None] | None = None

    def find(self, path: str) -> str | None:
        """The file of a path, relative to the root: the path itself, else the only file with its stem, else None."""
        try:
            if not path or (self._root / path).is_file():
                return path or None
        except (OSError, ValueError):  # too long a name, a null byte
            return None
        return self.by_stem(path)

    def by_stem(self, path: str) -> str | None:
        """The only file below the root whose name has the stem of the path's; None for none and for several."""
        if self._files is None:
            self._files = {}
            for file in pictures_below(self._root):
                stem = _stem(file)
                self._files[stem] = None if stem in self._files else file
            first: dict[str, str] = {}
            for name in self._asked():
                if first.setdefault(_stem(name), name) != name:
                    self._files[_stem(name)] = None
        return self._files.get(_stem(path))


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
