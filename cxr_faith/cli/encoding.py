"""UTF-8 for the files of a command whatever the locale, also for those that libraries read and write."""

import locale
import os
import sys
from contextlib import suppress


def use_utf8() -> None:
    """Make UTF-8 the encoding of files; arguments and file names keep that of the locale.

    With an ASCII locale there would be no way to name a file such as `übung.png`. Python starts in UTF-8 mode there,
    unless it was told not to: then it starts anew.
    """
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    with suppress(locale.Error):  # an old system, which has no such locale
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
