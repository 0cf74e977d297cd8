"""Phrasings of "is this finding present?", for data sets with labels but without questions."""

from __future__ import annotations

import hashlib

PHRASINGS = (
    "Is there evidence of {finding}?",
    "Does this chest X-ray show {finding}?",
    "Can {finding} be seen in this image?",
    "Are there signs of {finding}?",
    "Is {finding} present?",
)
"""The first one is the default; several form a question group, each as one variant."""


def phrasings(finding: str, count: int) -> list[str]:
    """The first `count` phrasings of the question about a finding.

    Raises:
        ValueError: `count` is less than 1 or more than there are.
    """
    if not 1 <= count <= len(PHRASINGS):
        raise ValueError(f"phrasings must be 1 to {len(PHRASINGS)}, got {count}")
    return [phrasing.format(finding=finding) for phrasing in PHRASINGS[:count]]


def shuffled(ids: list[str], purpose: str) -> list[str]:
    """Ids in a pseudo-random order that depends only on the ids and the purpose, the same on every machine."""
    return sorted(ids, key=lambda name: hashlib.blake2b(f"{purpose}/{name}".encode(), digest_size=8).digest())
