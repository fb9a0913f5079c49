#!/usr/bin/env python3
"""Plays the StatefulSet that the chart renders: scaled and restarted under load, with a real broker.

    1 pod ─▶ 3 ─▶ 5 ─▶ 3 ─▶ restarted one after the other        publishers and subscribers all the time

Pods are processes with the command, environment, files, probes and preStop of the rendered objects, a
name and an address each (kubelet.py, simulate.py). Endpoints know the address of the service and no
pod. What must be true of it:

- what was acknowledged is handled by every subscriber, once and in order; no raise failed for good;
- every probe says at every moment what the pod is going through: started pods stay started and alive,
  only started ones are ready, a ready one stays ready until it is told to stop, and one is started only
  when the others take it for a member;
- a pod that is not wanted any more has left the cluster before it stops, one that comes back has not;
- every stop is over within the grace period.

It needs root, Linux, `ip` and a binary. Nothing of Kubernetes itself is tested by it.

usage: play.py --binary PATH [--values FILE] [--json]
"""
import argparse
import base64
import contextlib
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import yaml

import kubelet
import render
import simulate

# How long each step may take before it has failed.
STEP_WITHIN_S = 240
# Between the steps, so that there is load without one too.
REST_S = 3
# How long a raise is tried again, and how long subscribers may be behind in the end.
RETRY_FOR_S = 60
DRAIN_WITHIN_S = 60
# Raises per second of each publisher; the queue keeps a thousand.
PUBLISHERS, PACE_S = 4, 0.1
SITE, EVENT, QUEUE_SIZE = "play", "reading", 1000


class Cluster(simulate.Cluster):
    """The pods, with an account and what the others say of them."""

    def __init__(self, binary, directory, api):
        super().__init__(binary, directory)
        self.api = api

    def root(self, release, pod, spec):
        root = super().root(release, pod, spec)
        kubelet.show_account(release, self.api, root)
        return root

    def command(self, container, pod):
        arguments, variables = super().command(container, pod)
        return arguments, {**variables, **self.api.variables()}

    def start(self, release, pod):
        self.release = release
        super().start(release, pod)

    def tell_names(self, release):
        """Endpoints learn the pods' addresses from the brokers, and look their names up as pods do."""
        super().tell_names(release)
        shutil.copyfile(next(self.directory.iterdir()) / "etc/hosts", "/etc/hosts")

    def log(self, pod):
        return (self.directory / pod / "log").read_text()[-3000:]

    def joined(self, pod, wrong):
        """A pod says that it has started: do the others take it for a member?"""
        others = [one for one in self.running if one != pod]
        if not others:
            return
        domain = f"{pod}."
        for other in others:
            try:
                members = self.members(self.release, other)
            except (SystemExit, ValueError):
                continue
            if not any(one["address"].startswith(domain) for one in members):
                wrong.add(f"{pod} says that it has started, and {other} does not take it for a member")
            return


