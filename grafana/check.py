#!/usr/bin/env python3
"""Whether dashboards, rules, tests, runbooks and documents fit together. Asks no broker.

usage: check.py [--promtool PATH] [--ackord PATH]

Needs PyYAML and promtool. With `--ackord` the commands of the runbooks are looked up in that binary. The exit code is 1 where
something does not hold.
"""
import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

import make

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
RUNBOOKS = ROOT / "docs/runbooks"
# What every series may have besides.
COMMON = {"namespace", "instance", "le", "job", "pod"}
# Names of other things: a claim, crates in the log, and what `ackord check --format prometheus` writes.
OTHERS = re.compile(r"ackord_(role|agents|gateway|replica|store|machine|endpoint|check_\w+|lag_instances_demo\w*|ready_\w+)")
WORD = re.compile(r"(?<![\w/.-])ackord_[a-z_]+[a-z]\b(?![-/.]\w)")
SELECTOR = re.compile(r"\b(ackord_\w+)(?:\{([^}]*)\})?")


def metrics():
    """The labels of every metric of docs/metrics.md."""
    found = {}
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        if match := re.match(r"\| `(ackord_\w+)` \| (counter|gauge|histogram) \| [^|]* \| ([^|]*) \|", line):
            name, kind, labels = match.groups()
            found[name] = set(re.findall(r"`(\w+)`", labels))
            if kind == "histogram":
                found |= {name + end: found[name] for end in ("_bucket", "_sum", "_count")}
    return found


def of_expression(where, text, known):
    """Metrics and labels of an expression that are not there."""
    for name, selector in SELECTOR.findall(text):
        if name not in known:
            yield f"{where}: there is no metric {name}"
            continue
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
            if label not in known[name] | COMMON:
                yield f"{where}: {name} has no label {label}"
    names = [name for name, _ in SELECTOR.findall(text) if name in known]
    labels = set().union(COMMON, *(known[name] for name in names))
    for group in re.findall(r"(?:by|on|group_right|group_left)\s*\(([^)]*)\)", text):
        for label in filter(None, map(str.strip, group.split(","))):
            if names and label not in labels:
                yield f"{where}: nothing there has a label {label}"


def dashboards(known):
    uids, shown = collections.Counter(), set()
    for file in sorted((HERE / "dashboards").glob("*.json")):
        board = json.loads(file.read_text())
        uids[board["uid"]] += 1
        if len(file.read_bytes()) > 900_000:
            yield f"{file.name} is too large for a ConfigMap"
        if not any(link["type"] == "dashboards" and set(link["tags"]) <= set(board["tags"]) for link in board["links"]):
            yield f"{file.name} does not lead to the others"
        names = {one["name"] for one in board["templating"]["list"]}
        if missing := {"datasource", "namespace", "node"} - names:
            yield f"{file.name} has no variable {missing}"
        for one in board["templating"]["list"]:
            if one["type"] == "query":
                yield from of_expression(f"{file.name}: ${one['name']}", one["definition"], known)
        taken = set()
        for panel in board["panels"]:
            where = f"{file.name}: {panel['title']}"
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            if cells & taken or place["x"] + place["w"] > 24:
                yield f"{where}: it lies over another panel, or outside"
            taken |= cells
            if panel["type"] == "row":
                continue
            defaults = panel["fieldConfig"]["defaults"]
            if not panel["description"].endswith(".") or not defaults["unit"] or not defaults["thresholds"]["steps"]:
                yield f"{where}: a description, a unit or thresholds are missing"
            for target in panel["targets"]:
                used = set(re.findall(r"\$(?!__)(\w+)", target["expr"]))
                if used - names:
                    yield f"{where}: there is no variable {used - names}"
                yield from of_expression(where, target["expr"], known)
                shown |= {name for name, _ in SELECTOR.findall(target["expr"])}
    yield from (f"two dashboards have the uid {uid}" for uid, count in uids.items() if count > 1)
    for name in known:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        if not any(other.startswith(family) and other in known for other in shown):
            yield f"{name} is on no dashboard"


