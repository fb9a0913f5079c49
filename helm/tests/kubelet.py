"""What of Kubernetes runs pods: an API server, a kubelet for each pod, a StatefulSet controller, a service.

    StatefulSet ─▶ starts, stops ─▶ Kubelet ─▶ startup, readiness and liveness probes, preStop, SIGTERM, grace period
                                       └─▶ ready? ─▶ Service ─▶ connections of endpoints

Each does what Kubernetes documents of it, with the periods and thresholds of the rendered objects, and
nothing more. What goes wrong is kept as a text in `Wrong`; a scenario that has any has failed.
"""
import asyncio
import http.server
import json
import os
import pathlib
import random
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import trustme

# From a change of a pod until connections go elsewhere: what a service is behind.
SERVICE_BEHIND_S = 1.0
# How often somebody outside looks at every probe of every pod.
WATCH_EVERY_S = 0.4
# The account's files in a pod.
ACCOUNT = "var/run/secrets/kubernetes.io/serviceaccount"


class Wrong:
    """What must not be."""

    def __init__(self):
        self.texts, self.lock, self.over = [], threading.Lock(), False

    def add(self, text):
        with self.lock:
            # Pods are killed in the end.
            if self.over:
                return
            if len(self.texts) < 100:
                print(f"   NOT {text}", file=sys.stderr, flush=True)
            self.texts.append(text)


class Api:
    """Serves the StatefulSet to those whom the rendered roles let read it."""

    TOKEN = "of-the-account"

    def __init__(self, address):
        self.address, self.objects, self.asked, self.refused = address, [], 0, 0
        self.authority = trustme.CA()
        certificate = self.authority.issue_cert(address)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                status, body = api.answer(self.path, self.headers.get("Authorization", ""))
                body = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def may(self, name):
        """Whether a role bound to the account of the pods lets it read this StatefulSet."""
        of = lambda kind: [one for one in self.objects if one["kind"] == kind]  # noqa: E731
        pods = of("StatefulSet")[0]["spec"]["template"]["spec"]
        roles = {one["metadata"]["name"]: one["rules"] for one in of("Role")}
        for binding in of("RoleBinding"):
            if any(subject["name"] == pods["serviceAccountName"] for subject in binding["subjects"]):
                for rule in roles[binding["roleRef"]["name"]]:
                    if ("apps" in rule["apiGroups"] and "statefulsets" in rule["resources"]
                            and "get" in rule["verbs"] and name in rule.get("resourceNames", [name])):
                        return True
        return False

    def answer(self, path, authorization):
        self.asked += 1
        for one in self.objects:
            meta = one["metadata"]
            mine = f"/apis/apps/v1/namespaces/{meta.get('namespace')}/statefulsets/{meta['name']}"
            if one["kind"] == "StatefulSet" and path == mine:
                if authorization == f"Bearer {self.TOKEN}" and self.may(meta["name"]):
                    return 200, one
        self.refused += 1
        return 403, {"kind": "Status", "code": 403}

    def show(self, root, namespace):
        """What a pod is given to ask it."""
        place = root / ACCOUNT
        place.mkdir(parents=True, exist_ok=True)
        (place / "token").write_text(self.TOKEN)
        (place / "namespace").write_text(namespace)
        (place / "ca.crt").write_bytes(self.authority.cert_pem.bytes())

    def variables(self):
        return {"KUBERNETES_SERVICE_HOST": self.address, "KUBERNETES_SERVICE_PORT": str(self.port)}


def probe(url, timeout):
    """The status that a probe gets, or None without an answer."""
    anything = ssl.create_default_context()
    anything.check_hostname, anything.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=timeout, context=anything) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


