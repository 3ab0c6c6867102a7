"""Faults of a drawn figure: unnamed axes, texts that overlap or are cut off."""

from typing import NamedTuple

import numpy as np

# Pixels by which boxes, which have margins, may overlap.
SLACK = 1.0


class Side(NamedTuple):
    """The visible parts of the x or the y axis of a panel."""

    name: str
    has_numbers: bool
    has_marks: bool


def faults(fig):
    """Draw a figure, and return the faults of its texts."""
    fig.canvas.draw()
    panels = [panel for panel in fig.axes if panel.get_visible()]
    boxes = [_box(panel) for panel in panels]
    sides = [{"x": _side(panel.xaxis), "y": _side(panel.yaxis)} for panel in panels]
    texts = [(number, *text) for number, panel in enumerate(panels) for text in _texts(panel)]
    places, edges = np.array([box for *_, box in texts]), _box(fig)
    names = [f"{name!r} of panel {number}" for number, name, _ in texts]
    marks = [_box(patch) for panel in panels for patch in panel.patches if not patch.get_clip_on()]
    found = list(_unnamed(boxes, sides))
    for n, (number, _, box) in enumerate(texts):
        if np.any(box[:2] < edges[:2] - SLACK) or np.any(box[2:] > edges[2:] + SLACK):
            found.append(f"{names[n]} is cut off")
        met = np.flatnonzero(_meet(box, places[:n])) if n else []
        found += [f"{names[n]} overlaps {names[other]}" for other in met]
        others = [one for one in boxes if np.abs(one - boxes[number]).max() > SLACK]
        for what, where in (("another panel", others), ("a mark", marks)):
            if where and _meet(box, np.array(where)).any():
                found.append(f"{names[n]} lies on {what}")
    return found


def _box(artist):
    if hasattr(artist, "get_window_extent"):
        return np.array(artist.get_window_extent().extents)
    return np.array(artist.bbox.extents)


def _meet(box, others):
    """Whether a box and others share more than their margins."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    return ((high - low) > SLACK).all(axis=1)


def _side(axis):
    ticks = _ticks_in_view(axis)
    marks = [one for tick in ticks for one in (tick.tick1line, tick.tick2line)]
    has_marks = any(one.get_visible() and one.get_markersize() for one in marks)
    return Side(axis.label.get_text(), bool(_numbers(axis)), axis.get_visible() and has_marks)


def _ticks_in_view(axis):
    low, high = sorted(axis.get_view_interval())
    margin = 1e-9 * (high - low)
    return [
        tick for tick in axis.get_major_ticks() if low - margin <= tick.get_loc() <= high + margin
    ]


def _numbers(axis):
    labels = [one for tick in _ticks_in_view(axis) for one in (tick.label1, tick.label2)]
    return [one for one in labels if one.get_visible() and one.get_text().strip()]


def _texts(panel):
    """Yield name and box of each text that is seen."""
    texts = [panel.title, panel._left_title, panel._right_title, *panel.texts]
    for axis in (panel.xaxis, panel.yaxis):
        texts += [axis.label, axis.get_offset_text(), *_numbers(axis)]
    legend = panel.get_legend()
    texts += [] if legend is None else legend.get_texts()
    for text in texts:
        if text.get_visible() and text.get_text().strip():
            yield text.get_text(), _box(text)


def _unnamed(boxes, sides):
    """Axes without a name, or with marks and no numbers, there and beyond in the grid."""
    for number, own in enumerate(sides):
        for side, axis in own.items():
            beyond = [
                other[side]
                for place, other in enumerate(sides)
                if _continues(boxes[number], boxes[place], side)
            ]
            seen = axis.has_numbers or axis.has_marks
            if seen and not any(one.has_numbers for one in [axis, *beyond]):
                yield f"the {side} axis of panel {number} has marks and no numbers"
            elif seen and not any(one.name for one in [axis, *beyond]):
                yield f"the {side} axis of panel {number} has numbers and no name"


def _continues(box, other, side):
    """Whether another panel is below, or left of, a panel, and as wide or high."""
    across, along = (0, 1) if side == "x" else (1, 0)
    same = np.abs((box - other)[[across, across + 2]]).max() < 2 * SLACK
    return same and other[along + 2] <= box[along]
