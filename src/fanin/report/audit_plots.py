"""The pictures of an audit: small SVG whose points are links to the rows of the table."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fanin.audit.trace import Spread
from fanin.report._html import text
from fanin.report.audit_view import View
from fanin.report.audit_words import number

WIDTH, HEIGHT = 560, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 30, 10, 32
POINTS = 500  # in one picture; of more, every so many-th is drawn
DECADES = 60.0  # scales are drawn within so many of 1
LINES = {-14: "2⁻¹⁴", -7: "2⁻⁷", math.log2(240): "240", 16: "2¹⁶"}  # where float16 and float8 (e4m3) end
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SHARES = (0.01, 0.25, 0.5, 0.75, 0.99)  # of values, below the edges of the bands
FEWEST = 3  # points that make a picture


@dataclass(frozen=True)
class Picture:
    """An SVG element and what it shows."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Point:
    """One row in a picture: where, how high (None: off the scale), and what it says when touched."""

    at: int
    height: float | None
    said: str


def pictures(view: View) -> Iterator[Picture]:
    """At most four: scales both ways, cosines, magnitudes; of weights alone, their variances."""
    draws: Iterable[Callable[[View], Picture | None]] = (forward, backward, cosine, magnitudes)
    if not view.operations:
        draws = (variances,)
    for draw in draws:
        if picture := draw(view):
            yield picture


def forward(view: View) -> Picture | None:
    """The root mean square of every operation's output, and what theory expects of it."""
    values = {at: operation.after.rms for at, operation in enumerate(view.operations)}
    frame = _scales(view, values)
    if frame is None:
        return None
    theory = {at: view.theory[at] for at in values}
    return frame.picture(
        "Forward scale",
        _trunk(view, frame, values) + _ticks(frame, theory) + _points(view, frame, values, "forward"),
        "Root mean square of every operation's output, in the order of execution: "
        "points are measured, dashes by theory from the moments of its own input. The line joins what every "
        "path passes.",
    )


def backward(view: View) -> Picture | None:
    """The root mean square of the gradient at every operation's output."""
    values = {
        at: operation.backward.rms
        for at, operation in enumerate(view.operations)
        if operation.backward is not None
    }
    frame = _scales(view, values)
    if frame is None:
        return None
    return frame.picture(
        "Backward scale",
        _trunk(view, frame, values) + _points(view, frame, values, "backward"),
        "Root mean square of the gradient at every operation's output, when the model's output has a "
        "standard normal one. Read it from right to left.",
    )


def cosine(view: View) -> Picture | None:
    """How alike two examples are at every operation."""
    values = {
        at: operation.after.cosine
        for at, operation in enumerate(view.operations)
        if operation.after.cosine is not None
    }
    if len(values) < FEWEST:
        return None
    low = min(0.0, math.floor(min(values.values()) * 4 + 0.2) / 4)  # a little below zero is noise
    frame = Frame(len(view.operations), low, 1.0)
    axis = frame.axis({step / 4: f"{step / 4:g}" for step in range(round(low * 4), 5)})
    alike = view.trace.batch[0].cosine if view.trace.batch else None
    own = "" if alike is None else f'<path class="own" d="M{LEFT} {frame.y(alike):.1f}H{WIDTH - RIGHT}"/>'
    points = [Point(at, value, f"cosine {number(value)}") for at, value in values.items()]
    return Frame.picture(
        frame,
        "Likeness of two examples",
        axis + own + frame.line(values, view.trunk) + frame.points(view, points, "cosine"),
        "Mean cosine between two examples' outputs. Near 1 the network cannot tell them apart"
        + ("; dotted: that of the input." if own else "."),
    )


def magnitudes(view: View) -> Picture | None:
    """Between which magnitudes the single values of every operation's output lie."""
    found = {
        at: quantiles(operation.after)
        for at, operation in enumerate(view.operations)
        if operation.after.magnitudes
    }
    if len(found) < FEWEST:
        return None
    heights = {at: [power * math.log10(2) for power in powers] for at, powers in found.items()}
    frame = Frame(len(view.operations), *_whole([edge for row in heights.values() for edge in row]))
    thick = min(5.0, max(0.7, 0.6 * (frame.x(1) - frame.x(0))))
    marks = "".join(_candle(view, frame, at, heights[at]) for at in _thin(list(found)))
    return frame.picture(
        "Magnitudes of single values",
        frame.decades() + f'<g class="values" stroke-width="{thick:.1f}">{marks}</g>',
        "Of the values that are not zero: all but the smallest and the largest 1 % (thin), the middle half "
        "(thick), and the median.",
    )


