"""The documents, and the commands and examples in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = ("one-picture.md", "changelog.md")


def documents() -> dict[str, str]:
    """Text of each document by its path in the repository."""
    files = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "slurm/README.md")]
    files += [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.name not in GENERATED]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files}


def document(name: str) -> str:
    """Text of one document, by its path in the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Contents of the fenced blocks of a language."""
    return re.findall(rf"(?s)```{language}\n(.*?)```", text)


def command_lines(text: str) -> list[str]:
    """Lines of shell blocks, fenced or indented by four; continued lines are joined, remarks behind them cut off."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [line for block in blocks(joined, "sh") for line in block.splitlines()]
    lines += re.findall(r"(?m)^    (\S.*)$", _without_blocks(joined))
    return [re.split(r" {2,}| #", line)[0] for line in lines]


def inline_commands(text: str) -> list[str]:
    """Commands in backticks within the text."""
    return re.findall(r"`((?:cxr-faith|make|prepare|pip|python|pytest|sbatch) [^`\n]+)`", _without_blocks(text))


def section(text: str, title: str) -> str:
    """The section below a heading of level two, up to the next one."""
    match = re.search(rf"(?ms)^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text)
    assert match is not None, title
    return match[1]


def _without_blocks(text: str) -> str:
    return re.sub(r"(?s)```.*?```", "", text)
