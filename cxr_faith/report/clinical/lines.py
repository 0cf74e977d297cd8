"""A paragraph in lines that reach the edge of their box: letters are measured, not counted."""

from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from cxr_faith.printable import printable
from cxr_faith.report.letters import readable

_ROOM = 1.02  # a PDF may set letters a little wider than they were measured


def lines_of(text: str, width: float, points: float, bold: bool = False, most: int = 6) -> list[str]:
    """A text in lines of at most a width; beyond `most` lines it is cut and ends with an ellipsis.

    Args:
        text: plain text.
        width: in inches.
        points: size of the letters.
        bold: whether they are bold.
        most: number of lines.
    """

    def fits(line: str) -> bool:
        return _ROOM * width_of(line, points, bold) <= width

    lines = [""]
    for word in readable(printable(text)).split():
        if lines[-1] and not fits(f"{lines[-1]} {word}"):
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
        while not fits(lines[-1]) and len(lines[-1]) > 1:  # a word that is longer than a line
            cut = next(end for end in range(len(lines[-1]) - 1, 0, -1) if end == 1 or fits(lines[-1][:end]))
            lines[-1:] = [lines[-1][:cut], lines[-1][cut:]]
    if len(lines) > most:
        last = lines[most - 1]
        while last and not fits(f"{last}…"):
            last = last[:-1]
        lines = [*lines[: most - 1], f"{last.rstrip()}…"]
    return [line for line in lines if line]


@lru_cache(maxsize=4096)
def width_of(line: str, points: float, bold: bool) -> float:
    """Width of a line in inches, in the font that figures are drawn with."""
    font = FontProperties(size=points, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(line, font, ismath=False)[0]) / 72
