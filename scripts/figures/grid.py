"""Every content in every style, with both beside: for the figures that are grids."""

from __future__ import annotations

from PIL import Image

from common import Bench, Row, measure, transfer
from diffstyle.figures.table import Cell, table
from diffstyle.images import to_image


def grid(bench: Bench, title: str) -> tuple[Image.Image, list[Row]]:
    """The sheet, contents down and styles across, and the numbers of all pairs."""
    results = transfer(bench, bench.settings)
    rows: list[list[Cell]] = [[None, *map(to_image, bench.styles)]]
    rows += [[to_image(x), *map(to_image, of_content)] for x, of_content in zip(bench.contents, results, strict=True)]
    return table(rows, row_title="content", column_title="style", title=title), measure(bench, results, "all")
