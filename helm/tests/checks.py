"""What must hold of a rendered release. Every check is a generator of findings, texts.

The schemas say whether the API server would take an object; the checks here say whether the
objects fit together and whether the pods would do what they shall.
"""
import base64
import functools
import json
import pathlib
import re
import tomllib

import jsonschema
import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).resolve().parent
# The definitions of a version are megabytes, and it reads them for every object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
KUBERNETES = ["1.29", "1.33", "1.37"]
CRDS = yaml.safe_load((HERE / "crds.yaml").read_text())
# Variables that commands take and the broker leaves alone, and those of the hook before a stop.
OF_COMMANDS = {"ACKORD_URL", "ACKORD_TOKEN_FILE", "ACKORD_CA"}
OF_PRE_STOP = {"ACKORD_POD_NAME", "ACKORD_POD_NAMESPACE", "ACKORD_STATEFULSET"}


def title(one):
    return f"{one['kind']}/{one['metadata']['name']}"


def pods(release):
    """Every pod that the release makes: its object's title, labels and spec."""
    for one in release.all():
        if one["kind"] == "Pod":
            yield title(one), one["metadata"]["labels"], one["spec"]
        elif one["kind"] == "StatefulSet":
            template = one["spec"]["template"]
            yield title(one), template["metadata"]["labels"], template["spec"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def stateful(release):
    return release.of("StatefulSet")[0]


def broker(release):
    return next(c for c in stateful(release)["spec"]["template"]["spec"]["containers"] if c["name"] == "ackord")


def schemas(release):
    """Kubernetes of three versions, strictly, and the kinds of others."""
    for one in release.all():
        kind = f"{one['apiVersion']}/{one['kind']}"
        if kind in CRDS:
            if extra := set(one) - {"apiVersion", "kind", "metadata", "spec"}:
                yield f"{title(one)}: {extra}"
            for error in jsonschema.Draft202012Validator(CRDS[kind]).iter_errors(one["spec"]):
                yield f"{title(one)}: {error.json_path}: {error.message}"
            continue
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{title(one)}: Kubernetes {version}: {error.json_path}: {error.message[:200]}"
            except kubernetes_validate.SchemaNotFoundError as error:
                yield f"{title(one)}: {error.message}"


def metadata(release):
    """Names that Kubernetes takes, labels that belong, nothing twice."""
    seen = set()
    for one in release.all():
        meta = one["metadata"]
        if title(one) in seen:
            yield f"{title(one)} is there twice"
        seen.add(title(one))
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", meta["name"]):
            yield f"{title(one)}: no good name"
        if meta.get("namespace") != "default":
            yield f"{title(one)}: its namespace is {meta.get('namespace')}"
        texts = {**meta.get("labels", {}), **meta.get("annotations", {})}
        for key, value in texts.items():
            if not isinstance(value, str):
                yield f"{title(one)}: {key} is no text"
        for key, value in meta.get("labels", {}).items():
            if len(str(value)) > 63:
                yield f"{title(one)}: the label {key} is too long"


def restricted(release):
    """Pod Security `restricted`, a read-only root, limits, and images that stay the same."""
    for name, _, spec in pods(release):
        security = spec.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or security.get("runAsUser") != 65532:
            yield f"{name}: runs as {security.get('runAsUser')}"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name}: no seccomp profile"
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                yield f"{name}: {key}"
        for volume in spec["volumes"]:
            if "hostPath" in volume:
                yield f"{name}: a path of the host"
        for container in containers(spec):
            where, own = f"{name}, {container['name']}", container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False:
                yield f"{where}: may get more rights"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{where}: its root can be written"
            if own.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"{where}: keeps capabilities"
            if "memory" not in container.get("resources", {}).get("limits", {}):
                yield f"{where}: no limit for memory"
            image = container["image"]
            if "@sha256:" not in image and not re.search(r":[^:/]+$", image) or image.endswith(":latest"):
                yield f"{where}: the image {image} may change"
        if spec.get("enableServiceLinks") is not False:
            yield f"{name}: gets variables of services"