class Load:
    """Publishers and subscribers that know the service only."""

    def __init__(self, binary, service, tokens, directory, wrong):
        self.binary, self.service, self.tokens, self.wrong = binary, service, tokens, wrong
        self.directory = directory
        self.ending = threading.Event()
        self.lock = threading.Lock()
        self.acknowledged, self.retries, self.longest = {}, 0, 0.0
        self.polled = []
        self.receivers = [self.receive(mode) for mode in ("ordered", "twoway")]
        self.threads = [threading.Thread(target=self.publish, args=(at,)) for at in range(PUBLISHERS)]
        self.polling = threading.Thread(target=self.poll)
        self.stored = threading.Thread(target=self.raise_stored)
        for one in [*self.threads, self.polling, self.stored]:
            one.daemon = True
            one.start()

    def tool(self, *words, token, **options):
        variables = {"ACKORD_URL": f"http://{self.service}", "ACKORD_SITE": SITE, "ACKORD_TOKEN": token,
                     "HOME": str(self.directory), "PATH": os.environ["PATH"]}
        return subprocess.Popen([self.binary, *words], env=variables, text=True, **options)

    def ask(self, method, path, token, body=None, headers=(), timeout=10):
        """One request over a connection of its own; None when nobody answers."""
        connection = http.client.HTTPConnection(*self.service.split(":"), timeout=timeout)
        try:
            heads = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **dict(headers)}
            connection.request(method, path, body, heads)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def publish(self, at):
        """Raises under a key each, again under the same key until it is answered."""
        path, number = f"/v1/sites/{SITE}/events/{EVENT}", 0
        while not self.ending.is_set():
            # The queue keeps so many: whoever is further behind loses by rule and not by mistake.
            if self.behind() > QUEUE_SIZE // 2:
                time.sleep(0.1)
                continue
            number += 1
            key, begun = f"{at}-{number}", time.monotonic()
            while True:
                found = self.ask("POST", path, self.tokens["service"], json.dumps(key), {"Idempotency-Key": key})
                if found and found[0] == 200:
                    break
                if found and not found[1].get("retryable"):
                    return self.wrong.add(f"raise {key} failed for good: {found}")
                if time.monotonic() - begun > RETRY_FOR_S:
                    return self.wrong.add(f"raise {key} is not answered in {RETRY_FOR_S} s: {found}")
                with self.lock:
                    self.retries += 1
                time.sleep(0.1)
            with self.lock:
                self.acknowledged[found[1]["instance_id"]] = key
                self.longest = max(self.longest, time.monotonic() - begun)
            time.sleep(random.uniform(0, 2 * PACE_S))

    def raise_stored(self):
        """Raises with a store in a file, by the endpoint library."""
        store = self.directory / "store"
        process = self.tool("raise", EVENT, "--store", str(store), "--json", "--timeout", f"{RETRY_FOR_S}s",
                            token=self.tokens["stored"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)

        def feed():
            number = 0
            while not self.ending.is_set():
                if self.behind() > QUEUE_SIZE // 2:
                    time.sleep(0.1)
                    continue
                number += 1
                process.stdin.write(json.dumps(f"stored-{number}") + "\n")
                process.stdin.flush()
                time.sleep(PACE_S)
            process.stdin.close()

        threading.Thread(target=feed, daemon=True).start()
        for line in process.stdout:
            told = json.loads(line)
            if "instance_id" in told:
                with self.lock:
                    self.acknowledged[told["instance_id"]] = "stored"
        if process.wait() != 0:
            self.wrong.add(f"the raises with a store ended with {process.returncode}: {process.stderr.read()[-500:]}")

    def receive(self, mode):
        """A subscriber of the endpoint library, with its ids in a file."""
        process = self.tool("subscribe", EVENT, "--json", "--mode", mode, "--state", str(self.directory / mode),
                            "--log", "info", token=self.tokens[mode], stdout=subprocess.PIPE,
                            stderr=open(self.directory / f"{mode}.log", "w"))
        handled = []

        def read():
            for line in process.stdout:
                told = json.loads(line)
                if "instance_id" in told:
                    handled.append(told["instance_id"])

        threading.Thread(target=read, daemon=True).start()
        return mode, process, handled

    def poll(self):
        """A subscriber with nothing but requests; it keeps the last id that it handled."""
        path = f"/v1/sites/{SITE}/next?event={EVENT}&wait=2"
        while not (self.ending.is_set() and self.is_done(self.polled)):
            found = self.ask("GET", path, self.tokens["polling"])
            if not found or found[0] != 200 or not found[1] or "ack" not in found[1]:
                if found and found[0] >= 400 and not (found[1] or {}).get("retryable"):
                    return self.wrong.add(f"polling is refused: {found}")
                time.sleep(0 if found and found[0] in (200, 204) else 0.1)
                continue
            event = found[1]
            if not self.polled or event["instance_id"] > self.polled[-1]:
                self.polled.append(event["instance_id"])
            self.ask("POST", f"/v1/sites/{SITE}/ack", self.tokens["polling"], json.dumps(event))

    def behind(self):
        """How far the slowest subscriber is behind."""
        return len(self.acknowledged) - min(len(handled) for _, handled in self.everybody())

    def everybody(self):
        return [("polling", self.polled), *((mode, handled) for mode, _, handled in self.receivers)]

    def is_done(self, handled):
        with self.lock:
            return bool(self.acknowledged) and len(set(handled)) >= len(self.acknowledged)

    def end(self):
        """Stops raising, waits for the subscribers, and judges."""
        self.ending.set()
        for one in [*self.threads, self.stored]:
            one.join(RETRY_FOR_S + 10)
        until = time.monotonic() + DRAIN_WITHIN_S
        everybody = self.everybody()
        while time.monotonic() < until and not all(self.is_done(handled) for _, handled in everybody):
            time.sleep(0.1)
        for _, process, _ in self.receivers:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        acknowledged = set(self.acknowledged)
        for who, handled in everybody:
            once = set(handled)
            if acknowledged - once:
                lost = sorted(acknowledged - once)
                log = self.directory / f"{who}.log"
                print(log.read_text()[-3000:] if log.exists() else "", file=sys.stderr)
                self.wrong.add(f"{who}: {len(lost)} acknowledged and never handled: {lost[:10]}")
            if once - acknowledged:
                self.wrong.add(f"{who}: {len(once - acknowledged)} handled and never acknowledged")
            if len(once) != len(handled):
                self.wrong.add(f"{who}: {len(handled) - len(once)} handled twice")
            if who != "twoway" and handled != sorted(handled):
                self.wrong.add(f"{who}: handled out of order")
        if not acknowledged:
            self.wrong.add("nothing was raised")


def admin_port(release):
    """Where pods have their administration."""
    container = release.of("StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    return ports.get("admin", ports["http"])


def set_up(cluster, release, pod):
    """A site with its accounts; their tokens."""
    container = release.of("StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0]
    variables = cluster.command(container, pod)[1]
    secret = release.of("Secret", next(
        one["secret"]["secretName"] for one in release.of("StatefulSet")[0]["spec"]["template"]["spec"]["volumes"]
        if one["name"] == "admin"))
    admin = base64.b64decode(secret["data"][pathlib.Path(variables["ACKORD_ADMIN_TOKEN_FILE"]).name]).decode().strip()
    load = Load.__new__(Load)
    load.service = f"{cluster.addresses[pod]}:{admin_port(release)}"

    def must(method, path, body=None):
        until = time.monotonic() + 30
        while True:
            found = load.ask(method, path, admin, None if body is None else json.dumps(body))
            if found and found[0] < 300:
                return found[1]
            if time.monotonic() > until:
                raise SystemExit(f"{method} {path}: {found}")
            time.sleep(0.2)

    must("PUT", f"/v1/sites/{SITE}", {"multi_service": True})
    must("PUT", f"/v1/sites/{SITE}/structure", {
        "service_type": "play", "contract_author": "Ackord", "guests": "guest",
        "events": [{"name": EVENT, "category": "queueing", "lifetime_s": 86400, "size": QUEUE_SIZE}]})
    tokens = {}
    accounts = [("service", "service"), ("service", "stored"), *(("client", one) for one in ("ordered", "twoway", "polling"))]
    for kind, name in accounts:
        must("PUT", f"/v1/sites/{SITE}/{kind}s/{name}")
        tokens[name] = must("POST", f"/v1/sites/{SITE}/tokens", {"principal": {kind: name}})["token"]
    for mode in ("ordered", "twoway", "polling"):
        # Subscribed before the first raise: everything is for everybody.
        must("PUT", f"/v1/sites/{SITE}/clients/{mode}/subscriptions/{EVENT}", {})
    return tokens, admin


def violations(cluster, release):
    """What the brokers saw themselves that must not be."""
    found = []
    for pod in cluster.running:
        connection = http.client.HTTPConnection(cluster.addresses[pod], admin_port(release), timeout=10)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {cluster.admin}"})
        for line in connection.getresponse().read().decode().splitlines():
            if line.startswith("ackord_exactly_once_violations_total") and not line.endswith(" 0"):
                log = (cluster.directory / pod / "log").read_text()
                found += [f"{pod}: {line}", *(one for one in log.splitlines() if "ERROR" in one)]
        connection.close()
    return found


def play(given):
    values = yaml.safe_load(pathlib.Path(given.values).read_text()) if given.values else {}
    values.setdefault("config", {}).setdefault("limits", {}).setdefault("partitions", 4)
    # What a pod does before it stops must not need the administration of another one.
    values.setdefault("adminListener", {"enabled": True})
    # One pod that is to be three: partitions get more copies as there are more nodes.
    values = {**values, "replicas": 1, "allowUnsafe": True, "foundingReplicas": 1}
    wrong, steps = kubelet.Wrong(), []
    say = lambda text: print(text, file=sys.stderr if given.json else sys.stdout, flush=True)  # noqa: E731
    for address in ("10.77.1.1", "10.77.1.2"):
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    with tempfile.TemporaryDirectory(prefix="ackord-played-") as place:
        directory = pathlib.Path(place, "pods")
        directory.mkdir()
        pathlib.Path(place, "hosts").touch()
        subprocess.run(["mount", "--bind", pathlib.Path(place, "hosts"), "/etc/hosts"], check=True)
        api = kubelet.Api("10.77.1.1")
        cluster = Cluster(given.binary, directory, api)
        short = []
        stateful = kubelet.StatefulSet(cluster, api, wrong, short.append)
        release = render.render(values)
        secrets, template = release.of("Secret"), release.of("StatefulSet")[0]["spec"]["template"]
        load = None

        def step(what, replicas=None, restart=False):
            nonlocal release
            if wrong.texts:
                return
            say(what)
            begun, before, acknowledged = time.monotonic(), len(stateful.stopped), len(load.acknowledged) if load else 0
            if replicas is not None and stateful.pods:
                existing = [render.owned(one) for one in secrets + release.of("StatefulSet")]
                release = render.render({**values, "replicas": replicas, "founded": True}, existing=existing)
                # The Secrets are made once and kept.
                release.objects = [one for one in release.objects if one["kind"] != "Secret"] + secrets
                if release.of("StatefulSet")[0]["spec"]["template"] != template:
                    wrong.add("another number of replicas changed the pods")
            if restart:
                stateful.restart(STEP_WITHIN_S)
            else:
                stateful.apply(release, STEP_WITHIN_S)
            took = time.monotonic() - begun
            for pod in stateful.stopped[before:]:
                left = ["left", "true"] in [line.split() for line in pod.said.splitlines()]
                if left == restart:
                    wrong.add(f"{pod.name} {'left the cluster' if left else 'did not leave'}: {pod.said}")
                if not restart and pod.drained != 503:
                    wrong.add(f"{pod.name} left the cluster and its readiness probe says {pod.drained}")
                say(f"   ok  {pod.name} stopped in {pod.took:.1f} s, {pod.hooked:.1f} s of it before SIGTERM")
            if replicas and not wrong.texts:
                members = cluster.members(release, f"{release.of('StatefulSet')[0]['metadata']['name']}-0")
                if len(members) != replicas:
                    wrong.add(f"{len(members)} members of {replicas}: {members}")
            time.sleep(REST_S if load else 0)
            steps.append({"step": what, "seconds": round(took, 1),
                          "acknowledged": len(load.acknowledged) - acknowledged if load else 0,
                          "stops": [round(pod.took, 1) for pod in stateful.stopped[before:]]})

        try:
            step("one pod on an empty disk", 1)
            if not wrong.texts:
                first = next(iter(stateful.pods))
                tokens, cluster.admin = set_up(cluster, release, first)
                kubelet.Service("10.77.1.2", 4655, 4655, stateful)
                time.sleep(2 * kubelet.SERVICE_BEHIND_S)
                load = Load(given.binary, "10.77.1.2:4655", tokens, pathlib.Path(place), wrong)
                for what, replicas in [("1 to 3", 3), ("3 to 5", 5), ("5 to 3", 3)]:
                    step(what, replicas)
                step("a restart of all, one after the other", restart=True)
                say("the end")
                load.end()
                if not wrong.texts:
                    # The replicas are equal, as many members as pods, and the like.
                    with contextlib.redirect_stdout(sys.stderr if given.json else sys.stdout):
                        cluster.test(release)
                for found in violations(cluster, release):
                    wrong.add(f"what must not be was seen by {found}")
                if api.refused or api.asked < 5 and not wrong.texts:
                    wrong.add(f"the API server was asked {api.asked} times and refused {api.refused}")
        finally:
            wrong.over = True
            for process in list(cluster.running.values()):
                process.kill()
                process.wait()
            subprocess.run(["umount", "-l", "/etc/hosts"], check=False)
            kubelet.free_of(directory, simulate.OF_THE_MACHINE)
        told = {
            "acknowledged": len(load.acknowledged) if load else 0, "retries": load.retries if load else 0,
            "longest_raise_s": round(load.longest, 1) if load else None, "steps": steps,
            "short_of_ready": short, "wrong": wrong.texts,
        }
        say(f"{told['acknowledged']} raised, {told['retries']} tries more, the longest took {told['longest_raise_s']} s")
        for text in short:
            say(f"   ..  {text}")
        if given.json:
            print(json.dumps(told))
        say(f"{len(wrong.texts)} things were wrong" if wrong.texts else "all of it works")
        return 1 if wrong.texts else 0


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", required=True, help="an ackord")
    options.add_argument("--values", help="values of the chart")
    options.add_argument("--json", action="store_true", help="the figures as one JSON object on standard output")
    options.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if not given.inside:
        shutil.rmtree(render.SCRATCH)
        # A network and mounts of its own, which are gone with it.
        os.execvp("unshare", ["unshare", "--mount", "--net", sys.executable, *sys.argv, "--inside"])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    sys.exit(play(given))


if __name__ == "__main__":
    main()
