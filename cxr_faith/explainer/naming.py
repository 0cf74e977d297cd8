"""Names of the files of an explanation: two different explanations never share one."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

LONGEST = 80
"""Bytes of a picture's name that are kept; file systems allow 255 for the whole name."""


def result_stem(image: str, method: str, asked: Mapping[str, object]) -> str:
    """`<picture>-<method>-<hash>`, which begins the names of all files of one explanation.

    The hash is of the picture's path and content and of everything that was asked, so the same command gives the same
    name. Characters that are neither letters nor digits become underscores.

    Args:
        image: path of the picture.
        method: the attribution method.
        asked: every option that the explanation depends on, as JSON values.
    """
    digest = hashlib.blake2b(os.fsencode(os.path.abspath(image)), digest_size=8)
    digest.update(hashlib.blake2b(Path(image).read_bytes()).digest())
    digest.update(json.dumps(asked, sort_keys=True).encode())
    picture = re.sub(r"[^\w-]", "_", Path(image).stem).encode()[:LONGEST].decode(errors="ignore")
    return f"{picture}-{re.sub(r'[^a-zA-Z0-9_-]', '_', method)}-{digest.hexdigest()}"
