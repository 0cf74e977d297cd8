"""Files that are made when they are asked for: held in memory until newer answers take their place, never on disk."""

import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from starlette.responses import PlainTextResponse, Response

_log = logging.getLogger(__name__)

PLACE = "objects"
"""Where the files are, below the page's own address."""

_MOST = 4
_LACKING = "There is no such file any more. Ask again."
_REFUSED = "The header of this film has values that DICOM objects cannot repeat, so there are none."

Make = Callable[[], bytes | None]
"""Makes a file; None where it cannot be made."""


class Downloads:
    """The files of the latest answers, under names that nobody can guess."""

    def __init__(self) -> None:
        self._offered, self._lock = OrderedDict[str, tuple[str, Make]](), Lock()

    def offer(self, name: str, make: Make) -> str:
        """Offer a file; the oldest offer ends where there are too many.

        Args:
            name: of the file that the reader saves.
            make: makes its content, each time that it is asked for.

        Returns:
            its address, relative to the page.
        """
        key = secrets.token_urlsafe(12)
        with self._lock:
            self._offered[key] = name, make
            while len(self._offered) > _MOST:
                self._offered.popitem(last=False)
        return f"{PLACE}/{key}"

    def send(self, key: str) -> Response:
        """The answer to a request for a file."""
        with self._lock:
            offered = self._offered.get(key)
        if offered is None:
            return PlainTextResponse(_LACKING, 404)
        name, make = offered
        content = make()
        if content is None:
            _log.warning("%s: %s", name, _REFUSED)  # browsers show no text of a download that failed
            return PlainTextResponse(_REFUSED, 422)
        return Response(
            content, headers={"Content-Disposition": f'attachment; filename="{name}"'}, media_type="application/zip"
        )
