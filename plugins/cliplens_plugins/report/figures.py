"""Draw the figures of the page as SVG: the histogram of the Modality Dominance Score and the dose-response curve."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import escape

from cliplens.records import LatentTable

_BINS = 40
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 250, 44, 40, 14
_LOW, _HIGH = 0.2, 0.8


def modality_histogram(table: LatentTable | None) -> str:
    """Draw the number of living latents by score, coloured by class; "" where the table has no score."""
    if table is None or "mds" not in table:
        return ""
    mds = np.asarray(table["mds"], dtype=np.float64)
    mds = mds[~np.isnan(mds)]
    if not len(mds):
        return ""
    counts, edges = np.histogram(mds, bins=_BINS, range=(0, 1))
    highest = max(int(counts.max()), 1)
    parts = [
        _axis(highest),
        *(_bar(int(n), lo, hi, highest) for n, lo, hi in zip(counts, edges, edges[1:], strict=False)),
    ]
    parts += [_cut(_LOW, "0.2"), _cut(_HIGH, "0.8"), _paper(float(mds.mean()), float(mds.std()))]
    about = f"Histogram of the Modality Dominance Score of {len(mds)} living latents"
    return (
        f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" aria-label="{escape(about)}">'
        f"<title>{escape(about)}</title>{''.join(parts)}</svg>"
    )


def class_of(mds: float) -> str:
    """Return the class by the fixed cuts.

    >>> class_of(0.1), class_of(0.5), class_of(0.9)
    ('TextD', 'CrossD', 'ImgD')
    """
    return "TextD" if mds < _LOW else "ImgD" if mds > _HIGH else "CrossD"


def _x(value: int | float) -> float:
    return float(_LEFT + value * (_WIDTH - _LEFT - 12))


def _y(count: int, highest: int) -> float:
    return _HEIGHT - _BOTTOM - count / highest * (_HEIGHT - _BOTTOM - _TOP - 18)


def _bar(count: int, low: float, high: float, highest: int) -> str:
    if count == 0:
        return ""
    kind = class_of((low + high) / 2)
    top = _y(count, highest)
    label = f"{count} latent{'s' if count != 1 else ''} with MDS from {low:.3f} to {high:.3f}: show them"
    return (
        f'<rect class="bar fill-{kind}" x="{_x(low) + 0.75:.2f}" y="{top:.2f}" width="{_x(high) - _x(low) - 1.5:.2f}" '
        f'height="{_HEIGHT - _BOTTOM - top:.2f}" rx="1.5" tabindex="0" role="button" data-low="{low:.4f}" '
        f'data-high="{high:.4f}" aria-label="{label}"><title>{label}</title></rect>'
    )


def _axis(highest: int) -> str:
    base = _HEIGHT - _BOTTOM
    steps = sorted({0, round(highest / 2), highest})
    lines = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{_y(n, highest):.1f}" y2="{_y(n, highest):.1f}"/>'
        f'<text class="tick" x="{_LEFT - 8}" y="{_y(n, highest) + 4:.1f}" text-anchor="end">{n}</text>'
        for n in steps
    )
    ticks = "".join(
        f'<text class="tick" x="{_x(v):.1f}" y="{base + 17}" text-anchor="middle">{v:g}</text>'
        for v in (0, 0.2, 0.4, 0.6, 0.8, 1)
    )
    return (
        f'{lines}{ticks}<text class="tick" x="{_x(0):.1f}" y="{base + 34}">← captions only</text>'
        f'<text class="tick strong" x="{_x(0.5):.1f}" y="{base + 34}" text-anchor="middle">'
        f"Modality Dominance Score</text>"
        f'<text class="tick" x="{_x(1):.1f}" y="{base + 34}" text-anchor="end">images only →</text>'
    )


def _cut(at: float, label: str) -> str:
    return (
        f'<line class="cut" x1="{_x(at):.1f}" x2="{_x(at):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">'
        f"<title>fixed cut at {label}</title></line>"
    )


def _paper(mean: float, spread: float) -> str:
    low, high = _x(max(0.0, mean - spread)), _x(min(1.0, mean + spread))
    y = _TOP - 4
    ends = "".join(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 4}" y2="{y + 4}"/>' for x in (low, high))
    return (
        f'<g class="paper"><line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>{ends}'
        f'<circle cx="{_x(mean):.1f}" cy="{y}" r="3"/>'
        f"<title>mean and one standard deviation to each side: {mean:.3f} ± {spread:.3f}</title></g>"
    )


_CHANGED, _INTERVAL = " changed", "95 %"


def dose_curve(measured: Sequence[Mapping[str, Any]], aim: str | None) -> str:
    """Draw success and side effects of steering against the dose; return "" if nothing was measured.

    Success is drawn with its interval. Each attribute that should stay has a line; the one that changed most is
    labelled and emphasised.
    """
    if not aim or len(measured) < 2 or aim not in measured[0]:
        return ""
    doses = [float(row["dose"]) for row in measured]
    span = max(doses) - min(doses) or 1.0
    at = [(dose - min(doses)) / span for dose in doses]
    hits = [float(row[aim]) for row in measured]
    stay = {n.removesuffix(_CHANGED): [float(r[n]) for r in measured] for n in measured[0] if n.endswith(_CHANGED)}
    worst = max(stay, key=lambda n: max(stay[n]), default=None)
    parts = [_shares(), *(_other(name, at, values) for name, values in stay.items() if name != worst)]
    band = [_ends(row.get(_INTERVAL)) for row in measured]
    if all(band):
        low, high = ([pair[end] for pair in band if pair] for end in (0, 1))
        parts.append(f'<path class="band" d="{_path(at, high)} {_path(at[::-1], low[::-1], "L")} Z"/>')
    if worst:
        parts.append(f'<path class="worst" d="{_path(at, stay[worst])}"/>')
    parts.append(f'<path class="aim" d="{_path(at, hits)}"/>')
    parts += [_dot(x, y, f"dose {d:g}: {y:.0%} read as {aim}") for x, y, d in zip(at, hits, doses, strict=True)]
    parts += [
        f'<text class="tick" x="{_x(x):.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{dose:g}</text>'
        for x, dose in zip(at, doses, strict=True)
    ]
    about = f"Share of pictures read as {aim} against the dose"
    says = f", and the share in which the attribute {worst} changed" if worst else ""
    return (
        f'<svg class="histogram doses" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(about + says)}">'
        f"<title>{escape(about + says)}</title>{''.join(parts)}"
        f'<text class="tick strong" x="{_x(0.5):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">dose</text></svg>'
    )


def worst_of(measured: Sequence[Mapping[str, Any]]) -> str | None:
    """Return, of the attributes that should stay, the one that steering changed most at any dose."""
    names = [n for n in (measured[0] if measured else {}) if n.endswith(_CHANGED)]
    found = max(names, key=lambda n: max(float(row[n]) for row in measured), default=None)
    return found and found.removesuffix(_CHANGED)


def _other(name: str, at: Sequence[float], values: Sequence[float]) -> str:
    return f'<path class="other" d="{_path(at, values)}"><title>{escape(name)} changed</title></path>'


def _share_y(share: int | float) -> float:
    return float(_HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP))


def _shares() -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{_share_y(v):.1f}" y2="{_share_y(v):.1f}"/>'
        f'<text class="tick" x="{_LEFT - 8}" y="{_share_y(v) + 4:.1f}" text-anchor="end">{v:.0%}</text>'
        for v in (0, 0.5, 1)
    )


def _path(at: Sequence[float], values: Sequence[float], start: str = "M") -> str:
    points = [f"{_x(x):.1f} {_share_y(y):.1f}" for x, y in zip(at, values, strict=True)]
    return f"{start} {' L '.join(points)}"


def _dot(x: float, y: float, label: str) -> str:
    return f'<circle class="dot" cx="{_x(x):.1f}" cy="{_share_y(y):.1f}" r="4"><title>{escape(label)}</title></circle>'


def _ends(interval: Any) -> tuple[float, float] | None:
    """Parse an interval such as "0.10-0.30"."""
    try:
        low, high = str(interval).split("-")
        return float(low), float(high)
    except ValueError:
        return None