def _candle(view: View, frame: "Frame", at: int, heights: Sequence[float]) -> str:
    x, (low, below, middle, above, high) = frame.x(at), map(frame.y, heights)
    said = f"half of its values between {number(10 ** heights[1])} and {number(10 ** heights[3])}"
    return (
        f'<a href="#row-{at}"><title>{text(view.names[at])}: {said}</title>'
        f'<path class="thin" d="M{x:.1f} {low:.1f}V{high:.1f}"/><path d="M{x:.1f} {below:.1f}V{above:.1f}"/>'
        f'<path class="median" d="M{x:.1f} {middle - 0.8:.1f}v1.6"/></a>'
    )


def variances(view: View) -> Picture | None:
    """The variance of every kernel as theory counts it, fan_in times the mean square."""
    values = {
        at: variance
        for at, weights in enumerate(view.trace.weights)
        if (variance := weights.weight_variance) is not None and len(weights.shape) > 1
    }
    frame = _scales(view, values)
    if frame is None:
        return None
    return frame.picture(
        "Variance of the weights",
        _points(view, frame, values, "forward", "sigma_w^2"),
        "&sigma;<sub>w</sub>² = fan_in times the mean square of each kernel: 2 is He's, 1 LeCun's, "
        "1/3 PyTorch's default.",
    )


def quantiles(spread: Spread) -> list[float]:
    """Logarithms to base 2 below which the `SHARES` of the values that are not zero lie.

    >>> quantiles(Spread(4, 0, 1, 1, 2, 0, 0, {-1: 2, 0: 2}))[2]
    0.0
    """
    total = sum(spread.magnitudes.values())
    found, below, shares = [], 0, list(SHARES)
    for power, count in sorted(spread.magnitudes.items()):
        while shares and below + count >= shares[0] * total:
            found.append(power + (shares.pop(0) * total - below) / count)
        below += count
    return found


@dataclass(frozen=True)
class Frame:
    """A picture's coordinates: rows from left to right, heights from ``low`` to ``high``."""

    rows: int
    low: float
    high: float

    def x(self, at: int) -> float:
        """The middle of a row."""
        return LEFT + 6 + (WIDTH - LEFT - RIGHT - 12) * (at / max(self.rows - 1, 1))

    def y(self, height: float) -> float:
        """Downwards, as SVG counts; beyond the frame is at its edge."""
        inside = min(max((height - self.low) / (self.high - self.low), 0.0), 1.0)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * inside

    def axis(self, labels: dict[float, str]) -> str:
        """Light lines at the labelled heights, and the numbers of rows below."""
        lines = "".join(f"M{LEFT} {self.y(height):.1f}H{WIDTH - RIGHT}" for height in labels)
        said = "".join(
            f'<text x="{LEFT - 5}" y="{self.y(height) + 3.5:.1f}" class="end">{label}</text>'
            for height, label in labels.items()
        )
        step = max(1, _round_step(self.rows / 6))
        below = "".join(
            f'<text x="{self.x(at):.1f}" y="{HEIGHT - BOTTOM + 14}" class="middle">{at}</text>'
            for at in range(0, self.rows, step)
        )
        return f'<path class="grid" d="{lines}"/>{said}{below}'

    def decades(self) -> str:
        """The axis of a logarithmic picture: powers of ten, and where the narrow dtypes end."""
        step = max(1, math.ceil((self.high - self.low) / 7))
        first = math.ceil(self.low / step) * step
        powers = range(first, math.floor(self.high) + 1, step)
        lines = ""
        for power, label in LINES.items():
            height = power * math.log10(2)
            if self.low < height < self.high:
                y = self.y(height)
                lines += (
                    f'<path class="limit" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
                    f'<text x="{WIDTH - RIGHT + 4}" y="{y + 3:.1f}" class="limit">{label}</text>'
                )
        one = (
            f'<path class="one" d="M{LEFT} {self.y(0):.1f}H{WIDTH - RIGHT}"/>'
            if self.low <= 0 <= self.high
            else ""
        )
        return self.axis({power: _power_of_ten(power) for power in powers}) + lines + one

    def line(self, values: dict[int, float], trunk: Sequence[int]) -> str:
        """A line through the trunk's values."""
        kept = [at for at in _thin(trunk) if at in values]
        if len(kept) < 2:
            return ""
        x, y = [self.x(at) for at in kept], [self.y(values[at]) for at in kept]
        return f'<path class="trunk" d="{_path(x, y)}"/>'

    def points(self, view: View, points: Sequence[Point], kind: str) -> str:
        """A point for each row, a link to it; those that a finding names are ringed."""
        kept = set(_thin([point.at for point in points])) | view.named
        return f'<g class="{kind}">{"".join(self._point(view, p) for p in points if p.at in kept)}</g>'

    def _point(self, view: View, point: Point) -> str:
        kind = "trunk" if point.at in view.trunk or not view.trunk else "side"
        if point.at in view.named and view.findings[view.flags[point.at]].level != "info":
            kind += f" {view.findings[view.flags[point.at]].level}"
        x, y = self.x(point.at), self.y(self.low if point.height is None else point.height)
        shape = (
            f'<path class="off" d="M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6">'
            if point.height is None
            else f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{2.6 if self.rows < 150 else 1.8}">'
        )
        said = f"<title>{text(view.names[point.at])}: {text(point.said)}</title>"
        return (
            f'<a href="#row-{point.at}">{shape}{said}{"</path>" if point.height is None else "</circle>"}</a>'
        )

    def picture(self, title: str, drawn: str, caption: str) -> Picture:
        """The whole, with a title that is read aloud."""
        below = (
            f'<text x="{(WIDTH + LEFT) / 2:.0f}" y="{HEIGHT - 4}" class="middle">'
            f"{'operation' if self.rows else ''}</text>"
        )
        svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{title}">{drawn}{below}</svg>'
        return Picture(title, svg, caption)


