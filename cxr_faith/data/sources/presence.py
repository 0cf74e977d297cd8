"""Phrasings of "is this finding there?", for data sets that have labels but no questions."""

from __future__ import annotations

import hashlib

PHRASINGS = (
    "Is there evidence of {finding}?",
    "Does this chest X-ray show {finding}?",
    "Can {finding} be seen in this image?",
    "Are there signs of {finding}?",
    "Is {finding} present?",
)
"""The first is asked by default; with several, each is a variant of the same question group."""


def phrasings(finding: str, count: int) -> list[str]:
    """The first `count` phrasings of the question.

    Raises:
        ValueError: There are not so many.
    """
    if not 1 <= count <= len(PHRASINGS):
        raise ValueError(f"phrasings must be 1 to {len(PHRASINGS)}, got {count}")
    return [phrasing.format(finding=finding) for phrasing in PHRASINGS[:count]]


def shuffled(ids: list[str], purpose: str) -> list[str]:
    """Ids in an order that depends on their names only, for a choice that is the same on every machine."""
    return sorted(ids, key=lambda name: hashlib.blake2b(f"{purpose}/{name}".encode(), digest_size=8).digest())
