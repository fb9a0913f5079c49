"""Renders and lints the chart with Helm itself, without a cluster.

helm-sdkpy carries the Helm library. It has no dry run, so Helm is given an API server that knows
the kinds below, has the objects that it was told of, and takes whatever is written: the release
that Helm then reports is what `helm install` would have installed, hooks and notes included.
"""
import asyncio
import atexit
import http.server
import json
import os
import pathlib
import shutil
import tempfile
import threading

import yaml

SCRATCH = tempfile.mkdtemp(prefix="ackord-chart-")
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
for _name in ("CACHE", "CONFIG", "DATA"):
    os.environ.setdefault(f"HELM_{_name}_HOME", os.path.join(SCRATCH, _name.lower()))

import helm_sdkpy  # noqa: E402  (Helm reads the variables above when it is loaded)

CHART = pathlib.Path(__file__).resolve().parent.parent / "ackord"

# Kinds that the API server knows, by group and version; a trailing - is one without namespace.
KINDS = {
    "v1": "Namespace- Service ConfigMap Secret ServiceAccount Pod PersistentVolumeClaim",
    "apps/v1": "StatefulSet Deployment",
    "batch/v1": "Job",
    "policy/v1": "PodDisruptionBudget",
    "networking.k8s.io/v1": "Ingress NetworkPolicy",
    "rbac.authorization.k8s.io/v1": "Role RoleBinding ClusterRole- ClusterRoleBinding-",
    "monitoring.coreos.com/v1": "ServiceMonitor PodMonitor PrometheusRule",
    "cert-manager.io/v1": "Certificate Issuer ClusterIssuer-",
    "gateway.networking.k8s.io/v1": "HTTPRoute Gateway",
}


class Refused(Exception):
    """Helm did not render the chart."""


def plural(kind):
    word = kind.lower()
    if word.endswith("y"):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith("s") else "s")


def address_of(thing):
    """Where an object is in the API."""
    version, meta = thing["apiVersion"], thing["metadata"]
    root = "/api/" if version == "v1" else "/apis/"
    return f"{root}{version}/namespaces/{meta['namespace']}/{plural(thing['kind'])}/{meta['name']}"


def owned(thing, release="r"):
    """The object as Helm would have left it there."""
    thing = json.loads(json.dumps(thing))
    meta = thing["metadata"]
    meta.setdefault("labels", {})["app.kubernetes.io/managed-by"] = "Helm"
    meta.setdefault("annotations", {}).update(
        {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": meta["namespace"]}
    )
    return thing


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, version, existing):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kubernetes = version
        self.existing = {address_of(thing): thing for thing in existing}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def answer(self, path):
        major, minor = self.kubernetes.split(".")[:2]
        if path == "/version":
            return {"major": major, "minor": minor, "gitVersion": "v" + self.kubernetes}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = []
            for name in KINDS:
                if "/" in name:
                    one = {"groupVersion": name, "version": name.split("/")[1]}
                    groups.append({"name": name.split("/")[0], "versions": [one], "preferredVersion": one})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        group = path.removeprefix("/apis/").removeprefix("/api/")
        if group in KINDS:
            verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
            resources = []
            for word in KINDS[group].split():
                kind = word.rstrip("-")
                resources.append({"name": plural(kind), "singularName": kind.lower(), "kind": kind,
                                  "namespaced": kind == word, "verbs": verbs})
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": resources}
        return self.existing.get(path)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: each request would else wait for an acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def send(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        found = self.server.answer(self.path.split("?")[0].rstrip("/"))
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        self.send(200 if found else 404, "application/json", json.dumps(found or missing).encode())

    def take(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        there = self.server.existing.get(self.path.split("?")[0])
        if self.command == "PATCH" and there:
            return self.send(200, "application/json", json.dumps(there).encode())
        # Helm's record of the release comes as protobuf; everything is answered as it came.
        status = 201 if self.command == "POST" else 200
        self.send(status, self.headers.get("Content-Type") or "application/json", body)

    do_POST = do_PUT = do_PATCH = take


def _kubeconfig(url):
    return yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "c", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    })


def lint(chart=CHART):
    """What `helm lint` has to say beyond remarks: a list of texts."""
    configuration = helm_sdkpy.Configuration(namespace="default", kubeconfig=_kubeconfig("http://127.0.0.1:1"))
    try:
        result = asyncio.run(helm_sdkpy.Lint(configuration).run(str(chart)))
    except helm_sdkpy.HelmError as error:
        return [str(error)]
    # 1 is a remark, 2 a warning, 3 an error. The library passes no texts on.
    found = [message for message in result.get("Messages") or [] if message.get("Severity", 3) > 1]
    return [f"{m.get('Path')}: severity {m.get('Severity')}: {m.get('Err')}" for m in found] + [
        str(error) for error in result.get("Errors") or []
    ]


class Rendered:
    """A release: its objects, those of its hooks, and its notes."""

    def __init__(self, release):
        self.objects = _objects(release["manifest"])
        self.hooks = [one for hook in release.get("hooks") or [] for one in _objects(hook["manifest"])]
        self.notes = release.get("info", {}).get("notes", "")

    def all(self):
        return self.objects + self.hooks

    def of(self, kind, name=None):
        """The objects of a kind, or the one of a name."""
        found = [one for one in self.all() if one["kind"] == kind]
        if name is None:
            return found
        return next(one for one in found if one["metadata"]["name"] == name)


def _objects(manifest):
    return [one for one in yaml.safe_load_all(manifest) if one]


def render(values=None, name="r", namespace="default", kubernetes="1.31.0", existing=(), chart=CHART):
    """The release as Helm would install it; Refused when it would not."""
    with _Server(kubernetes, existing) as server:
        configuration = helm_sdkpy.Configuration(namespace=namespace, kubeconfig=_kubeconfig(server.url))
        try:
            release = asyncio.run(
                helm_sdkpy.Install(configuration).run(name, str(chart), values=values or {}, wait=False)
            )
        except helm_sdkpy.HelmError as error:
            raise Refused(str(error)) from None
    return Rendered(release)