def decoded(text):
    """What a text is in the clear, where it is base64; else nothing."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        return ""


def secrets(release):
    """No secret is in a ConfigMap, a variable or an argument."""
    hidden = []
    for one in release.of("Secret"):
        for key, value in one.get("data", {}).items():
            if not key.endswith(".crt"):
                hidden.append(base64.b64decode(value).decode().strip())
        if one.get("data", {}).get("token") is not None and len(base64.b64decode(one["data"]["token"])) < 32:
            yield f"{title(one)}: too short for the broker"
    for one in release.all():
        if one["kind"] == "Secret":
            continue
        text = json.dumps(one) + "".join(decoded(value) for value in one.get("data", {}).values())
        if "PRIVATE KEY" in text or any(len(secret) > 8 and secret in text for secret in hidden):
            yield f"{title(one)}: holds a secret"
        if one["kind"] == "ConfigMap" and re.search(r"(?m)^\s*\w*(password|secret|token)\s*[=:]", "\n".join(one["data"].values())):
            yield f"{title(one)}: looks as if it held a secret"


def references(release):
    """What objects say of each other: volumes, selectors, services, accounts, ports."""
    labels = [(name, found) for name, found, _ in pods(release)]
    for name, _, spec in pods(release):
        volumes = {volume["name"] for volume in spec["volumes"]}
        if name.startswith("StatefulSet"):
            volumes |= {c["metadata"]["name"] for c in stateful(release)["spec"].get("volumeClaimTemplates", [])}
        for container in containers(spec):
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{name}: mounts {mount['name']}, which is no volume"
        for volume in spec["volumes"]:
            mapped = volume.get("configMap", {}).get("name")
            if mapped and mapped.startswith("r-") and not any(one["metadata"]["name"] == mapped for one in release.of("ConfigMap")):
                yield f"{name}: there is no ConfigMap {mapped}"
        account = spec["serviceAccountName"]
        if account != "default" and not any(one["metadata"]["name"] == account for one in release.of("ServiceAccount")):
            yield f"{name}: there is no account {account}"
        if spec["automountServiceAccountToken"] and not release.of("Role"):
            yield f"{name}: has a token of its account for nothing"
    ports = {port["name"] for port in broker(release)["ports"]}
    for service in release.of("Service"):
        selector = {k: v for k, v in service["spec"]["selector"].items() if k != "statefulset.kubernetes.io/pod-name"}
        chosen = [name for name, found in labels if selector.items() <= found.items()]
        if chosen != [title(stateful(release))]:
            yield f"{title(service)} selects {chosen}"
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports:
                yield f"{title(service)}: no container has the port {port['targetPort']}"
    for one in release.of("PodDisruptionBudget") + release.of("NetworkPolicy"):
        selector = one["spec"].get("selector") or one["spec"].get("podSelector")
        if [name for name, found in labels if selector["matchLabels"].items() <= found.items()] != [title(stateful(release))]:
            yield f"{title(one)} does not select the brokers"
    for monitor in release.of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        chosen = [s for s in release.of("Service") if wanted <= s["metadata"]["labels"].items()]
        if len(chosen) != 1 or not chosen[0]["spec"].get("publishNotReadyAddresses"):
            yield f"{title(monitor)} selects {[title(s) for s in chosen]}"
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in {port["name"] for service in chosen for port in service["spec"]["ports"]}:
                yield f"{title(monitor)}: no such port"
    for monitor in release.of("PodMonitor"):
        if any(endpoint["port"] not in ports for endpoint in monitor["spec"]["podMetricsEndpoints"]):
            yield f"{title(monitor)}: no such port"
    services = {one["metadata"]["name"] for one in release.of("Service")}
    for ingress in release.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                if path["backend"]["service"]["name"] not in services:
                    yield f"{title(ingress)}: no such service"
    for route in release.of("HTTPRoute"):
        if any(back["name"] not in services for rule in route["spec"]["rules"] for back in rule["backendRefs"]):
            yield f"{title(route)}: no such service"
    for role in release.of("Role"):
        wanted = [{"apiGroups": ["apps"], "resources": ["statefulsets"], "resourceNames": [stateful(release)["metadata"]["name"]], "verbs": ["get"]}]
        if role["rules"] != wanted:
            yield f"{title(role)} allows {role['rules']}"


def pod_life(release):
    """All pods start together, find each other before they are ready, and are asked three things."""
    spec = stateful(release)["spec"]
    if spec["podManagementPolicy"] != "Parallel":
        yield "pods start one after the other, and the first waits for the others for ever"
    headless = [s for s in release.of("Service") if s["metadata"]["name"] == spec["serviceName"]]
    if not headless or headless[0]["spec"].get("clusterIP") != "None" or not headless[0]["spec"].get("publishNotReadyAddresses"):
        yield "pods that are not ready do not find each other"
    container = broker(release)
    paths = [container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")]
    if len(set(paths)) != 3:
        yield f"the probes ask the same: {paths}"
    if "volumeClaimTemplates" in spec and "persistentVolumeClaimRetentionPolicy" not in spec:
        yield "nothing says what becomes of the disks"
    hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
    names = {one["name"] for one in container["env"]}
    if (hook and hook[:-1]) not in (None, ["ackord", "kubernetes", "pre-stop", "--max-time"]):
        yield f"before a stop: {hook}"
    if (hook is not None) != (OF_PRE_STOP <= names) or (hook is not None) != bool(release.of("Role")):
        yield "the hook before a stop lacks variables or rights, or has them without being there"


def replacing(text, variables):
    return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), text)


def variables_of(container, pod):
    """The variables of a container as its pod would see them."""
    found = {}
    for one in container["env"]:
        path = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        found[one["name"]] = {"metadata.name": pod}.get(path, "") if path else replacing(one["value"], found)
    return found


def configuration(release, outer, config_schema):
    """Every pod has a file that the broker takes, and the variables fit to it."""
    name, container = stateful(release)["metadata"]["name"], broker(release)
    own_keys = outer["x-ackord-set-by-chart"]
    variables = {one["name"] for one in container["env"] if one["name"].startswith("ACKORD_")}
    for variable in variables - OF_COMMANDS - OF_PRE_STOP:
        key = variable.removeprefix("ACKORD_").lower().replace("__", ".")
        if not any(key == own or key.startswith(own + ".") for own in own_keys):
            yield f"{variable} is set, but is no key that the chart keeps for itself"
    schema = {**config_schema, "properties": {**config_schema["properties"]}}
    cluster = schema["properties"]["cluster"] = json.loads(json.dumps(schema["properties"]["cluster"]))
    cluster["properties"].update(initial={"type": "array"}, join={"type": "array"})
    files = next(one for one in release.of("ConfigMap") if one["metadata"]["name"] == name)["data"]
    founders, lists = [], set()
    for ordinal in range(stateful(release)["spec"]["replicas"]):
        pod = f"{name}-{ordinal}"
        if f"{pod}.toml" not in files:
            yield f"{pod} has no file"
    for file, text in files.items():
        pod = file.removesuffix(".toml")
        try:
            parsed = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            yield f"{file} is no TOML: {error}"
            continue
        for error in jsonschema.Draft202012Validator(schema).iter_errors(parsed):
            yield f"{file}: {error.json_path}: {error.message[:200]}"
        seen = variables_of(container, pod)
        if file != replacing(container["args"][2], seen).rsplit("/", 1)[1]:
            yield f"{pod} reads {container['args'][2]}"
        initial, join = parsed["cluster"].get("initial"), parsed["cluster"].get("join")
        advertised = seen["ACKORD_CLUSTER__ADVERTISE"]
        if not join or advertised in join:
            yield f"{pod} is {advertised} and would join {join}"
        if initial is not None:
            founders.append(pod)
            lists.add(tuple(initial))
            if advertised not in initial:
                yield f"{pod} is {advertised}, which the founders {initial} are not"
    if len(lists) > 1:
        yield f"founders do not agree: {lists}"
    if lists and len(next(iter(lists))) != len(founders):
        yield f"{len(founders)} pods found a cluster of {len(next(iter(lists)))}"


def long_answers(release):
    """What stands before the pods lets WebSockets and streams live."""
    for ingress in release.of("Ingress"):
        annotations = ingress["metadata"].get("annotations", {})
        for key in ("proxy-read-timeout", "proxy-send-timeout"):
            if int(annotations.get(f"nginx.ingress.kubernetes.io/{key}", "60")) < 300:
                yield f"{title(ingress)}: {key} ends streams"
        if annotations.get("nginx.ingress.kubernetes.io/proxy-buffering") != "off":
            yield f"{title(ingress)}: answers are kept back"
    for route in release.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            if not {"request", "backendRequest"} <= rule.get("timeouts", {}).keys():
                yield f"{title(route)}: the gateway's own timeouts end streams"


def notes(release):
    """The notes name what is there."""
    name = stateful(release)["metadata"]["name"]
    for part in (f"statefulset/{name}", f"exec {name}-0 -- ackord c", "helm -n default test r"):
        if part not in release.notes:
            yield f"the notes lack {part!r}"
    for secret in release.of("Secret"):
        for key, value in secret.get("data", {}).items():
            if base64.b64decode(value).decode() in release.notes:
                yield f"the notes show {key}"


OF_A_RELEASE = [schemas, metadata, restricted, secrets, references, pod_life, long_answers, notes]
