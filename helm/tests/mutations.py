#!/usr/bin/env python3
"""Shows that the tests of the chart notice what is broken: a test that cannot fail proves nothing.

Each mutation changes one text in a copy of the chart, and names the test that must then fail. One
whose text is gone, or that no test notices, is an error of this script.

usage: mutations.py [--only TEXT]
"""
import argparse
import pathlib
import shutil
import sys
import tempfile

import render
import run

# The test, as run.py says it; the file; what stands there; what stands there instead.
MUTATIONS = [
    ("lint: chart", "Chart.yaml", "version: 0.1.0\nappVersion", "version: one\nappVersion"),
    ("lint: chart", "templates/services.yaml", "clusterIP: None", "clusterIP: {{ None }}"),
    ("schemas: default", "templates/statefulset.yaml", "minReadySeconds:", "minimumReadySeconds:"),
    ("schemas: default", "templates/statefulset.yaml", "replicas: {{ .Values.replicas }}", "replicas: {{ .Values.replicas | quote }}"),
    ("schemas: scale-in", "templates/serviceaccount.yaml", "verbs: [get]", "verb: [get]"),
    ("schemas: monitoring", "templates/_monitoring.tpl", "scrapeTimeout:", "scrape_timeout:"),
    ("schemas: pod-monitor", "templates/monitoring.yaml", "podMetricsEndpoints:", "endpoints:"),
    ("schemas: tls-cert-manager", "templates/certificates.yaml", "renewBefore:", "renewBeforeExpiry:"),
    ("schemas: tls-cert-manager", "templates/certificates.yaml", "selfSigned: {}", "selfsigned: {}"),
    ("schemas: httproute", "templates/httproute.yaml", "type: PathPrefix", "type: Prefix"),
    ("whole: files_there", "templates/monitoring.yaml", "groups:\n    {{- toYaml . | nindent 4 }}", "group:\n    {{- toYaml . | nindent 4 }}"),
    ("metadata: default", "templates/services.yaml", "name: {{ include \"ackord.headless\" . }}", "name: {{ include \"ackord.fullname\" . }}"),
    ("metadata: default", "templates/secrets.yaml", "namespace: {{ .Release.Namespace }}", "namespace: elsewhere"),
    ("whole: names", "templates/_names.tpl", "default $whole .Values.fullnameOverride | trunc 40", "default $whole .Values.fullnameOverride | trunc 63"),
    ("restricted: default", "values.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    ("restricted: default", "values.yaml", "    drop: [ALL]", "    drop: [NET_RAW]"),
    ("restricted: default", "values.yaml", "type: RuntimeDefault", "type: Unconfined"),
    ("restricted: default", "values.yaml", "runAsUser: 65532", "runAsUser: 0"),
    ("restricted: default", "templates/_names.tpl", ":{{ default .Chart.AppVersion .Values.image.tag }}", ":latest"),
    ("restricted: default", "templates/statefulset.yaml", "enableServiceLinks: false", "enableServiceLinks: true"),
    ("restricted: default", "templates/test.yaml", "  securityContext:\n    {{- toYaml .Values.podSecurityContext | nindent 4 }}\n", ""),
    ("restricted: default", "templates/_test.tpl", "    limits:\n      memory: 256Mi\n", ""),
    ("secrets: default", "templates/secrets.yaml", "randAlphaNum 48", "randAlphaNum 16"),
    ("secrets: default", "templates/configmap.yaml", "\ndata:\n", "\ndata:\n  extra: 'admin_token = \"x\"'\n"),
    ("secrets: existing-secrets", "templates/extra.yaml", "{{ tpl . $ }}", "{{ tpl . $ | replace \"kind: Secret\" \"kind: ConfigMap\" }}"),
    ("references: default", "templates/statefulset.yaml", "        - name: tmp\n          emptyDir:", "        - name: temporary\n          emptyDir:"),
    ("references: default", "templates/services.yaml", "targetPort: peers", "targetPort: peer"),
    ("references: default", "templates/test.yaml", "app.kubernetes.io/component: test", "app.kubernetes.io/component: broker"),
    ("references: default", "templates/poddisruptionbudget.yaml", "ackord.podSelector", "ackord.selector"),
    ("references: default", "templates/statefulset.yaml", "automountServiceAccountToken: {{ .Values.preStop.enabled }}", "automountServiceAccountToken: true"),
    ("references: monitoring", "templates/monitoring.yaml", "app.kubernetes.io/component: peers", "app.kubernetes.io/component: endpoints"),
    ("references: scale-in", "templates/serviceaccount.yaml", "    resourceNames: [{{ include \"ackord.fullname\" . }}]\n", ""),
    ("references: ingress", "templates/ingress.yaml", "name: {{ include \"ackord.fullname\" $ }}\n                port", "name: web\n                port"),
    ("pod_life: default", "templates/statefulset.yaml", "podManagementPolicy: Parallel", "podManagementPolicy: OrderedReady"),
    ("pod_life: default", "templates/services.yaml", "publishNotReadyAddresses: true", "publishNotReadyAddresses: false"),
    ("pod_life: default", "values.yaml", "path: /healthz/startup", "path: /healthz/ready"),
    ("pod_life: scale-in", "templates/statefulset.yaml", "kubernetes, pre-stop", "drain"),
    ("pod_life: scale-in", "templates/_pod.tpl", "- name: ACKORD_STATEFULSET\n  value: {{ include \"ackord.fullname\" . }}\n", ""),
    ("configuration: configuration", "templates/_config.tpl", "{{ int64 . }}", "{{ . }}.0"),
    ("configuration: configuration", "templates/_config.tpl", "{{ toJson . }}", "{{ . }}"),
    ("configuration: default", "templates/_config.tpl", "%s-%d.%s:4656", "%s-%d.%s:4655"),
    ("configuration: default", "templates/_config.tpl", "(ge $ordinal $founders)", "(gt $ordinal $founders)"),
    ("configuration: default", "templates/_config.tpl", "set $cluster \"initial\" $initial", "set $cluster \"initially\" $initial"),
    ("configuration: founded", "templates/_config.tpl", "ne $index $ordinal", "true"),
    ("configuration: default", "templates/_pod.tpl", "ACKORD_CLUSTER__TLS__NAME", "ACKORD_CLUSTERS__TLS__NAME"),
    ("configuration: everything", "templates/configmap.yaml", "max (int .Values.replicas) (int .Values.preparedReplicas) | int", "int .Values.preparedReplicas"),
    ("long_answers: ingress", "templates/ingress.yaml", "proxy-read-timeout\" \"3600\"", "proxy-read-timeout\" \"60\""),
    ("long_answers: httproute", "templates/httproute.yaml", "      timeouts:\n        {{- toYaml .Values.httpRoute.timeouts | nindent 8 }}\n", ""),
    ("notes: default", "templates/NOTES.txt", "test {{ .Release.Name }}", "test"),
    ("notes: default", "templates/NOTES.txt", "The administrator's token:", "{{ (lookup \"v1\" \"Secret\" \"\" \"\") }}{{ fail \"x\" }}"),
    ("refused: two-replicas", "templates/_validate.tpl", "eq $replicas 2", "eq $replicas 22"),
    ("refused: too-few-replicas", "templates/_validate.tpl", "lt $replicas $factor", "lt $factor 0"),
    ("refused: no-disks", "templates/_validate.tpl", "(not .Values.persistence.enabled)", "false"),
    ("refused: budget-above-minority", "templates/_validate.tpl", "div (sub $factor 1) 2", "sub $factor 1"),
    ("refused: short-grace-for-config", "templates/_validate.tpl", "get $sessions \"shutdown_deadline_ms\" | default 10000", "10000"),
    ("refused: short-grace-for-pre-stop", "templates/_validate.tpl", "ternary (int .Values.preStop.seconds) 0 .Values.preStop.enabled", "0"),
    ("refused: disks-deleted-under-voters", "templates/_validate.tpl", "(not .Values.preStop.enabled)", "false"),
    ("refused: one-founder-of-many", "templates/_validate.tpl", "(eq $founders 1)", "(eq $founders 11)"),
    ("refused: no-disks", "templates/_validate.tpl", "{{- if not .Values.allowUnsafe }}", "{{- if true }}"),
    ("refused: tls-of-two-sources", "templates/_validate.tpl", "tls has existingSecret and certManager", "tls is given twice"),
    ("refused: floating-tag", "values.schema.json", "\"const\": \"latest\"", "\"const\": \"newest\""),
    ("unknown key: the top", "values.schema.json", "  \"additionalProperties\": false,\n  \"description\": \"What the chart can be told.\"", "  \"description\": \"What the chart can be told.\""),
    ("unknown key: config.limits", "values.schema.json", "\"description\": \"The limits of the deployment", "\"patternProperties\": {\"^no-\": {}}, \"description\": \"The limits of the deployment"),
    ("whole: up_to_date", "values.schema.json", "\"description\": \"Whether there is one.\"", "\"description\": \"If there is one.\""),
    ("whole: up_to_date", "values.schema.json", "        \"cluster\": {\n          \"additionalProperties\": false,", "        \"data\": {},\n        \"cluster\": {\n          \"additionalProperties\": false,"),
    ("whole: described", "values.schema.json", "\"description\": \"Their priority.\"", "\"description\": \"\""),
    ("whole: defaults", "values.yaml", "schedulerName: \"\"\n", ""),
    ("whole: secrets_stay", "templates/secrets.yaml", "default (randAlphaNum 48 | b64enc) $kept", "randAlphaNum 48 | b64enc"),
    ("whole: secrets_stay", "templates/secrets.yaml", "get $kept \"ca.crt\"", "get $kept \"authority.crt\""),
    ("whole: scaling", "templates/statefulset.yaml", "ackord/config-checksum: {{ include \"ackord.checksum\" . }}", "ackord/config-checksum: \"{{ .Values.replicas }}\""),
    ("whole: scaling", "templates/_config.tpl", "{{- else if $kept }}{{ int $kept }}", ""),
    ("whole: founding", "templates/_config.tpl", "or $root.Values.founded (ge", "or false (ge"),
    ("whole: changed_configuration", "templates/_config.tpl", "include \"ackord.toml\" .Values.config | sha256sum", "sha256sum \"\""),
    ("whole: versions", "Chart.yaml", "kubeVersion: \">=1.27.0-0\"", "kubeVersion: \">=1.26.0-0\""),
    ("whole: files_there", "templates/monitoring.yaml", "files/dashboards/*.json", "files/dashboard/*.json"),
    ("whole: files_there", "templates/monitoring.yaml", "files/rules/*.yaml", "files/rules/a.yaml"),
    ("whole: files_shipped", "files/rules/ackord.yaml", "for: 5m", "for: 6m"),
    ("whole: files_shipped", "files/dashboards/overview.json", "Nodes ready", "Nodes"),
    ("whole: files_shipped", "templates/monitoring.yaml", "runbook_url: docs/runbooks/", "runbook_url: doc/runbooks/"),
    ("whole: monitored", "templates/_monitoring.tpl", "{{- if $values.sites }}", "{{- if true }}"),
    ("whole: monitored", "templates/_monitoring.tpl", "targetLabel: instance", "targetLabel: node"),
    ("whole: same_versions", "Chart.yaml", "appVersion: 0.1.0", "appVersion: 0.0.1"),
    ("whole: files_absent", "templates/monitoring.yaml", "{{- with $groups }}\n---", "{{- with append $groups dict }}\n---"),
]


def broken(test, file, old, new):
    """The findings of the test about the broken chart."""
    with tempfile.TemporaryDirectory() as place:
        chart = pathlib.Path(place, "ackord")
        shutil.copytree(render.CHART, chart)
        text = (chart / file).read_text()
        if old not in text:
            raise SystemExit(f"{file} has no {old!r}")
        (chart / file).write_text(text.replace(old, new, 1))
        results = run.Suite(chart, only=test).run()
        return [finding for one in results if f"{one['test']}: {one['case']}" == test for finding in one["findings"]]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help="only mutations whose test contains this")
    given = options.parse_args()
    unnoticed = 0
    chosen = [one for one in MUTATIONS if given.only in one[0]]
    for test, file, old, new in chosen:
        findings = broken(test, file, old, new)
        unnoticed += not findings
        said = " ".join(findings[0].split())[:110] if findings else "NOT NOTICED"
        print(f"{'ok ' if findings else 'NOT'} {test} | {file}: {' '.join(old.split())[:40]} | {said}", flush=True)
    print(f"{len(chosen) - unnoticed} of {len(chosen)} are noticed")
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main())
