#!/usr/bin/env python3
"""Asks a Prometheus everything that the dashboards ask, and makes pictures of them.

usage: look.py --prometheus URL [--seconds N] [--scrape SECONDS] [--pictures DIR] [--lenient]

Prints one JSON object: every query of every panel and variable with how much it gave. Variables are set to All, as Grafana
does. The exit code is 1 where something was empty or an error, unless `--lenient`. Pictures are drawn by draw.py and
photographed by a headless Chromium (`ACKORD_TEST_CHROMIUM`, or the one of this machine).
"""
import argparse
import json
import math
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import draw

HERE = pathlib.Path(__file__).resolve().parent
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
POINTS = {"heatmap": 60}


class Prometheus:
    """Answers questions as of one moment."""

    def __init__(self, url, seconds, scrape):
        self.url, self.scrape = url.rstrip("/"), scrape
        self.end = math.floor(time.time())
        self.start = self.end - seconds

    def get(self, path, **query):
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=60) as answer:
            return json.load(answer)["data"]

    def filled(self, text, step):
        """As Grafana fills an expression in with All chosen everywhere."""
        rate = max(step + self.scrape, 4 * self.scrape)
        for name, value in (("$__rate_interval", f"{rate}s"), ("$__interval", f"{step}s"),
                            ("$namespace", ".*"), ("$node", ".*"), ("$site", ".*")):
            text = text.replace(name, value)
        return text

    def ask(self, kind, target):
        """A list of legend or labels, and points."""
        step = max(1, math.ceil((self.end - self.start) / POINTS.get(kind, 200)))
        expr = self.filled(target["expr"], step)
        if target.get("instant"):
            rows = self.get("query", query=expr, time=self.end)["result"]
            for row in rows:
                row["values"] = [row["value"]]
        else:
            start = self.start // step * step
            rows = self.get("query_range", query=expr, start=start, end=self.end, step=step)["result"]
        if "sort" not in expr:
            rows.sort(key=lambda row: sorted(row["metric"].items()))
        if target.get("format") == "table":
            return [(row["metric"], float(row["values"][-1][1])) for row in rows]
        return [(self.name(target["legendFormat"], row["metric"]), [(t, float(v)) for t, v in row["values"]]) for row in rows]

    @staticmethod
    def name(legend, labels):
        if legend == "__auto":
            return ", ".join(f"{k}={v}" for k, v in labels.items()) or "value"
        return re.sub(r"\{\{(\w+)\}\}", lambda m: labels.get(m[1], ""), legend)

    def values(self, query):
        """What a variable may be: label_values(selector, label)."""
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()
        return self.get(f"label/{label}/values", **{"match[]": self.filled(selector, 1)})


def is_something(kind, rows):
    if kind == "table":
        return bool(rows)
    return any(math.isfinite(v) for _, points in rows for _, v in points)


def rows_of(panel, answers):
    """What the transformations merge and organize make of the answers."""
    organize = next(one for one in panel["transformations"] if one["id"] == "organize")["options"]
    names, order = organize["renameByName"], organize["indexByName"]
    merged = {}
    for at, answer in enumerate(answers):
        header = "Value" if len(answers) == 1 else f"Value #{chr(ord('A') + at)}"
        for labels, value in answer:
            row = merged.setdefault(tuple(sorted(labels.items())), dict(labels))
            row[header] = value
    rank = lambda name: order.get(name, 99)
    return [{names.get(name, name): row[name] for name in sorted(row, key=rank)} for row in merged.values()]


def look(prometheus, dashboard, report):
    """Asks everything that a dashboard asks; the answers by panel."""
    answers = {}
    for one in dashboard["templating"]["list"]:
        if one["type"] == "query":
            found = prometheus.values(one["query"]["query"])
            report.append({"of": "variable", "panel": one["name"], "query": one["query"]["query"], "rows": len(found), "empty": not found})
    for one in dashboard["annotations"]["list"]:
        if "expr" in one:
            prometheus.ask("annotation", {"expr": one["expr"], "legendFormat": "__auto"})
    for panel in dashboard["panels"]:
        asked = []
        for target in panel.get("targets", []):
            row = {"of": panel["type"], "panel": panel["title"], "query": target["expr"]}
            try:
                rows = prometheus.ask(panel["type"], target)
                row |= {"rows": len(rows), "empty": not is_something(panel["type"], rows)}
            except urllib.error.HTTPError as error:
                rows, row = [], row | {"rows": 0, "empty": True, "error": error.read().decode()[:300]}
            asked.append(rows)
            report.append(row)
        answers[panel["id"]] = rows_of(panel, asked) if panel["type"] == "table" else asked
    return answers


def browser():
    found = os.environ.get("ACKORD_TEST_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        sys.exit("look.py: Chromium is needed: install it, or set ACKORD_TEST_CHROMIUM to one")
    return found


def photograph(page, picture, width, height):
    """A picture of a page; its size."""
    with tempfile.TemporaryDirectory(prefix="ackord-look") as home:
        subprocess.run([browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                        "--no-proxy-server", f"--user-data-dir={home}/profile", f"--window-size={width},{height}",
                        "--force-device-scale-factor=1", f"--screenshot={picture}", page.as_uri()],
                       env={**os.environ, "HOME": home}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=True, timeout=300)
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n", f"{picture} is no picture"
    return struct.unpack(">II", head[16:24])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prometheus", required=True)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--scrape", type=int, default=15)
    parser.add_argument("--pictures", type=pathlib.Path)
    parser.add_argument("--lenient", action="store_true")
    options = parser.parse_args()
    prometheus = Prometheus(options.prometheus, options.seconds, options.scrape)
    whole = {"dashboards": {}, "pictures": []}
    for file in sorted((HERE / "dashboards").glob("*.json")):
        dashboard, report = json.loads(file.read_text()), []
        answers = look(prometheus, dashboard, report)
        whole["dashboards"][file.stem] = report
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            stamp = lambda at: time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))
            said = f"all namespaces, all nodes · {stamp(prometheus.start)} to {stamp(prometheus.end)} UTC"
            text = draw.page(dashboard, answers, prometheus.start, prometheus.end, said)
            size = [draw.WIDTH, draw.height_of(dashboard)]
            picture = options.pictures.resolve() / f"dashboard-{file.stem}.png"
            with tempfile.NamedTemporaryFile("w", suffix=".html", dir=options.pictures) as page:
                page.write(text)
                page.flush()
                made = photograph(pathlib.Path(page.name).resolve(), picture, *size)
            whole["pictures"].append({"file": picture.name, "bytes": picture.stat().st_size, "size": list(made), "wanted": size,
                                      "panels": sum(panel["type"] != "row" for panel in dashboard["panels"]),
                                      "drawn": text.count('<div class="panel"'), "empty": text.count('class="empty"')})
    print(json.dumps(whole))
    return int(not options.lenient and any(row["empty"] for report in whole["dashboards"].values() for row in report))


if __name__ == "__main__":
    sys.exit(main())
