"""Draw figures against L0 as SVG: one plot per figure and basis, with intervals, controls and the Pareto front."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import escape

from cliplens.pages import figure as said
from cliplens_plugins.comparison.compare import Comparison, Measured
from cliplens_plugins.comparison.figures import Figure

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 520, 320, 76, 46, 14, 18


@dataclass(frozen=True)
class Plot:
    """One plot: its figure, its drawing, and the configurations in it."""

    figure: Figure
    svg: str
    names: Sequence[str]
    basis: str
    """The basis that all of them share, in words; "" where there is only one in the comparison."""


def plots(found: Comparison) -> list[Plot]:
    """Return the plots. Configurations that are not comparable are never drawn in one plot."""
    out = []
    for figure in found.figures:
        if figure.name == "l0":
            continue
        groups: dict[tuple[str, str], list[str]] = {}
        for name, held in found.measured.items():
            if figure.name in held and "l0" in held:
                groups.setdefault((held[figure.name].group, held["l0"].group), []).append(name)
        for names in groups.values():
            basis = _basis(found, figure, names) if len(groups) > 1 else ""
            out.append(Plot(figure, _draw(figure, {n: found.measured[n] for n in names}, found), names, basis))
    return out


def front(points: Sequence[tuple[float, float]], better: int) -> list[int]:
    """Return the points that no other one beats with fewer firing latents, from the left.

    >>> front([(4.0, 0.6), (8.0, 0.5), (8.0, 0.8)], better=1)
    [0, 2]
    """
    order = sorted(range(len(points)), key=lambda n: (points[n][0], -better * points[n][1]))
    kept: list[int] = []
    for n in order:
        if not kept or better * points[n][1] > better * points[kept[-1]][1]:
            kept.append(n)
    return kept


def _basis(found: Comparison, figure: Figure, names: Sequence[str]) -> str:
    lead = found.configurations[names[0]][0].basis
    every = [members[0].basis for members in found.configurations.values()]
    parts = [p for p in (*figure.needs, "hook") if len({b[p] for b in every}) > 1]
    return ", ".join(dict.fromkeys(f"{p} {_short(lead[p])}" for p in parts))


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:12]}..."


class _Axes:
    def __init__(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        self.x, self.y = (_range(values) for values in (xs, ys))

    def at(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.x, self.y
        across = _LEFT + (x - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - (y - y0) / (y1 - y0) * (_HEIGHT - _BOTTOM - _TOP)

    def drawn(self, title: str) -> str:
        base = _HEIGHT - _BOTTOM
        parts = []
        for y in np.linspace(*self.y, 5):
            _, at = self.at(self.x[0], float(y))
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{y:.3g}</text>')
        for x in np.linspace(*self.x, 5):
            at, _ = self.at(float(x), self.y[0])
            parts.append(f'<text class="tick" x="{at:.1f}" y="{base + 17}" text-anchor="middle">{x:.3g}</text>')
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(f'<text class="tick strong" x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">L0</text>')
        turned = f'transform="rotate(-90 13 {(base + _TOP) / 2:.0f})"'
        parts.append(
            f'<text class="tick strong" x="13" y="{(base + _TOP) / 2:.0f}" text-anchor="middle" {turned}>'
            f"{escape(title)}</text>"
        )
        return "".join(parts)


def _range(values: Sequence[float]) -> tuple[float, float]:
    known = [v for v in values if not np.isnan(v)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    margin = 0.08 * (high - low) or max(abs(high) * 0.1, 0.05)
    return low - margin, high + margin


def _draw(figure: Figure, held: Mapping[str, Mapping[str, Measured]], found: Comparison) -> str:
    means = {name: (m["l0"].value, m[figure.name].value) for name, m in held.items()}
    every = [m[figure.name] for m in held.values()]
    ys = [v for m in every for v in (m.value, m.low, m.high, m.control, *m.of_seeds)]
    xs = [v for m in held.values() for v in m["l0"].of_seeds]
    axes = _Axes(xs, ys)
    parts = [axes.drawn(figure.title)]
    if figure.better and len(means) > 1:
        order = front(list(means.values()), figure.better)
        path = " L ".join("{:.1f} {:.1f}".format(*axes.at(*list(means.values())[n])) for n in order)
        parts.append(f'<path class="front" d="M {path}"><title>Pareto front</title></path>')
    for number, (name, m) in enumerate(held.items()):
        parts.append(_point(axes, figure, name, number, m))
    about = f"{figure.title} against L0 of {len(held)} configurations"
    return (
        f'<svg class="histogram plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(about)}">'
        f"<title>{escape(about)}</title>{''.join(parts)}</svg>"
    )


def _point(axes: _Axes, figure: Figure, name: str, number: int, held: Mapping[str, Measured]) -> str:
    own, across = held[figure.name], held["l0"]
    if np.isnan(own.value):
        return ""
    x, y = axes.at(across.value, own.value)
    parts = []
    if not np.isnan(own.low):
        (_, low), (_, high) = axes.at(across.value, own.low), axes.at(across.value, own.high)
        parts.append(f'<line class="interval" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
    if not np.isnan(own.control):
        cx, cy = axes.at(across.value, own.control)
        parts.append(
            f'<rect class="control" x="{cx - 4:.1f}" y="{cy - 4:.1f}" width="8" height="8">'
            f"<title>{escape(name)}: control {said(own.control)}</title></rect>"
        )
    if len(own.of_seeds) > 1:
        for sx, sy in zip(across.of_seeds, own.of_seeds, strict=False):
            px, py = axes.at(sx, sy)
            parts.append(f'<circle class="seed" cx="{px:.1f}" cy="{py:.1f}" r="2.5"/>')
    label = f"{name}: {figure.title} {said(own.value)}, L0 {said(across.value)}"
    parts.append(
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="6" tabindex="0" data-name="{escape(name)}">'
        f"<title>{escape(label)}</title></circle>"
    )
    return f'<g class="configuration">{"".join(parts)}</g>'