class Kubelet:
    """Runs one pod."""

    def __init__(self, cluster, release, name, wrong, may_fail):
        self.cluster, self.name, self.wrong = cluster, name, wrong
        self.spec = release.of("StatefulSet")[0]["spec"]["template"]["spec"]
        self.container = self.spec["containers"][0]
        self.grace = self.spec["terminationGracePeriodSeconds"]
        # Called with a text, for what another pod's stop may explain.
        self.may_fail = may_fail
        self.started = self.ready = self.terminating = False
        self.ready_since = None
        self.gone = threading.Event()
        self.told, self.took = [], None
        cluster.start(release, name)
        self.process = cluster.running[name]
        self.begun = time.monotonic()
        threading.Thread(target=self.serve, daemon=True).start()
        threading.Thread(target=self.watch, daemon=True).start()

    def url(self, which):
        check = self.container[f"{which}Probe"]["httpGet"]
        ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        return f"{check['scheme'].lower()}://{self.cluster.addresses[self.name]}:{ports[check['port']]}{check['path']}"

    def serve(self):
        """The probes, as often and as patiently as the pod says."""
        due = {"startup": self.begun}
        misses = dict.fromkeys(("startup", "readiness", "liveness"), 0)
        hits = dict.fromkeys(misses, 0)
        while not self.terminating:
            if self.process.poll() is not None:
                self.wrong.add(f"{self.name} ended by itself with {self.process.returncode}:\n{self.cluster.log(self.name)}")
                return
            now = time.monotonic()
            for which in [one for one, at in due.items() if at <= now]:
                settings = self.container[f"{which}Probe"]
                good = probe(self.url(which), settings.get("timeoutSeconds", 1)) == 200
                due[which] = time.monotonic() + settings.get("periodSeconds", 10)
                hits[which], misses[which] = (hits[which] + 1, 0) if good else (0, misses[which] + 1)
                over = misses[which] >= settings.get("failureThreshold", 3)
                if self.terminating:
                    break
                if which == "startup" and good:
                    self.started = True
                    due = dict.fromkeys(("readiness", "liveness"), time.monotonic())
                elif which != "readiness" and over:
                    self.wrong.add(f"{self.name}: its kubelet would kill it for its {which} probe")
                    return
                elif which == "readiness" and good and not self.ready:
                    self.ready, self.ready_since = True, time.monotonic()
                elif which == "readiness" and over and self.ready:
                    self.ready = False
                    self.wrong.add(f"{self.name} is taken out of its service, and nobody stops it")
            time.sleep(0.05)

    def watch(self):
        """Every probe at every moment: what each may say follows from what the pod is going through."""
        seen_started = seen_live = seen_ready = False
        unready_since = None
        while not self.gone.is_set():
            # Judged by what was so before it was asked: what comes meanwhile may explain the answer.
            stopping = self.terminating
            # In this order: who is ready has started before, and who has started is alive.
            ready, started, live = (probe(self.url(which), 3) for which in ("readiness", "startup", "liveness"))
            now = time.monotonic()
            if not (stopping or self.terminating):
                if seen_live and live != 200:
                    self.wrong.add(f"{self.name}: alive before, and its liveness probe says {live}")
                if seen_started and started != 200:
                    self.wrong.add(f"{self.name}: started before, and its startup probe says {started}")
                if ready == 200 and not started == 200:
                    self.wrong.add(f"{self.name}: ready, and its startup probe says {started}")
                if started == 200 and not seen_started:
                    self.cluster.joined(self.name, self.wrong)
                if seen_ready and ready != 200:
                    unready_since = unready_since or now
                elif unready_since:
                    self.may_fail(f"{self.name} was not ready for {now - unready_since:.1f} s")
                    unready_since = None
            seen_live, seen_started = seen_live or live == 200, seen_started or started == 200
            seen_ready = seen_ready or ready == 200
            self.told.append((now - self.begun, live, started, ready))
            time.sleep(WATCH_EVERY_S)

    def stop(self):
        """Terminates the pod: preStop, then SIGTERM, then SIGKILL when the grace period is over."""
        self.terminating, self.ready = True, False
        threading.Thread(target=self.terminate, daemon=True).start()

    def terminate(self):
        begun = time.monotonic()
        hook = self.container.get("lifecycle", {}).get("preStop", {}).get("exec")
        self.said = ""
        if hook:
            arguments, variables = self.cluster.command(self.container, self.name)
            process = self.cluster.spawn(self.cluster.directory / self.name, hook["command"], variables,
                                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            try:
                self.said = process.communicate(timeout=self.grace)[0].decode().strip()
            except subprocess.TimeoutExpired:
                process.kill()
                self.said = process.communicate()[0].decode().strip() + " (cut off)"
            self.code = process.returncode
        self.hooked = time.monotonic() - begun
        # Whoever asks now is told that it is not ready, if it has left.
        self.drained = probe(self.url("readiness"), 5)
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(max(0.1, self.grace - self.hooked))
            if code != 0:
                self.wrong.add(f"{self.name} ended with {code} when asked to stop:\n{self.cluster.log(self.name)}")
        except subprocess.TimeoutExpired:
            self.wrong.add(f"{self.name} did not stop within its grace period of {self.grace} s")
            self.process.kill()
            self.process.wait()
        self.took = time.monotonic() - begun
        self.cluster.running.pop(self.name, None)
        self.gone.set()


class StatefulSet:
    """Pods by ordinal: started and stopped all at once (`Parallel`), restarted one after the other."""

    def __init__(self, cluster, api, wrong, may_fail):
        self.cluster, self.api, self.wrong, self.may_fail = cluster, api, wrong, may_fail
        self.pods, self.release, self.stopped = {}, None, []

    def apply(self, release, within):
        """What the set shall be from now on; waits until it is."""
        self.release, self.api.objects = release, release.objects
        stateful = release.of("StatefulSet")[0]
        name, replicas = stateful["metadata"]["name"], stateful["spec"]["replicas"]
        if stateful["spec"]["podManagementPolicy"] != "Parallel":
            self.wrong.add("the pods are not managed in parallel")
        wanted = [f"{name}-{ordinal}" for ordinal in range(replicas)]
        for pod in wanted:
            self.cluster.address(pod)
        over = [pod for pod in self.pods if pod not in wanted]
        for pod in over:
            self.pods[pod].stop()
        for pod in wanted:
            if pod not in self.pods:
                self.begin(pod)
        until = time.monotonic() + within
        for pod in over:
            if not self.pods[pod].gone.wait(max(0, until - time.monotonic())):
                return self.wrong.add(f"{pod} was not gone within {within} s")
            self.stopped.append(self.pods.pop(pod))
            if stateful["spec"].get("persistentVolumeClaimRetentionPolicy", {}).get("whenScaled") == "Delete":
                shutil.rmtree(self.cluster.directory / pod / "var/lib/ackord/data")
        return self.wait_ready(wanted, until)

    def begin(self, pod):
        self.pods[pod] = Kubelet(self.cluster, self.release, pod, self.wrong, self.may_fail)

    def wait_ready(self, pods, until):
        rest = self.release.of("StatefulSet")[0]["spec"].get("minReadySeconds", 0)
        for pod in pods:
            while True:
                since = self.pods[pod].ready_since if self.pods[pod].ready else None
                if since is not None and time.monotonic() - since >= rest:
                    break
                if self.wrong.texts:
                    return
                if time.monotonic() > until:
                    return self.wrong.add(f"{pod} is not ready in time:\n{self.cluster.log(pod)}")
                time.sleep(0.1)

    def restart(self, within):
        """A rolling update: from the last pod to the first, each once the one after it is available."""
        for pod in sorted(self.pods, key=lambda one: int(one.rsplit("-", 1)[1]), reverse=True):
            old = self.pods[pod]
            old.stop()
            if not old.gone.wait(within):
                return self.wrong.add(f"{pod} was not gone within {within} s")
            self.stopped.append(old)
            self.begin(pod)
            self.wait_ready([pod], time.monotonic() + within)
            if self.wrong.texts:
                return

    def endpoints(self):
        """Where a service sends connections now."""
        return [self.cluster.addresses[name] for name, pod in self.pods.items() if pod.ready and not pod.terminating]


class Service:
    """An address that leads to some pod that was ready a moment ago."""

    def __init__(self, address, port, target, stateful):
        self.stateful, self.target, self.known, self.none = stateful, target, [], 0
        self.loop = asyncio.new_event_loop()
        started = threading.Event()

        def run():
            asyncio.set_event_loop(self.loop)
            self.loop.run_until_complete(asyncio.start_server(self.connect, address, port))
            self.loop.create_task(self.follow())
            started.set()
            self.loop.run_forever()

        threading.Thread(target=run, daemon=True).start()
        started.wait()

    async def follow(self):
        while True:
            now = self.stateful.endpoints()
            await asyncio.sleep(SERVICE_BEHIND_S)
            self.known = now

    async def connect(self, reader, writer):
        known = self.known
        try:
            if not known:
                self.none += 1
                return
            there, to = await asyncio.wait_for(asyncio.open_connection(random.choice(known), self.target), 5)
        except (OSError, asyncio.TimeoutError):
            return
        finally:
            if "to" not in locals():
                writer.close()

        async def copy(source, sink):
            try:
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(copy(reader, to), copy(there, writer), return_exceptions=True)


def free_of(place, names):
    """Unmounts what a pod was given of this machine."""
    for root in pathlib.Path(place).iterdir():
        for name in names:
            subprocess.run(["umount", "-l", root / name], check=False, stderr=subprocess.DEVNULL)


def show_account(release, api, root):
    """Gives a pod its account, where it is to have one."""
    stateful = release.of("StatefulSet")[0]
    if stateful["spec"]["template"]["spec"]["automountServiceAccountToken"]:
        api.show(root, stateful["metadata"]["namespace"])
        for directory, _, files in os.walk(root / ACCOUNT):
            for name in files:
                os.chmod(pathlib.Path(directory, name), 0o444)
