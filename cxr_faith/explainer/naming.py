"""Names of the files of an explanation: two different explanations never share one."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

LONGEST = 80
"""Bytes of a picture's name that are kept; file systems allow 255 for the whole name."""


def result_stem(image: str, method: str, asked: Mapping[str, object], files: Sequence[str | Path] = ()) -> str:
    """`<picture>-<method>-<hash>`, which begins the names of all files of one explanation.

    The hash is of the picture's path and content and of everything that was asked, so the same command gives the same
    name. Characters that are neither letters nor digits become underscores.

    Args:
        image: path of the picture, or of the folder of several.
        method: the attribution method.
        asked: every option that the explanation depends on, as JSON values.
        files: the pictures, where there are several.
    """
    digest = hashlib.blake2b(os.fsencode(os.path.abspath(image)), digest_size=8)
    for file in files or [image]:
        digest.update(hashlib.blake2b(Path(file).read_bytes()).digest())
    digest.update(json.dumps(asked, sort_keys=True).encode())
    picture = re.sub(r"[^\w-]", "_", Path(image).stem).encode()[:LONGEST].decode(errors="ignore")
    return f"{picture}-{re.sub(r'[^a-zA-Z0-9_-]', '_', method)}-{digest.hexdigest()}"
