"""Several pictures of one question as one sheet: pictures of one size, one below the other.

A sheet's cells are those of its pictures in turn, so a map of a sheet, its orders and its masks are those of a picture.
What looks at neighbors, such as a blur, takes the pictures apart first.
"""

from torch import Tensor


def apart(sheets: Tensor, pictures: int) -> Tensor:
    """Sheets [batch, channels, pictures * H, W] as pictures [batch * pictures, channels, H, W]."""
    if pictures == 1:
        return sheets
    parts: Tensor = sheets.unflatten(-2, (pictures, -1)).movedim(-3, 1).flatten(0, 1)
    return parts


def together(parts: Tensor, pictures: int) -> Tensor:
    """Pictures [batch * pictures, channels, H, W] as sheets [batch, channels, pictures * H, W]."""
    if pictures == 1:
        return parts
    sheets: Tensor = parts.unflatten(0, (-1, pictures)).movedim(1, -3).flatten(-3, -2)
    return sheets