def _scales(view: View, values: dict[int, float]) -> Frame | None:
    """Coordinates for values on a logarithmic scale; None for too few."""
    if len(values) < FEWEST:
        return None
    decades = [math.log10(value) for value in values.values() if value > 0 and math.isfinite(value)]
    return Frame(len(view.names), *_whole(decades))


def _whole(decades: Sequence[float]) -> tuple[float, float]:
    """Whole decades around all, at least one on each side of 1."""
    low = math.floor(min(decades, default=0.0) + 0.05)
    high = math.ceil(max(decades, default=0.0) - 0.05)
    return max(min(low, -1), -DECADES), min(max(high, 1), DECADES)


def _points(view: View, frame: Frame, values: dict[int, float], kind: str, said: str = "") -> str:
    drawn = [Point(at, _decade(value), f"{said or kind} {number(value)}") for at, value in values.items()]
    return frame.points(view, drawn, kind)


def _decade(value: float) -> float | None:
    return math.log10(value) if value > 0 and math.isfinite(value) else None


def _trunk(view: View, frame: Frame, values: dict[int, float]) -> str:
    known = {at: height for at, value in values.items() if (height := _decade(value)) is not None}
    return frame.decades() + frame.line(known, view.trunk)


def _ticks(frame: Frame, theory: dict[int, float | None]) -> str:
    kept = set(_thin([at for at, value in theory.items() if value]))
    half = min(4.0, max(1.5, 0.4 * (frame.x(1) - frame.x(0))))
    marks = "".join(
        f"M{frame.x(at) - half:.1f} {frame.y(height):.1f}h{2 * half:.1f}"
        for at, value in theory.items()
        if at in kept and value is not None and (height := _decade(value)) is not None
    )
    return f'<path class="theory" d="{marks}"/>' if marks else ""


def _thin(rows: Sequence[int]) -> list[int]:
    """Rows at equal distances, the last one too."""
    if len(rows) <= POINTS:
        return list(rows)
    step = (len(rows) - 1) / (POINTS - 1)
    return [rows[round(k * step)] for k in range(POINTS)]


def _path(x: Sequence[float], y: Sequence[float]) -> str:
    return "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in zip(x, y, strict=True))


def _round_step(step: float) -> int:
    power = 10 ** max(0, math.floor(math.log10(max(step, 1))))
    return int(next(power * k for k in (1, 2, 5, 10) if power * k >= step))


def _power_of_ten(power: int) -> str:
    return "1" if power == 0 else "10" + str(power).translate(SUPERSCRIPTS)
