"""Text in columns."""

from collections.abc import Sequence


def columns(rows: Sequence[tuple[str, ...]], *, numbers: bool = True) -> list[str]:
    """Rows with the first column to the left, and the others to the right if they are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index and numbers else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