def rules():
    for file in sorted((HERE / "rules").glob("*.yaml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def alerts(known):
    there = {}
    for rule in rules():
        name = rule.get("alert", rule.get("record"))
        yield from of_expression(name, rule["expr"], known)
        if "alert" not in rule:
            continue
        there[name] = rule
        said = rule.get("annotations", {})
        if rule.get("labels", {}).get("severity") not in ("critical", "warning"):
            yield f"{name} has no severity"
        if not said.get("summary") or not said.get("description", "").endswith("."):
            yield f"{name}: a summary or a description is missing"
        if said.get("runbook_url") != f"docs/runbooks/{name}.md" or not (ROOT / said["runbook_url"]).exists():
            yield f"{name} has no page docs/runbooks/{name}.md"
        # What a text asks for must be a label of the result.
        kept = re.match(r"\s*(?:sum|max|min|count) by \(([^)]*)\)", rule["expr"])
        labels = set(re.split(r",\s*", kept[1])) if kept else COMMON.union(*(known.get(n, set()) for n, _ in SELECTOR.findall(rule["expr"])))
        if not kept and ":" in rule["expr"] and "instance" not in next(r["expr"] for r in rules() if r.get("record") and r["record"] in rule["expr"]):
            labels -= {"instance"}
        for text in said.values():
            if lost := set(re.findall(r"\$labels\.(\w+)", text)) - labels:
                yield f"{name}: its texts name {lost}, which its result has not"
    if len(there) < 15:
        yield f"there are only {len(there)} alerts"
    for page in sorted(RUNBOOKS.glob("*.md")):
        if page.stem not in there and page.stem != "README":
            yield f"{page.name} belongs to no alert"
        elif page.stem in there:
            text = page.read_text()
            if not text.startswith(f"# {page.stem}\n"):
                yield f"{page.name} has another heading"
            for part in ("## What it means", "## What users notice", "## How to find out", "## How to mend it", "## What not to do"):
                if part not in text:
                    yield f"{page.name} lacks {part!r}"
    table = (ROOT / "docs/monitoring.md").read_text()
    for name, rule in there.items():
        row = f"| [{name}](runbooks/{name}.md) | {rule.get('labels', {}).get('severity')} |"
        if row not in table:
            yield f"docs/monitoring.md has no row {row}"


def pages(known):
    """Names of metrics in documents, and what the runbooks ask."""
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("helm/**/*.md"))]:
        text = page.read_text()
        where = str(page.relative_to(ROOT))
        for name in sorted(set(WORD.findall(text))):
            prefix = any(other.startswith(name + "_") for other in known)
            if name not in known and not prefix and not OTHERS.fullmatch(name):
                yield f"{where}: there is no metric {name}"
        if page.parent == RUNBOOKS:
            for block in re.findall(r"```promql\n(.*?)```", text, re.S):
                yield from of_expression(where, block, known)


def commands(ackord):
    """Commands of the runbooks and of docs/monitoring.md that the binary does not have."""
    asked = set()
    for page in [*RUNBOOKS.glob("*.md"), ROOT / "docs/monitoring.md"]:
        text = page.read_text()
        code = re.findall(r"```(?:sh|console)\n(.*?)```", text, re.S) + re.findall(r"`(ackord [^`]*)`", text)
        for line in "\n".join(code).splitlines():
            for words in re.findall(r"(?:^|[\s/$(])ackord ((?:[a-z][a-z-]*(?= |$) ?)+)", line.strip()):
                asked.add((page.name, tuple(words.split()[:2]), tuple(re.findall(r"(?<= )--[a-z][a-z-]*", line))))
    for page, words, options in sorted(asked):
        shown = None
        for count in (2, 1):
            told = subprocess.run([ackord, *words[:count], "--help"], capture_output=True, text=True, check=False)
            if told.returncode == 0:
                shown = told.stdout
                break
        # What follows a command without further commands is its argument.
        if shown is None:
            yield f"{page}: there is no command ackord {' '.join(words)}"
            continue
        for option in options:
            if option not in shown:
                yield f"{page}: ackord {' '.join(words)} has no {option}"


