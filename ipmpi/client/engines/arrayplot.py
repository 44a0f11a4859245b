"""Pictures of distributed arrays, for which no more elements move than the picture has pixels."""

from __future__ import annotations

from typing import Any, Final, Protocol

from ...arrays.layout import Block, Position
from ..display.pyplot import axes_for

_LONG: Final = 20
"""Ratio of the sides from which on an image fills its box, as it would be a line otherwise."""


class Drawn(Protocol):
    """The part of a :class:`~ipmpi.client.engines.distributed.DistributedArray` that is needed here."""

    name: str
    shape: Position
    dtype: Any
    blocks: tuple[Block, ...]

    def at_step(self, index: Any) -> tuple[Any, int | None]:
        """Get some elements, and the step of the program, if it is one."""


def plot(array: Drawn, ax: Any, ranks: bool, at: int | None) -> Any:
    """Draw an array; see :meth:`ipmpi.client.engines.distributed.DistributedArray.plot`."""
    _check(array, at)
    axes = axes_for(ax)
    title = array.name
    layer = None
    if len(array.shape) == 1:
        step = _step(array.shape[0], axes.get_window_extent().width)
        line, number = array.at_step(slice(None, None, step))
        axes.plot(range(0, array.shape[0], step), line)
        axes.set_xlabel("index")
    else:
        if len(array.shape) == 3:
            layer = array.shape[0] // 2 if at is None else range(array.shape[0])[at]
            title += f"[{layer}]"
        number = _draw_image(array, axes, () if layer is None else (layer,))
    axes.set_title(title if number is None else f"{title} before step {number}")
    if ranks:
        for block in array.blocks:
            if 0 not in block.shape:
                _draw_block(block, axes, layer)
    return axes


def _check(array: Drawn, at: int | None) -> None:
    if array.dtype.kind == "c":
        raise TypeError(f"{array.name} has complex numbers: plot its absolute value, an array made on the engines")
    if 0 in array.shape or len(array.shape) > 3:
        raise ValueError(f"{array.name} has shape {array.shape}: plot() draws 1 to 3 dimensions, none empty")
    if at is None:
        return
    if len(array.shape) < 3:
        raise ValueError(f"at= chooses a slice of 3 dimensions, and {array.name} has {len(array.shape)}")
    if not -array.shape[0] <= at < array.shape[0]:
        raise IndexError(f"at={at} is out of bounds for dimension 0 with size {array.shape[0]}")


def _draw_image(array: Drawn, axes: Any, before: tuple[int, ...]) -> int | None:
    """Draw the last two dimensions, as ``imshow`` draws a whole array: rows from top to bottom.

    Returns:
        The step of the program.
    """
    box = axes.get_window_extent()
    height, width = array.shape[-2:]
    down, right = _step(height, box.height), _step(width, box.width)
    image, number = array.at_step((*before, slice(None, None, down), slice(None, None, right)))
    rows, columns = image.shape  # a picture element stands for down x right elements
    extent = (-0.5, columns * right - 0.5, rows * down - 0.5, -0.5)
    aspect = "auto" if max(height, width) > _LONG * min(height, width) else "equal"
    axes.imshow(image, extent=extent, interpolation="nearest", aspect=aspect)
    axes.set_ylabel(f"dimension {len(array.shape) - 2}")
    axes.set_xlabel(f"dimension {len(array.shape) - 1}")
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    return number


def _step(length: int, pixels: float) -> int:
    return max(1, -(-length // max(1, round(pixels))))


def _draw_block(block: Block, axes: Any, layer: int | None) -> None:
    """Draw the border of a block, and the id of its engine."""
    label = str(block.engine)
    if len(block.shape) == 1:
        axes.axvline(block.offset[0] - 0.5, color="gray", linewidth=0.5)
        middle = block.offset[0] + block.shape[0] / 2 - 0.5
        axes.text(middle, 0.98, label, transform=axes.get_xaxis_transform(), ha="center", va="top")
        return
    if layer is not None and not block.offset[0] <= layer < block.offset[0] + block.shape[0]:
        return
    (top, left), (height, width) = block.offset[-2:], block.shape[-2:]
    begin, end, low, high = left - 0.5, left + width - 0.5, top - 0.5, top + height - 0.5
    axes.plot([begin, end, end, begin, begin], [low, low, high, high, low], color="white", linewidth=0.8)
    axes.text((begin + end) / 2, (low + high) / 2, label, color="white", ha="center", va="center")
