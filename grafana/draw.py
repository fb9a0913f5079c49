"""Draws panels as HTML and SVG: what a dashboard looks like with given answers of Prometheus.

It knows what panels.py makes and no more: stat, timeseries, bargauge, table and heatmap, their units, thresholds and
legends. A panel without an answer says "no data" (class `empty`).
"""
import html
import math
import time

WIDTH, CELL, GAP = 1400, 36, 8
COLOURS = {"green": "#73bf69", "yellow": "#fade2a", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2", "text": "#d8d9da"}
LINES = ["#73bf69", "#5794f2", "#f2cc0c", "#ff9830", "#b877d9", "#8ab8ff", "#f2495c", "#56a64b", "#ffb357", "#ca95e5", "#9fa7b3", "#3274d9"]
TURBO = [(48, 18, 59), (70, 107, 227), (40, 188, 235), (50, 242, 152), (164, 252, 60), (238, 207, 58), (251, 126, 33), (208, 47, 5), (122, 4, 3)]
STYLE = """
body{margin:0;background:#111217;color:#d8d9da;font:13px 'DejaVu Sans',sans-serif;width:%dpx;position:relative}
header{position:absolute;left:12px;top:10px;font-size:20px} header small{color:#8e9297;font-size:13px;margin-left:14px}
.panel{position:absolute;background:#181b1f;border:1px solid #25282d;border-radius:3px;box-sizing:border-box;overflow:hidden}
.panel h3{margin:0;padding:7px 9px 0;font-size:12.5px;font-weight:600;height:19px;white-space:nowrap;overflow:hidden}
.row{position:absolute;font-size:15px;font-weight:600;left:8px;line-height:%dpx} .row:before{content:"\\25BE  ";color:#8e9297}
.stat{text-align:center;font-weight:600;white-space:nowrap} svg{display:block} svg text{fill:#9fa3a8;font-size:10.5px}
.legend{padding:0 9px;font-size:11px;line-height:16px;color:#c7c9cc;overflow:hidden} .legend span{margin-right:12px;white-space:nowrap;display:inline-block}
.legend i{display:inline-block;width:12px;height:3px;margin:0 5px 3px 0}
table{border-collapse:collapse;width:100%%;font-size:12px} td,th{padding:4px 9px;text-align:left;border-bottom:1px solid #25282d;white-space:nowrap}
th{color:#6e9fff;font-weight:600} td.n,th.n{text-align:right} .empty{color:#f2495c;text-align:center;padding-top:20px;font-size:15px}
.bar{display:flex;align-items:center;margin:5px 9px;height:22px;font-size:12px} .bar b{width:38%%;font-weight:400;overflow:hidden;white-space:nowrap}
.bar div{flex:1;background:#25282d;height:16px;margin:0 8px} .bar i{display:block;height:16px} .bar u{text-decoration:none;min-width:70px;text-align:right}
""" % (WIDTH, CELL - GAP)


def digits(value, decimals=None):
    if decimals is not None:
        return f"{value:.{decimals}f}"
    size = abs(value)
    text = f"{value:.{0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def scaled(value, base, names, decimals=None):
    index = 0
    while abs(value) >= base and index < len(names) - 1:
        value, index = value / base, index + 1
    return digits(value, decimals if index else None if decimals is None else min(decimals, 1)) + names[index]


def shown(value, unit, decimals=None):
    """A value as a person reads it."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if unit == "percentunit":
        return digits(value * 100, decimals) + " %"
    if unit in ("bytes", "binBps"):
        return scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB"], decimals) + ("/s" if unit == "binBps" else "")
    if unit == "s":
        size = abs(value)
        for least, over, name in ((0, 1e-6, " µs"), (1e-3, 1e-3, " ms"), (1, 1, " s"), (60, 60, " min"), (3600, 3600, " h"), (86400, 86400, " d")):
            if size >= least:
                chosen = over, name
        return "0 s" if not value else digits(value / chosen[0], None if decimals is None else decimals) + chosen[1]
    if unit == "bool_yes_no":
        return "yes" if value else "no"
    if unit == "none":
        return f"{value:.0f}"
    text = scaled(value, 1000, ["", " K", " M", " G", " T"], decimals)
    return text + {"cps": " /s", "reqps": " req/s"}.get(unit, "")


def colour_at(thresholds, value):
    found = thresholds["steps"][0]["color"]
    for step in thresholds["steps"]:
        if step["value"] is None or (value is not None and value >= step["value"]):
            found = step["color"]
    return COLOURS[found]


def nice(low, high, unit, wanted=4):
    """Ticks of an axis."""
    span = high - low or 1
    base = 1024 ** max(0, int(math.log(max(span, 1), 1024))) if unit in ("bytes", "binBps") else 1
    if unit == "s":
        base = next((base for base in (86400, 3600, 60) if span > 2 * base), 1)
    rough = span / wanted / base
    power = 10 ** math.floor(math.log10(rough))
    step = next(f for f in (1, 2, 2.5, 5, 10) if f * power >= rough * 0.999) * power * base
    first = math.ceil(low / step - 1e-9) * step
    return [first + i * step for i in range(int((high - first) / step + 1e-9) + 1)], step


def xaxis(start, end, left, width, y):
    parts = []
    every = next(s for s in (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200) if (end - start) / s <= max(2, width / 85))
    at = math.ceil(start / every) * every
    while at <= end:
        x = left + (at - start) / (end - start) * width
        text = time.strftime("%H:%M" if every >= 60 else "%H:%M:%S", time.gmtime(at))
        if left + 14 < x < left + width - 14:
            parts.append(f'<text x="{x:.0f}" y="{y}" text-anchor="middle">{text}</text>')
        at += every
    return "".join(parts)


def legend(names, width):
    """The legend, and how many lines it takes."""
    lines, used = 1, 0
    for name, _ in names:
        one = len(name) * 6.6 + 32
        if used and used + one > width - 18:
            lines, used = lines + 1, 0
        used += one
    lines = min(lines, 3)
    items = "".join(f'<span><i style="background:{colour}"></i>{html.escape(name)}</span>' for name, colour in names)
    return f'<div class="legend" style="height:{lines * 16}px">{items}</div>', lines * 16 + 4


def timeseries(panel, answers, width, height, start, end):
    defaults = panel["fieldConfig"]["defaults"]
    custom, unit = defaults["custom"], defaults["unit"]
    stacked = custom["stacking"]["mode"] == "normal"
    lines = [(name, points) for answer in answers for name, points in answer]
    drawn, below = [], {}
    for name, points in lines:
        if stacked:
            above = [(t, v + below.get(t, 0.0)) for t, v in points if not math.isnan(v)]
            drawn.append((name, above, [(t, below.get(t, 0.0)) for t, _ in above]))
            below.update(above)
        else:
            drawn.append((name, points, None))
    values = [v for _, points, _ in drawn for _, v in points if math.isfinite(v)] or [0]
    low, high = min([*values, custom.get("axisSoftMin", 0)]), max([*values, custom.get("axisSoftMax", min(values))])
    if high - low < 1e-12:
        high = low + 1
    ticks, step = nice(low, high, unit)
    if ticks[-1] < high:
        ticks.append(ticks[-1] + step)
    if ticks[0] > low:
        ticks.insert(0, ticks[0] - step)
    low, high = ticks[0], ticks[-1]
    names = [(name, LINES[i % len(LINES)]) for i, (name, _, _) in enumerate(drawn)]
    below_text, legend_height = legend(names, width)
    labels = [shown(tick, unit) for tick in ticks]
    left, top = 12 + max(len(label) for label in labels) * 6.4, 8
    w, h = width - left - 12, height - 28 - legend_height - top - 18
    def place(t, v):
        return f"{left + (t - start) / (end - start) * w:.1f},{top + h - (v - low) / (high - low) * h:.1f}"
    parts = [f'<svg width="{width - 2}" height="{height - 28 - legend_height}">']
    for tick, label in zip(ticks, labels):
        y = top + h - (tick - low) / (high - low) * h
        parts.append(f'<line x1="{left}" x2="{left + w}" y1="{y:.1f}" y2="{y:.1f}" stroke="#2a2d33"/>'
                     f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    parts.append(xaxis(start, end, left, w, top + h + 14))
    if custom["thresholdsStyle"]["mode"] != "off":
        for step_ in defaults["thresholds"]["steps"][1:]:
            if low <= step_["value"] <= high:
                y = top + h - (step_["value"] - low) / (high - low) * h
                parts.append(f'<line x1="{left}" x2="{left + w}" y1="{y:.1f}" y2="{y:.1f}" stroke="{COLOURS[step_["color"]]}" stroke-dasharray="7 5" opacity=".8"/>')
    for (_, points, floor), (_, colour) in zip(drawn, names):
        pieces, piece = [], []
        gap = 1.5 * min((b[0] - a[0] for a, b in zip(points, points[1:])), default=0)
        for t, v in [*points, (None, math.nan)]:
            if piece and t and t - piece[-1][0] > gap:
                pieces.append(piece)
                piece = []
            if math.isfinite(v):
                piece.append((t, v))
            elif piece:
                pieces.append(piece)
                piece = []
        for piece in pieces:
            path = " ".join(place(t, v) for t, v in piece)
            base = [p for p in floor if piece[0][0] <= p[0] <= piece[-1][0]] if floor else [(piece[0][0], max(low, 0)), (piece[-1][0], max(low, 0))]
            area = " ".join(place(t, v) for t, v in reversed(base))
            parts.append(f'<polygon points="{path} {area}" fill="{colour}" opacity="{custom["fillOpacity"] / 100}"/>')
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
    return "".join(parts) + "</svg>" + below_text


def stat(panel, answers, width, height, start, end):
    defaults, points = panel["fieldConfig"]["defaults"], answers[0][0][1]
    value = next((v for _, v in reversed(points) if not math.isnan(v)), None)
    colour = colour_at(defaults["thresholds"], value)
    text = shown(value, defaults["unit"], defaults.get("decimals"))
    size = min(44, int((width - 20) / (len(text) * 0.66)))
    inner, spark = height - 28, ""
    finite = [(t, v) for t, v in points if math.isfinite(v)]
    if panel["options"]["graphMode"] == "area" and len(finite) > 1:
        low, high = min(0, *(v for _, v in finite)), max(v for _, v in finite) or 1
        h = inner * 0.42
        path = " ".join(f"{(t - start) / (end - start) * (width - 2):.1f},{h - (v - low) / (high - low or 1) * (h - 3):.1f}" for t, v in finite)
        last = (finite[-1][0] - start) / (end - start) * (width - 2)
        first = (finite[0][0] - start) / (end - start) * (width - 2)
        spark = (f'<svg width="{width - 2}" height="{h:.0f}" style="position:absolute;bottom:0;left:0"><polygon points="{path} {last:.1f},{h} {first:.1f},{h}" fill="{colour}" opacity=".16"/>'
                 f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.2"/></svg>')
    return f'{spark}<div class="stat" style="color:{colour};font-size:{size}px;line-height:{inner * 0.72:.0f}px;position:relative">{text}</div>'


def bargauge(panel, answers, width, height, start, end):
    defaults, rows = panel["fieldConfig"]["defaults"], []
    values = [(name, points[-1][1]) for answer in answers for name, points in answer]
    most = defaults.get("max") or max([v for _, v in values if math.isfinite(v)] + [1e-9])
    for name, value in values[:max(1, (height - 30) // 32)]:
        colour = colour_at(defaults["thresholds"], value)
        share = 0 if not math.isfinite(value) else max(0.0, min(1.0, value / most)) * 100
        rows.append(f'<div class="bar"><b>{html.escape(name)}</b><div><i style="width:{share:.1f}%;background:{colour}"></i></div>'
                    f'<u style="color:{colour}">{shown(value, defaults["unit"])}</u></div>')
    return "".join(rows)


def heatmap(panel, answers, width, height, start, end):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    rows = sorted(((float(name), dict(points)) for name, points in answers[0]), key=lambda row: row[0])
    # Buckets that hold nothing at either end are left out.
    cells, before = [], {}
    for bound, points in rows:
        cells.append((bound, {t: max(0.0, v - before.get(t, 0.0)) for t, v in points.items() if math.isfinite(v)}))
        before = points
    most = max((v for _, row in cells for v in row.values()), default=0)
    used = [i for i, (_, row) in enumerate(cells) if any(v > 0.01 for v in row.values())]
    if used:
        cells = cells[max(0, used[0] - 1):used[-1] + 2]
    times = sorted({t for _, row in cells for t in row})
    labels = ["≤ " + shown(bound, unit) for bound, _ in cells]
    left, top = 12 + max(len(label) for label in labels) * 6.4, 8
    w, h = width - left - 12, height - 28 - top - 46
    cell_w = w * (times[1] - times[0]) / (end - start + times[1] - times[0]) if len(times) > 1 else w
    cell_h = h / len(cells)
    parts = [f'<svg width="{width - 2}" height="{height - 28}">']
    for i, ((_, row), label) in enumerate(zip(cells, labels)):
        y = top + h - (i + 1) * cell_h
        if i % max(1, math.ceil(12 / cell_h)) == 0:
            parts.append(f'<text x="{left - 5}" y="{y + cell_h / 2 + 4:.1f}" text-anchor="end">{label}</text>')
        for t, v in row.items():
            if v > 0.01:
                x = left + (t - start) / (end - start) * (w - cell_w)
                parts.append(f'<rect x="{x:.1f}" y="{y + .5:.1f}" width="{max(1, cell_w - 1):.1f}" height="{max(1, cell_h - 1):.1f}" fill="{turbo(math.sqrt(v / most))}"/>')
    parts.append(xaxis(start, end, left, w, top + h + 14))
    for i in range(60):
        parts.append(f'<rect x="{left + i * 2}" y="{top + h + 24}" width="2" height="7" fill="{turbo(i / 59)}"/>')
    parts.append(f'<text x="{left + 126}" y="{top + h + 32}">0 to {shown(most, "short")} in a cell</text>')
    return "".join(parts) + "</svg>"


def turbo(share):
    place = max(0.0, min(1.0, share)) * (len(TURBO) - 1)
    low = min(int(place), len(TURBO) - 2)
    return "rgb(" + ",".join(f"{a + (b - a) * (place - low):.0f}" for a, b in zip(TURBO[low], TURBO[low + 1])) + ")"


def table(panel, rows, width, height, start, end):
    """`rows` are what the transformations make: dictionaries of texts and numbers by header."""
    columns = list(rows[0])
    for row in rows:
        columns += [name for name in row if name not in columns]
    options = {one["matcher"]["options"]: {p["id"]: p["value"] for p in one["properties"]} for one in panel["fieldConfig"]["overrides"]}
    sort = panel["options"].get("sortBy")
    if sort:
        rows = sorted(rows, key=lambda row: row.get(sort[0]["displayName"], -math.inf), reverse=sort[0]["desc"])
    head = "".join(f'<th{" class=n" if name in options else ""}>{html.escape(name)}</th>' for name in columns)
    body = []
    for row in rows[:max(1, (height - 58) // 24)]:
        cells = []
        for name in columns:
            value, how = row.get(name), options.get(name)
            if how is None:
                cells.append(f"<td>{html.escape(value or '')}</td>")
                continue
            colour = colour_at(how["thresholds"], value) if "thresholds" in how and value is not None else "inherit"
            cells.append(f'<td class=n style="color:{colour}">{shown(value, how["unit"]) if value is not None else ""}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


KINDS = {"timeseries": timeseries, "stat": stat, "bargauge": bargauge, "heatmap": heatmap, "table": table}


def height_of(dashboard):
    return 44 + max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in dashboard["panels"]) * CELL + GAP


def page(dashboard, answers, start, end, said):
    """The page; `answers` are by the number of the panel."""
    out = [f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><body style='height:{height_of(dashboard)}px'>"
           f"<header>{html.escape(dashboard['title'])}<small>{html.escape(said)}</small></header>"]
    unit = (WIDTH - GAP) / 24
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        x, y = GAP + place["x"] * unit, 44 + place["y"] * CELL
        w, h = place["w"] * unit - GAP, place["h"] * CELL - GAP
        if panel["type"] == "row":
            out.append(f'<div class="row" style="top:{y:.0f}px">{html.escape(panel["title"])}</div>')
            continue
        answer = answers[panel["id"]]
        body = KINDS[panel["type"]](panel, answer, w, h, start, end) if any(answer) else '<div class="empty">no data</div>'
        out.append(f'<div class="panel" style="left:{x:.0f}px;top:{y:.0f}px;width:{w:.0f}px;height:{h:.0f}px">'
                   f"<h3>{html.escape(panel['title'])}</h3>{body}</div>")
    return "".join(out) + "</body>"