def listed(cases):
    return cases if isinstance(cases, list) else [cases]


def unit_tests(promtool):
    """Every alert fires where it should and is silent where it should be."""
    # Not as numbers: 0x10 is ten samples.
    cases = yaml.load((HERE / "tests/alerts.yaml").read_text(), yaml.BaseLoader)
    there = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    for name in cases.keys() ^ there.keys():
        yield f"{name}: an alert without tests, or tests without an alert"
        cases.pop(name, None)
    tests = []
    for name, both in cases.items():
        if set(both) != {"fires", "silent"}:
            yield f"{name}: it needs a test that it fires and one that it is silent"
            continue
        # Silence because a series is not there at all would prove nothing.
        asked, given = (set(re.findall(r"(?<![\w:])(?:ackord_\w+|up\b)", text)) for text in (there[name]["expr"], " ".join(series for case in listed(both["silent"]) for series in case["series"])))
        if asked - given:
            yield f"{name}: its silence is not tested with {asked - given}"
        for kind, case in ((kind, case) for kind, cases in both.items() for case in listed(cases)):
            wanted = [{"labels": f'{{alertname="{name}",severity="{there[name].get("labels", {}).get("severity")}"}}', "value": 1}] if kind == "fires" else []
            tests.append({
                "name": f"{name} {kind}", "interval": "1m",
                "input_series": [{"series": series, "values": str(values)} for series, values in case["series"].items()],
                "promql_expr_test": [{"expr": f'count by (alertname, severity) (ALERTS{{alertname="{name}",alertstate="firing"}})',
                                      "eval_time": case["at"], "exp_samples": wanted}],
            })
    # Texts are filled in with labels and values.
    tests.append({
        "name": "texts", "interval": "1m",
        "input_series": [{"series": 'ackord_certificate_expiry_seconds{instance="a",certificate="front"}', "values": "604800x30"}],
        "alert_rule_test": [{"eval_time": "10m", "alertname": "AckordCertificateEndsSoon", "exp_alerts": [{
            "exp_labels": {"severity": "critical", "instance": "a", "certificate": "front"},
            "exp_annotations": {
                "summary": "The certificate front of a ends in 6d 23h 50m 0s",
                "description": there["AckordCertificateEndsSoon"]["annotations"]["description"],
                "runbook_url": "docs/runbooks/AckordCertificateEndsSoon.md"}}]}],
    })
    with tempfile.TemporaryDirectory() as place:
        file = pathlib.Path(place, "tests.yaml")
        file.write_text(yaml.safe_dump({"rule_files": [str(path) for path in sorted((HERE / "rules").glob("*.yaml"))],
                                        "evaluation_interval": "1m", "tests": tests}))
        for arguments in (["check", "rules", *map(str, (HERE / "rules").glob("*.yaml"))], ["test", "rules", str(file)]):
            told = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
            if told.returncode:
                yield f"promtool {' '.join(arguments[:2])}: {told.stdout}{told.stderr}"
    print(f"{len(there)} alerts, {len(tests)} tests of them")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--promtool", default="promtool")
    parser.add_argument("--ackord")
    options = parser.parse_args()
    known = metrics()
    findings = [f"{path.relative_to(ROOT)} is not what grafana/make.py makes: run `python3 grafana/make.py`"
                for path, text in make.files() if not path.exists() or path.read_text() != text]
    made = {path for path, _ in make.files()}
    for folder in ("dashboards", "rules"):
        findings += [f"{path.relative_to(ROOT)} is nothing that grafana/make.py makes" for path in (make.CHART / folder).glob("*") if path not in made]
    for check in (dashboards(known), alerts(known), pages(known), unit_tests(options.promtool), commands(options.ackord) if options.ackord else ()):
        findings += check
    for finding in findings:
        print(finding)
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
