"""The report's charts as SVG: drawn by Vega-Lite without a script, a style sheet or a colour of their own.

Colours are the page's CSS variables, so a chart is light or dark as the page is. A chart says its title to a screen reader; the numbers
stand in a table beside it. None: there is too little to draw. Leaves out the tables (`templates/`).
"""

from typing import Any
from xml.etree import ElementTree

from report.figures import Alternative, Curve, Cut, Figure, Part
from report.words import ALTERNATIVES, PARTS

WIDTH = 400
"""Pixels of the plot, without its labels; a phone shows it nearly as wide."""
LOWEST = -0.5
"""Saving of a simpler way that is still drawn: one that costs far more would leave no room for the others."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
ACCENT, SECOND, BAD, MUTED, LINE, TEXT = (f"var(--{name})" for name in ("accent", "fetch", "error", "muted", "line", "text"))

Spec = dict[str, Any]


def days_chart(days: tuple[Cut, ...]) -> str | None:
    """The saving by day, with its interval as a band where the day has conversations enough to have one."""
    rows = [{"day": cut.group, **_bounds(_drawable(cut.saving))} for cut in days if cut.saving.value is not None]
    if len(rows) < 2:
        return None
    x = {"field": "day", "type": "temporal", "timeUnit": "utcyearmonthdate", "title": None, "scale": {"type": "utc"},
         "axis": {"grid": False, "format": "%-d %b", "tickCount": 5}}
    y = {"type": "quantitative", "title": None, "axis": {"format": "%", "tickCount": 5}}
    band = {"mark": {"type": "area", "opacity": 0.18, "color": ACCENT},
            "encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}}}
    line = {"mark": {"type": "line", "color": ACCENT, "point": {"color": ACCENT, "size": 22}},
            "encoding": {"x": x, "y": y | {"field": "value"}}}
    return _svg("Saving by day: share of the always-fetch tokens, with its 95 % interval", rows, [band, line], 190)


def parts_chart(parts: tuple[Part, ...]) -> str | None:
    """What the saving is made of."""
    rows = [{"part": PARTS[part.part], "tokens": part.tokens} for part in parts if part.tokens]
    if not rows:
        return None
    colour = {"condition": {"test": "datum.tokens < 0", "value": BAD}, "value": ACCENT}
    x = _amount("tokens", "") | {"axis": {"labelExpr": "format(datum.value, '~s')", "tickCount": 4}}
    bars = {"mark": {"type": "bar", "cornerRadiusEnd": 2, "height": 16}, "encoding": {"y": _names("part", rows), "x": x, "color": colour}}
    return _svg("Parts of the saving, in tokens", rows, [bars], 32 * len(rows), width=240)


def alternatives_chart(alternatives: tuple[Alternative, ...], saving: Figure) -> str | None:
    """What simpler ways would have saved, beside what was."""
    rows = [{"way": ALTERNATIVES[one.name], **_bounds(_drawable(one.saving)), "wins": one.wins} for one in alternatives
            if one.saving.value is not None and one.saving.value >= LOWEST]
    if not rows or saving.value is None:
        return None
    colour = {"condition": {"test": "datum.wins", "value": BAD}, "value": SECOND}
    y, x = _names("way", rows), _amount("low", "%")
    span = {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": {"y": y, "x": x, "x2": {"field": "high"}, "color": colour}}
    dots = {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 60},
            "encoding": {"y": y, "x": _amount("value", "%"), "color": colour}}
    served = {"data": {"values": [{"value": saving.value}]},
              "mark": {"type": "rule", "color": ACCENT, "strokeDash": [4, 3], "strokeWidth": 2}, "encoding": {"x": _amount("value", "%")}}
    return _svg("Saving of simpler ways; the dashed line is what was served", rows, [served, span, dots], 32 * len(rows), width=240)


def curve_chart(curve: Curve | None) -> str | None:
    """What each skip threshold would save and harm, with the one of today."""
    if curve is None or len(curve.points) < 2:
        return None
    rows = [{"saving": point.saving.value, "harm": point.harmful.value} for point in curve.points]
    x = _amount("harm", ".1~%") | {"title": "harmful skips, share of the turns"}
    y = {"field": "saving", "type": "quantitative", "title": "saving", "axis": {"format": "%", "tickCount": 5}}
    layers: list[Spec] = [{"mark": {"type": "line", "color": ACCENT, "point": {"color": ACCENT, "size": 22}, "order": False},
                           "encoding": {"x": x, "y": y}}]
    if (now := curve.operating) is not None:
        today = {"values": [{"saving": now.saving.value, "harm": now.harmful.value, "label": "today"}]}
        layers.append({"data": today, "mark": {"type": "point", "filled": True, "opacity": 1, "size": 120, "color": BAD},
                       "encoding": {"x": x, "y": y}})
        layers.append({"data": today, "mark": {"type": "text", "align": "left", "dx": 9, "dy": 4, "fontWeight": "bold", "color": TEXT},
                       "encoding": {"x": x, "y": y, "text": {"field": "label"}}})
    return _svg("Saving and harm over the skip threshold", rows, layers, 220)


def _drawable(figure: Figure) -> Figure:
    """Without the interval of a small sample, which may be wider than any chart; such a figure isn't to be trusted anyway."""
    if figure.verdict == "too_small" or figure.low is None or figure.high is None:
        return Figure(figure.value)
    return Figure(figure.value, max(figure.low, -1.0), min(figure.high, 1.0), figure.verdict)


def _bounds(figure: Figure) -> Spec:
    """The figure and its interval; a figure without one has none of any width."""
    value = figure.value
    return {"value": value, "low": value if figure.low is None else figure.low, "high": value if figure.high is None else figure.high}


def _names(field: str, rows: list[Spec]) -> Spec:
    return {"field": field, "type": "nominal", "title": None, "sort": [row[field] for row in rows],
            "axis": {"labelLimit": 190, "grid": False, "ticks": False, "domain": False, "labelPadding": 8}}


def _amount(field: str, form: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": None, "axis": {"format": form, "tickCount": 4}}


def _svg(title: str, rows: list[Spec], layers: list[Spec], height: int, *, width: int = WIDTH) -> str:
    import vl_convert

    axis = {"labelColor": MUTED, "titleColor": MUTED, "gridColor": LINE, "domainColor": LINE, "tickColor": LINE, "labelFontSize": 12,
            "titleFontSize": 12, "titleFontWeight": "normal", "labelOverlap": "greedy", "labelSeparation": 14, "labelFlush": False}
    spec = {"data": {"values": rows}, "layer": layers, "width": width, "height": height, "background": "transparent",
            # a reader's font may be wider than the one that labels are measured with
            "padding": {"left": 28, "right": 20, "top": 6, "bottom": 6},
            "config": {"font": FONT, "axis": axis, "view": {"stroke": None}, "text": {"fontSize": 12}}}
    return _labelled(vl_convert.vegalite_to_svg(spec, vl_version="6.1"), title)


def _labelled(svg: str, title: str) -> str:
    """The drawing as one picture with a name, as wide as its place; its own labels of every mark would be read out one by one."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name in [name for name in element.attrib if name in ("role", "class", "clip-path") or name.startswith("aria-")]:
            del element.attrib[name]
        # nothing is drawn outside its place, and the ids of clips are counted up from chart to chart
        for clip in element.findall("{*}defs"):
            element.remove(clip)
    box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", "class": "chart", "role": "img", "aria-label": title, "viewBox": box}
    return ElementTree.tostring(root, encoding="unicode")
