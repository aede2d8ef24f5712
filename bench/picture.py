"""picture.py - draws how long programs take for more and more of something, as an SVG file.

A picture has panels side by side, with linear axes that start at 0. A point is the median of its samples; a thin line goes from
the least of them to the most. The background is white, so that it can be read on a dark page, too.
"""

import math
import statistics
from collections import namedtuple
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 960, 412
TOP, BOTTOM = 84, 316                 # of the axes
PANEL_WIDTH, PANEL_STEP, LEFT = 308, 478, 76
COLOURS = ("#0b5fa5", "#b3440c")      # of the programs, in the order of the curves
TEXT, PALE, GRID = "#222222", "#595959", "#e2e2e2"
LINE_HEIGHT = 16

# curves: {program: {count: samples in seconds}}, of one or two programs
Panel = namedtuple("Panel", "heading curves")
Picture = namedtuple("Picture", "title description axis panels footer")


def ticks(most, wanted=5):
	"""Round numbers from 0 on; only the last may be more than `most`."""
	power = 10 ** math.floor(math.log10(most / wanted))
	step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * wanted >= most * (1 - 1e-9))
	return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def element(name, content="", **attributes):
	"""An element with numbers and words as its attributes; `_` in their names is a hyphen."""
	def words(value):
		return f"{value:.1f}" if isinstance(value, float) else str(value)
	listed = "".join(f" {key.strip('_').replace('_', '-')}={quoteattr(words(value))}" for key, value in attributes.items())
	return f"<{name}{listed}>{content}</{name}>" if content else f"<{name}{listed}/>"


def text(x, y, words, anchor="start", size=13, fill=TEXT, **attributes):
	return element("text", escape(words), x=float(x), y=float(y), text_anchor=anchor, font_size=size, fill=fill, **attributes)


def line(x1, y1, x2, y2, stroke, width=1):
	return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), stroke=stroke, stroke_width=width)


class Axes:
	"""Where counts and seconds are in one panel."""

	def __init__(self, left, curves):
		points = [(count, max(samples)) for curve in curves.values() for count, samples in curve.items()]
		slowest = max(seconds for _, seconds in points)
		self.unit, self.factor = ("s", 1) if slowest >= 2 else ("ms", 1000)
		self.left, self.right = left, left + PANEL_WIDTH
		self.counts, self.times = ticks(max(count for count, _ in points)), ticks(slowest * self.factor)

	def x(self, count):
		return self.left + PANEL_WIDTH * count / self.counts[-1]

	def y(self, seconds):
		return self.y_of_tick(seconds * self.factor)

	def y_of_tick(self, time):
		return BOTTOM - (BOTTOM - TOP) * time / self.times[-1]


def draw_axes(axes, heading, name):
	yield text(axes.left, TOP - 20, heading, size=14, font_weight="bold")
	for time in axes.times:
		y = axes.y_of_tick(time)
		yield line(axes.left, y, axes.right, y, TEXT if time == 0 else GRID)
		yield text(axes.left - 8, y + 4, f"{time:,g} {axes.unit}", "end", 12, PALE)
	for count in axes.counts:
		x = axes.x(count)
		yield line(x, BOTTOM, x, BOTTOM + 5, TEXT)
		yield text(x, BOTTOM + 20, f"{count:,g}", "middle", 12, PALE)
	yield text((axes.left + axes.right) / 2, BOTTOM + 40, name, "middle")


def draw_curve(axes, curve, number):
	"""The first program has round points and the second square ones, for those who do not see the colours."""
	colour = COLOURS[number]
	places = [(axes.x(count), axes.y(statistics.median(samples)), samples) for count, samples in sorted(curve.items())]
	yield element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places), fill="none", stroke=colour, stroke_width=2)
	for x, y, samples in places:
		yield line(x, axes.y(min(samples)), x, axes.y(max(samples)), colour)
		if number == 0:
			yield element("circle", cx=x, cy=y, r=4, fill=colour)
		else:
			yield element("rect", x=x - 4, y=y - 4, width=8, height=8, fill=colour)


def draw_labels(axes, curves):
	"""The name of each program at the end of its line, from the highest line down, none over another."""
	ends = []
	for number, (name, curve) in enumerate(curves.items()):
		count = max(curve)
		ends.append((axes.y(statistics.median(curve[count])), axes.x(count), name, COLOURS[number]))
	lowest = -math.inf
	for y, x, name, colour in sorted(ends):
		lowest = max(y, lowest + LINE_HEIGHT)
		yield text(x + 10, lowest + 4, name, fill=colour, font_weight="bold")


def draw_panel(number, panel, axis):
	axes = Axes(LEFT + PANEL_STEP * number, panel.curves)
	yield from draw_axes(axes, panel.heading, axis)
	for place, curve in enumerate(panel.curves.values()):
		yield from draw_curve(axes, curve, place)
	yield from draw_labels(axes, panel.curves)


def draw(picture):
	"""The text of the SVG file."""
	parts = [element("title", escape(picture.title), id="title"), element("desc", escape(picture.description), id="description"),
		 element("rect", width="100%", height="100%", fill="white"),
		 text(LEFT, 32, picture.title, size=18, font_weight="bold")]
	for number, panel in enumerate(picture.panels):
		parts += draw_panel(number, panel, picture.axis)
	parts += (text(LEFT, HEIGHT - 26 + 15 * number, words, size=11, fill=PALE) for number, words in enumerate(picture.footer))
	return element("svg", "\n" + "\n".join(parts) + "\n", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {HEIGHT}",
		       width=WIDTH, height=HEIGHT, font_family="sans-serif", role="img", aria_labelledby="title description") + "\n"
