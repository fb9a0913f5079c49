"""What the dashboards are put together from: panels of Grafana, laid out in rows.

Expressions are written without the variables: `ackord_ready` becomes
`ackord_ready{namespace=~"$namespace",instance=~"$node"}`, and `@ackord_ready` leaves the node out, where
what is asked is of the whole cluster. `RATE` stands for `[$__rate_interval]`.
"""
import re

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLOURS = {"ok": "green", "low": "yellow", "warn": "orange", "bad": "red", "plain": "blue", "text": "text"}
NAME = re.compile(r"(@?)\b(ackord_\w+|up(?=\{))(?:\{([^}]*)\})?")


def filled(expr):
    """The expression with the variables in every selector."""
    def one(match):
        whole, name, labels = match.groups()
        more = ['namespace=~"$namespace"'] + ([] if whole else ['instance=~"$node"'])
        if name == "up":
            more.insert(0, 'job=~".*ackord.*"')
        if name.startswith(("ackord_site_", "ackord_queue_", "ackord_subscription_", "ackord_push_subscription_")):
            more.append('site=~"$site"')
        return f"{name}{{{','.join(more + ([labels] if labels else []))}}}"
    return NAME.sub(one, " ".join(expr.split())).replace(" RATE", "[$__rate_interval]")


def steps(*pairs):
    """Thresholds: the colour at the bottom, then values and the colours from there on."""
    listed = [{"color": COLOURS[pairs[0]], "value": None}]
    return {"mode": "absolute", "steps": listed + [
        {"color": COLOURS[colour], "value": value} for value, colour in zip(pairs[1::2], pairs[2::2])]}


PLAIN = steps("plain")
# Whatever is above 0 is bad, or wants a look.
NONE_BAD = steps("ok", 1, "bad")
NONE_WARN = steps("ok", 1, "warn")
LATENCY = steps("ok", 0.25, "low", 1, "bad")


def target(index, expr, legend="", **more):
    return {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": filled(expr),
            "legendFormat": legend or "__auto", "editorMode": "code", "range": True, **more}


def panel(kind, title, about, unit, targets, thresholds=PLAIN, options=None, custom=None, **defaults):
    field = {"unit": unit, "thresholds": thresholds, "mappings": [], "color": {"mode": "palette-classic"}, **defaults}
    if custom:
        field["custom"] = custom
    return {"type": kind, "title": title, "description": " ".join(about.split()), "datasource": SOURCE,
            "fieldConfig": {"defaults": field, "overrides": []}, "options": options or {}, "targets": targets}


def stat(title, about, expr, unit="short", thresholds=PLAIN, decimals=None, spark=True, mappings=None):
    more = {} if decimals is None else {"decimals": decimals}
    if mappings:
        more["mappings"] = mappings
    return panel("stat", title, about, unit, [target(0, expr)], thresholds,
                 {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value",
                  "graphMode": "area" if spark else "none", "textMode": "value", "justifyMode": "auto", "orientation": "auto"},
                 color={"mode": "thresholds"}, **more)


def series(title, about, lines, unit="short", thresholds=PLAIN, stack=False, line=False, low=0, most=None):
    """`lines` are pairs of expression and legend; `line` draws the thresholds."""
    custom = {"drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": 30 if stack else 8,
              "showPoints": "never", "spanNulls": False, "axisSoftMin": 0 if low == 0 else low,
              "stacking": {"mode": "normal" if stack else "none", "group": "A"},
              "thresholdsStyle": {"mode": "dashed" if line else "off"}}
    if most is not None:
        custom["axisSoftMax"] = most
    return panel("timeseries", title, about, unit, [target(i, *one) for i, one in enumerate(lines)], thresholds,
                 {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                  "tooltip": {"mode": "multi", "sort": "desc"}}, custom)


def percentiles(title, about, metric, thresholds=LATENCY, line=True):
    lines = [(f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket RATE)))", f"p{int(q * 100)}") for q in (0.5, 0.95, 0.99)]
    return series(title, about, lines, "s", thresholds, line=line)


def heat(title, about, metric, unit="s"):
    one = target(0, f"sum by (le) (increase({metric}_bucket RATE))", "{{le}}", format="heatmap")
    return panel("heatmap", title, about, unit, [one], PLAIN,
                 {"calculate": False, "cellGap": 1, "yAxis": {"unit": unit, "axisPlacement": "left"}, "rowsFrame": {"layout": "le"},
                  "color": {"mode": "scheme", "scheme": "Turbo", "steps": 64, "exponent": 0.5}, "legend": {"show": True},
                  "tooltip": {"mode": "single", "yHistogram": False}, "cellValues": {"unit": "short"}, "filterValues": {"le": 1e-9}})


