"""Pictures of the rows of a `datasets` data set: as bytes or as a path; they are written below the manifest's root."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cxr_faith.data.answers import UnreadableError
from cxr_faith.data.images import ImageError, resolve
from cxr_faith.data.intake import kind_of_fault
from cxr_faith.data.picture_files import BY_NAME, PictureFiles, not_found
from cxr_faith.data.sources.table_cells import path_in, paths_in
from cxr_faith.data.tally import Tally
from cxr_faith.storage.atomic import replacing

_MAX_FILE = 2**28
_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png"}


class HubPictures:
    """Writes the pictures of rows to ROOT/images, each named by its content.

    Args:
        root: folder that the pictures are written to.
        base: folder that paths are relative to and must stay in.
        tally: takes the counts.
        values: gives the column of pictures, to tell which stems several paths have.
    """

    def __init__(self, root: Path, base: Path, tally: Tally, values: Callable[[], Iterable[Any]]) -> None:
        self._folder, self._base, self._tally = root / "images", base, tally
        self._files = PictureFiles(base, tally, lambda: paths_in(values()))
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, value: Any) -> Path:
        """Write a row's picture; returns its file.

        Raises:
            UnreadableError: there is no picture, or it cannot be used.
        """
        if isinstance(value, list):
            if len(value) > 1:
                raise UnreadableError("row has several pictures, one is expected")
            value = value[0] if value else None
        content = self._content(value)
        suffix = next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), None)
        if suffix is None:
            raise UnreadableError("picture is not JPEG or PNG")
        path = self._folder / f"{hashlib.blake2b(content, digest_size=12).hexdigest()}.{suffix}"
        if not path.is_file() or path.stat().st_size != len(content):
            with replacing(path, durable=False) as file:  # it can be written again
                file.write(content)
        return path

    def _content(self, value: Any) -> bytes:
        """Content of a row's picture file; its path is looked for as the source `table` does.

        Raises:
            UnreadableError: the row has no picture, or it is outside the data set's folder.
        """
        if isinstance(value, Mapping) and value.get("bytes"):
            return bytes(value["bytes"])
        path = path_in(value)
        file = self._files.find(path)
        if file is None:
            if path:
                self._tally.missing = self._tally.missing or not_found(path, self._base)
            raise UnreadableError("picture is missing")
        try:
            whole = resolve(file, self._base)
            if whole.stat().st_size > _MAX_FILE:
                raise UnreadableError("picture is larger than 256 MiB")
            content = whole.read_bytes()
        except (ImageError, OSError) as error:
            outside = kind_of_fault(str(error)) == "outside the data root"
            fault = "picture is outside the data set's folder" if outside else "picture cannot be read"
            raise UnreadableError(fault) from error
        if file != path:
            self._tally.note(BY_NAME)
        return content
