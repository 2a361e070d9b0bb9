# SPDX-License-Identifier: MIT
"""A comparison as a picture that stands alone: one bar per family on one axis, for notebooks that do not run pages."""

from html import escape

BUSY, IDLE, DARK, DIM = "#2a65a6", "#c9d6e4", "#1b1f24", "#57606a"
ROW, TOP, BAR, AXIS = 24, 66, 12, 460


def _text(x, y, text, anchor="start", fill=DARK, more=""):
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{fill}"{more}>{escape(text)}</text>'


def _box(x, y, width, fill):
    return f'<rect x="{x:g}" y="{y:g}" width="{width:.6g}" height="{BAR}" fill="{fill}"/>'


def _row(s, y, left, columns, scale):
    """A bar, busy and idle, with a tick at the bound, and the numbers of the family."""
    length, bound, middle = s.makespan * scale, left + s.bound.makespan * scale, y + BAR - 1
    numbers = (f"{100 * s.metrics.bubble_ratio:.1f} %", f"{s.metrics.peak_activations:.4g}", f"{s.metrics.parameter_copies:.3g}")
    return [
        _text(left - 8, middle, s.name, "end"),
        _box(left, y, length, IDLE),
        _box(left, y, length * (1 - s.metrics.bubble_ratio), BUSY),
        f'<path d="M{bound:.6g} {y - 3}v{BAR + 6}" stroke="{DARK}" stroke-width="2"/>',
        _text(left + length + 6, middle, f"{s.makespan:.4g}"),
        *(_text(x, middle, number, "end") for x, number in zip(columns, numbers)),
    ]


def svg_of_studies(title, studies, unit=""):
    """The studies, the shortest first; empty without any."""
    studies = sorted(studies, key=lambda s: s.makespan)
    if not studies:
        return None
    left = 24 + 7.5 * max(len(s.name) for s in studies)
    columns = [left + AXIS + x for x in (140, 220, 290)]
    width, height = columns[-1] + 16, TOP + ROW * len(studies) + 28
    scale = AXIS / (studies[-1].makespan or 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        'style="max-width:100%;height:auto" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
        _text(16, 26, title, more=' font-size="17" font-weight="bold"'),
        _text(left, TOP - 14, f"makespan, {unit}" if unit else "makespan", fill=DIM),
        *(_text(x, TOP - 14, name, "end", DIM) for x, name in zip(columns, ("idle", "peak", "copies"))),
    ]
    for i, s in enumerate(studies):
        lines += _row(s, TOP + ROW * i, left, columns, scale)
    lines.append(_text(left, height - 10, "dark: busy; light: idle; tick: no order of such cells is shorter", fill=DIM))
    return "\n".join([*lines, "</svg>\n"])
