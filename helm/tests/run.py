#!/usr/bin/env python3
"""The tests of the chart: Helm renders it, nothing needs a cluster.

    values/*.yaml   must render, and hold against every check of checks.py
    refused/*.yaml  must be refused with the words in their first line
    the schema      refuses an unknown key in every place, describes every key, is up to date
    over time       secrets stay, scaling out leaves pods alone, files/ may be empty

usage: run.py [--json] [--only TEXT] [--chart DIR] [--config-schema FILE]

`--config-schema` takes what `ackord config schema` prints and compares the chart with it. The exit
code is 0 when everything holds. mutations.py shows that the tests notice what is broken.
"""
import argparse
import json
import pathlib
import re
import shutil
import sys
import tempfile
import time

import yaml

import checks
import render
import schema

HERE = pathlib.Path(__file__).resolve().parent
RULES = """groups:
  - name: sample
    rules:
      - alert: Sample
        expr: ackord_ready == 0
        for: 5m
        labels: {severity: page}
        annotations: {summary: "{{ $labels.pod }} is not ready"}
"""


class Suite:
    """Runs the tests against one chart and collects what does not hold."""

    def __init__(self, chart, config_schema=None, only=""):
        self.chart, self.config_schema, self.only = chart, config_schema, only
        self.values_schema = json.loads((chart / "values.schema.json").read_text())
        self.outer = json.loads(schema.OUTER.read_text())
        self.results = []

    def record(self, test, case, findings):
        if self.only in f"{test}: {case}":
            started = time.monotonic()
            try:
                found = list(findings())
            except render.Refused as error:
                found = [f"refused: {' '.join(str(error).split())[:400]}"]
            # What is not even of the shape that a check reads is a finding, and the others go on.
            except Exception as error:  # pylint: disable=broad-exception-caught
                found = [f"{type(error).__name__}: {error}"]
            self.results.append({"test": test, "case": case, "findings": found,
                                 "seconds": round(time.monotonic() - started, 2)})

    def render(self, values=None, **options):
        return render.render(values, chart=self.chart, **options)

    def run(self):
        self.record("lint", "chart", lambda: render.lint(self.chart))
        for file in sorted((HERE / "values").glob("*.yaml")):
            values = yaml.safe_load(file.read_text())
            # Rendered once, when it is looked at first.
            kept = []

            def release(values=values, kept=kept):
                if not kept:
                    kept.append(self.render(values))
                return kept[0]

            for check in checks.OF_A_RELEASE:
                self.record(check.__name__, file.stem, lambda check=check, release=release: check(release()))
            config = self.values_schema["properties"]["config"]
            self.record("configuration", file.stem,
                        lambda release=release, config=config: checks.configuration(release(), self.outer, config))
        for file in sorted((HERE / "refused").glob("*.yaml")):
            self.record("refused", file.stem, lambda file=file: self.refused(file))
        for path in self.places(self.values_schema, []):
            self.record("unknown key", ".".join(path) or "the top", lambda path=path: self.unknown(path))
        for test in (self.up_to_date, self.described, self.defaults, self.secrets_stay, self.scaling, self.founding,
                     self.changed_configuration, self.versions, self.files_there, self.files_shipped, self.monitored, self.files_absent, self.names, self.same_versions):
            self.record("whole", test.__name__, test)
        return self.results

    def refused(self, file):
        text = file.read_text()
        how, words = text.splitlines()[0].removeprefix("# ").split(": ", 1)
        values = yaml.safe_load(text)
        try:
            self.render(values)
            yield "it was taken"
        except render.Refused as error:
            # Helm's schema says places with slashes or dots.
            said = " ".join(str(error).split())
            if words not in said and words.strip("/").replace("/", ".") not in said:
                yield f"not the words {words!r}: {said[:500]}"
        if how == "unsafe":
            self.render({**values, "allowUnsafe": True})

    def places(self, node, path):
        """Every object of the values that has keys of its own."""
        if "properties" in node:
            yield path
        for name, below in node.get("properties", {}).items():
            yield from self.places(below, [*path, name])

    def unknown(self, path):
        values = {"no-such-key": 1}
        for name in reversed(path):
            values = {name: values}
        try:
            self.render(values)
            yield "it was taken"
        except render.Refused as error:
            if "no-such-key" not in str(error):
                yield f"refused for something else: {error}"

    def up_to_date(self):
        outer = {key: value for key, value in self.outer.items() if key != schema.LIST}
        if schema.outer_of(self.values_schema) != outer:
            yield "values.schema.json is not what values.outer.json says: run schema.py --write"
        config = self.values_schema["properties"]["config"]
        for path in self.outer[schema.LIST]:
            try:
                schema.without(json.loads(json.dumps(config)), path)
                yield f"config.{path} is the chart's own and is in the schema"
            except KeyError:
                pass
        if self.config_schema and schema.assemble(self.outer, self.config_schema) != (self.chart / "values.schema.json").read_text():
            yield "values.schema.json is not what `ackord config schema` says: run schema.py --write"

    def described(self):
        def look(node, path):
            for name, below in node.get("properties", {}).items():
                if not below.get("description"):
                    yield f"{path}{name} has no description"
                yield from look(below, f"{path}{name}.")
        yield from look(self.values_schema, "")

    def defaults(self):
        """values.yaml has every key of the outer part, and no others."""
        def look(node, values, path):
            for name in values.keys() ^ node["properties"].keys():
                yield f"{path}{name} is in values.yaml or in the schema only"
            for name, below in node["properties"].items():
                fixed = below.get("additionalProperties") is False and name != "config"
                if fixed and isinstance(values.get(name), dict):
                    yield from look(below, values[name], f"{path}{name}.")
        yield from look(self.values_schema, yaml.safe_load((self.chart / "values.yaml").read_text()), "")

    def secrets_stay(self):
        first = self.render()
        again = self.render(existing=[render.owned(one) for one in first.of("Secret")])
        for one in first.of("Secret"):
            if one["data"] != again.of("Secret", one["metadata"]["name"])["data"]:
                yield f"{checks.title(one)} is another one after an upgrade"
            if one["metadata"]["annotations"].get("helm.sh/resource-policy") != "keep":
                yield f"{checks.title(one)} goes with the release, the disks that need it stay"
        if self.render().of("Secret", "r-ackord-admin")["data"] == first.of("Secret", "r-ackord-admin")["data"]:
            yield "two releases have the same token"

    def scaling(self):
        """Another number of pods changes neither pods nor their configuration."""
        before = self.render()
        kept = [render.owned(one) for one in before.of("Secret") + before.of("StatefulSet")]
        for replicas in (5, 9):
            after = self.render({"replicas": replicas}, existing=kept)
            for kind in ("ConfigMap", "Secret"):
                if before.of(kind) != after.of(kind):
                    yield f"{replicas} replicas: another {kind}"
            specs = [json.loads(json.dumps(one.of("StatefulSet")[0]["spec"])) for one in (before, after)]
            if [spec.pop("replicas") for spec in specs] != [3, replicas] or specs[0] != specs[1]:
                yield f"{replicas} replicas: another StatefulSet"

    def founding(self):
        first = self.render({"replicas": 5})
        kept = [render.owned(one) for one in first.of("StatefulSet")]
        key = "ackord/founding-replicas"
        cases = [({"replicas": 7}, kept, "5"), ({"replicas": 3}, kept, "5"), ({"replicas": 7, "foundingReplicas": 3}, kept, "3"),
                 ({"replicas": 7, "foundingReplicas": 1, "founded": True}, kept, "1"),
                 ({"replicas": 7}, [], "7")]
        for values, existing, wanted in cases:
            found = self.render(values, existing=existing).of("StatefulSet")[0]["metadata"]["annotations"][key]
            if found != wanted:
                yield f"{values}: {found} pods found the cluster, not {wanted}"
        files = self.render({"founded": True}).of("ConfigMap", "r-ackord")["data"]
        if any("initial" in text for text in files.values()):
            yield "founded: a pod would still found a cluster"

    def changed_configuration(self):
        def checksum(values):
            return self.render(values).of("StatefulSet")[0]["spec"]["template"]["metadata"]["annotations"]
        if checksum({}) == checksum({"config": {"limits": {"sites_max": 5}}}):
            yield "another configuration leaves the pods as they are"
        if checksum({}) != checksum({"founded": True}):
            yield "founded restarts all pods"

    def versions(self):
        """The oldest Kubernetes that the chart takes, and the one before."""
        self.render(kubernetes="1.27.0")
        self.render(kubernetes="1.37.0-gke.1")
        try:
            self.render(kubernetes="1.26.9")
            yield "Kubernetes 1.26 was taken"
        except render.Refused:
            pass

    def with_files(self, files):
        with tempfile.TemporaryDirectory() as place:
            chart = pathlib.Path(place, "ackord")
            shutil.copytree(self.chart, chart)
            shutil.rmtree(chart / "files", ignore_errors=True)
            for name, text in files.items():
                (chart / "files" / name).parent.mkdir(parents=True, exist_ok=True)
                (chart / "files" / name).write_text(text)
            return render.render({"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}, chart=chart)

    def files_there(self):
        dashboard = json.dumps({"title": "{{ not a template }}", "panels": []}, indent=2)
        release = self.with_files({"rules/a.yaml": RULES, "rules/b.yaml": RULES.replace("sample", "other"),
                                   "dashboards/over_view.json": dashboard, "dashboards/b.json": "{}\n"})
        groups = release.of("PrometheusRule")[0]["spec"]["groups"] if release.of("PrometheusRule") else []
        if groups != [*yaml.safe_load(RULES)["groups"], *yaml.safe_load(RULES.replace("sample", "other"))["groups"]]:
            yield f"the rules are {groups}"
        shown = [one for one in release.of("ConfigMap") if one["metadata"]["labels"].get("grafana_dashboard") == "1"]
        if {name: json.loads(text) for one in shown for name, text in one["data"].items()} != {"over_view.json": json.loads(dashboard), "b.json": {}}:
            yield f"the dashboards are {[one['data'] for one in shown]}"
        for check in checks.OF_A_RELEASE:
            yield from check(release)

    def files_shipped(self):
        """The dashboards and rules of the repository, byte for byte, in objects that the API server takes."""
        root = HERE.parent.parent
        for kind in ("dashboards", "rules"):
            ours, theirs = ({path.name: path.read_bytes() for path in place.glob(f"{kind}/*") if path.is_file()}
                            for place in (root / "grafana", self.chart / "files"))
            if ours != theirs or not ours:
                yield f"files/{kind} is not grafana/{kind}: run python3 grafana/make.py"
        where = "https://wiki.example/runbooks"
        release = self.render({"prometheusRule": {"enabled": True, "runbooks": where + "/"}, "dashboards": {"enabled": True}})
        shown = [one for one in release.of("ConfigMap") if one["metadata"]["labels"].get("grafana_dashboard") == "1"]
        for one in shown:
            ((name, text),) = one["data"].items()
            if json.loads(text) != json.loads((root / "grafana/dashboards" / name).read_text()):
                yield f"{name} is another one"
            if len(json.dumps(one)) > 1 << 20:
                yield f"{name} is too large for a ConfigMap"
        if len(shown) != len(list((root / "grafana/dashboards").glob("*"))):
            yield f"there are {len(shown)} dashboards"
        rules = (root / "grafana/rules/ackord.yaml").read_text()
        for runbooks, wanted in ((where + "/", rules.replace("docs/runbooks/", where + "/")), ("", rules)):
            made = self.render({"prometheusRule": {"enabled": True, "runbooks": runbooks}}).of("PrometheusRule")
            if [one["spec"]["groups"] for one in made] != [yaml.safe_load(wanted)["groups"]]:
                yield f"with runbooks at {runbooks!r} the rules are others"

    def monitored(self):
        """A node keeps its name in Prometheus, and its token is shown only where that is asked for."""
        for kind, place in (("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")):
            for sites in (False, True):
                release = self.render({kind[0].lower() + kind[1:]: {"enabled": True, "sites": sites}})
                for endpoint in release.of(kind)[0]["spec"][place]:
                    if endpoint["relabelings"] != [{"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "instance"}]:
                        yield f"{kind}: a node is not called as its pod"
                    shows = endpoint.get("authorization", {}).get("credentials")
                    if bool(shows) != sites or (sites and shows["key"] not in release.of("Secret", shows["name"])["data"]):
                        yield f"{kind}: with sites {sites} it shows {shows}"

    def same_versions(self):
        """The chart, the image and the broker are of one version, and the image is built by the compiler of the rest."""
        root = HERE.parent.parent
        docker = (HERE.parent / "Dockerfile").read_text()
        broker = re.search(r'(?m)^version = "(.*)"', (root / "Cargo.toml").read_text())[1]
        compiler = re.search(r'channel = "(.*)"', (root / "rust-toolchain.toml").read_text())[1]
        if yaml.safe_load((self.chart / "Chart.yaml").read_text())["appVersion"] != broker:
            yield f"Chart.yaml: appVersion is not {broker}"
        for part in (f"ARG VERSION={broker}\n", f"FROM rust:{compiler}-", f"RUSTUP_TOOLCHAIN={compiler} "):
            if part not in docker:
                yield f"Dockerfile lacks {part.strip()}"

    def files_absent(self):
        release = self.with_files({})
        if release.of("PrometheusRule") or len(release.of("ConfigMap")) != 1:
            yield "something is made of nothing"

    def names(self):
        """However the release is called."""
        for name, wanted in (("ackord", "ackord"), ("my-ackord-2", "my-ackord-2"), ("x" * 53, "x" * 40)):
            release = self.render(name=name)
            if release.of("StatefulSet")[0]["metadata"]["name"] != wanted:
                yield f"{name} becomes {release.of('StatefulSet')[0]['metadata']['name']}"
            yield from checks.metadata(release)
            yield from checks.references(release)


def report(results, out=sys.stdout):
    """For people: a line per test, and everything that does not hold."""
    tests = {}
    for one in results:
        tests.setdefault(one["test"], []).append(one)
    for test, cases in tests.items():
        bad = [one for one in cases if one["findings"]]
        took = sum(one["seconds"] for one in cases)
        print(f"{'NOT' if bad else 'ok '} {test}: {len(cases) - len(bad)} of {len(cases)} ({took:.1f} s)", file=out)
        for one in bad:
            for finding in one["findings"]:
                print(f"    {one['case']}: {finding}", file=out)
    failed = sum(bool(one["findings"]) for one in results)
    print(f"{len(results) - failed} of {len(results)} hold", file=out)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true", help="one JSON line per test and case")
    options.add_argument("--only", default="", help="only tests whose `test: case` contains this")
    options.add_argument("--chart", type=pathlib.Path, default=render.CHART, help="another chart")
    options.add_argument("--config-schema", type=pathlib.Path, help="what `ackord config schema` prints")
    given = options.parse_args()
    config = json.loads(given.config_schema.read_text()) if given.config_schema else None
    results = Suite(given.chart, config, given.only).run()
    if given.json:
        for one in results:
            print(json.dumps(one))
    else:
        report(results)
    if not results:
        print(f"nothing contains {given.only!r}", file=sys.stderr)
        return 2
    return int(any(one["findings"] for one in results))


if __name__ == "__main__":
    sys.exit(main())