def bars(title, about, expr, legend, unit="short", thresholds=PLAIN, most=None):
    limits = {"min": 0} if most is None else {"min": 0, "max": most}
    return panel("bargauge", title, about, unit, [target(0, expr, legend, instant=True, range=False)], thresholds,
                 {"orientation": "horizontal", "displayMode": "basic", "showUnfilled": True, "valueMode": "color",
                  "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}},
                 color={"mode": "thresholds"}, **limits)


def table(title, about, keys, columns, sort=None):
    """`keys` are the labels that a row is known by; `columns` are header, expression, unit and thresholds."""
    targets = [target(i, column[1], instant=True, range=False, format="table") for i, column in enumerate(columns)]
    one = panel("table", title, about, "short", targets, PLAIN, {"showHeader": True, "cellHeight": "sm"},
                {"align": "auto", "cellOptions": {"type": "auto"}})
    values = ["Value"] if len(columns) == 1 else [f"Value #{chr(ord('A') + i)}" for i in range(len(columns))]
    renamed = dict(zip(values, (column[0] for column in columns))) | {"instance": "node"}
    order = {name: i for i, name in enumerate([*keys, *values])}
    one["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": renamed}}]
    for header, _, unit, *limits in columns:
        properties = [{"id": "unit", "value": unit}]
        if limits:
            properties += [{"id": "thresholds", "value": limits[0]},
                           {"id": "custom.cellOptions", "value": {"type": "color-text"}}]
        one["fieldConfig"]["overrides"].append({"matcher": {"id": "byName", "options": header}, "properties": properties})
    if sort:
        one["options"]["sortBy"] = [{"displayName": sort, "desc": True}]
    return one


def variable(name, label, query, about):
    return {"type": "query", "name": name, "label": label, "description": about, "datasource": SOURCE,
            "definition": query, "query": {"query": query, "refId": name}, "qryType": 1, "refresh": 2, "sort": 1,
            "multi": True, "includeAll": True, "allValue": ".*", "regex": "", "hide": 0,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "options": [], "skipUrlSync": False}


def dashboard(uid, title, about, rows, site=False):
    """`rows` are a heading, or a height with panels that share the width; a panel may be a pair of a width and itself."""
    placed, top = [], 0
    for row in rows:
        if isinstance(row, str):
            placed.append({"type": "row", "title": row, "collapsed": False, "panels": [],
                           "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}})
            top += 1
            continue
        height, *panels = row
        panels = [one if isinstance(one, tuple) else (24 // len(panels), one) for one in panels]
        left = 0
        for width, one in panels:
            placed.append({**one, "gridPos": {"x": left, "y": top, "w": width, "h": height}})
            left += width
        assert left == 24, (title, [one["title"] for _, one in panels], left)
        top += height
    variables = [
        {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "hide": 0, "refresh": 1, "regex": "",
         "current": {}, "options": [], "multi": False, "includeAll": False, "skipUrlSync": False},
        variable("namespace", "Namespace", "label_values(ackord_build_info, namespace)",
                 "Of Kubernetes. Without it, All is right."),
        variable("node", "Node", 'label_values(ackord_build_info{namespace=~"$namespace"}, instance)', "Nodes to look at."),
    ]
    if site:
        variables.append(variable("site", "Site", 'label_values({__name__=~"ackord_site_lag_instances|ackord_queue_retained_instances",'
                                  'namespace=~"$namespace"}, site)', "Sites that are named."))
    return {
        "uid": uid, "title": title, "description": " ".join(about.split()), "tags": ["ackord"], "schemaVersion": 39, "version": 1,
        "editable": True, "graphTooltip": 1, "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "timepicker": {},
        "timezone": "", "weekStart": "", "fiscalYearStartMonth": 0, "liveNow": False, "style": "dark",
        "links": [{"type": "dashboards", "tags": ["ackord"], "title": "Ackord", "asDropdown": False, "includeVars": True,
                   "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""}],
        "annotations": {"list": [
            {"builtIn": 1, "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": True, "hide": True,
             "iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard"},
            {"datasource": SOURCE, "enable": True, "iconColor": "red", "name": "Restarts", "titleFormat": "{{instance}} started",
             "expr": filled("changes(ackord_start_time_seconds[$__interval]) > 0")}]},
        "templating": {"list": variables},
        "panels": [{"id": index, **one} for index, one in enumerate(placed, 1)],
    }
