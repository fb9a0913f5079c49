#!/usr/bin/env python3
"""Runs what the chart renders, with a real broker and without Kubernetes.

    render ─▶ a root directory per pod (volumes, /etc/hosts) ─▶ its containers as processes ─▶ `helm test`

Each pod is a process with the user, command, variables and mounted files of its container, and
with an address of its own in a network namespace that ends with this script. All pods start at the
same time on empty disks. Then: everybody is ready; the steps of the test pod succeed, and so do the commands of
the notes; one loses its disk and finds back; one pod more finds its way into the cluster; one is
restarted; one is taken out; and after each the steps succeed again.

It needs root, Linux, `ip` and a binary. What it does otherwise than a kubelet: `0.0.0.0` becomes
the address of the pod, and nothing limits memory or processors. Kubernetes itself, its
DNS, its scheduler and its disks are not tested by it.

usage: simulate.py --binary PATH [--values FILE] [--old-probes]
"""
import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import yaml

import render

READY_WITHIN_S = 120
STEP_WITHIN_S = 180
# What a dynamically linked binary needs of this machine.
OF_THE_MACHINE = ["lib", "lib64", "usr/lib", "dev", "proc"]


def expand(text, variables):
    """$(NAME) as the kubelet replaces it."""
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda found: variables.get(found[1], found[0]), text)


class Cluster:
    """The pods of a release on this machine."""

    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        self.addresses, self.running = {}, {}

    def address(self, pod):
        if pod not in self.addresses:
            address = f"10.77.0.{len(self.addresses) + 1}"
            subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
            self.addresses[pod] = address
        return self.addresses[pod]

    def root(self, release, pod, spec):
        """Makes the file system of a pod."""
        root = self.directory / pod
        for place in [*OF_THE_MACHINE, "usr/local/bin", "etc", "tmp"]:
            (root / place).mkdir(parents=True, exist_ok=True)
        (root / "tmp").chmod(0o777)
        if not (root / "usr/local/bin/ackord").exists():
            shutil.copy(self.binary, root / "usr/local/bin/ackord")
            for place in OF_THE_MACHINE:
                if pathlib.Path("/", place).exists():
                    subprocess.run(["mount", "--rbind", f"/{place}", root / place], check=True)
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = (spec.get("initContainers", []) + spec["containers"])[-1]["volumeMounts"]
        for mount in mounts:
            place = root / mount["mountPath"].lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
            files = self.files(release, volumes.get(mount["name"], {}))
            if files is None:
                os.chown(place, 65532, 65532)
                continue
            for name, content in files.items():
                (place / name).write_bytes(content)
                (place / name).chmod(0o440)
                os.chown(place / name, 0, 65532)
        return root

    @staticmethod
    def files(release, volume):
        """The files of a volume; None for one that is written to."""
        if "configMap" in volume:
            return {k: v.encode() for k, v in release.of("ConfigMap", volume["configMap"]["name"])["data"].items()}
        if "secret" in volume:
            data = release.of("Secret", volume["secret"]["secretName"])["data"]
            return {key: base64.b64decode(value) for key, value in data.items()}
        return None

    def tell_names(self, release):
        """What DNS would say."""
        service = next(s for s in release.of("Service") if s["spec"].get("clusterIP") == "None")["metadata"]
        domain = f"{service['name']}.{service['namespace']}.svc"
        lines = ["127.0.0.1 localhost"] + [f"{a} {pod}.{domain}" for pod, a in self.addresses.items()]
        for root in self.directory.iterdir():
            (root / "etc/hosts").write_text("\n".join(lines) + "\n")

    def command(self, container, pod):
        """Arguments and variables of a container."""
        variables = {}
        for one in container["env"]:
            path = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            value = {"metadata.name": pod}.get(path, "") if path else expand(one["value"], variables)
            variables[one["name"]] = value
        arguments = [expand(word, variables) for word in container["command"] + container["args"]]
        if pod in self.addresses:
            variables = {k: v.replace("0.0.0.0", self.addresses[pod]) for k, v in variables.items()}
        return arguments, {**variables, "PATH": "/usr/local/bin"}

    def spawn(self, root, arguments, variables, **options):
        return subprocess.Popen(
            ["/usr/sbin/chroot", "--userspec=65532:65532", root, *arguments], env=variables, **options)

    def start(self, release, pod):
        spec = release.of("StatefulSet")[0]["spec"]["template"]["spec"]
        self.address(pod)
        root = self.root(release, pod, spec)
        self.tell_names(release)
        arguments, variables = self.command(spec["containers"][0], pod)
        log = open(root / "log", "ab")
        self.running[pod] = self.spawn(root, arguments, variables, stdout=log, stderr=log)

    def stop(self, pod):
        process = self.running.pop(pod)
        process.send_signal(signal.SIGTERM)
        return process.wait(60)

    def wait_ready(self, release, old_probes):
        """Asks every pod what its probes would ask."""
        container = release.of("StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        anything = ssl.create_default_context()
        anything.check_hostname, anything.verify_mode = False, ssl.CERT_NONE
        until = time.monotonic() + READY_WITHIN_S
        probes = ["livenessProbe", "readinessProbe"] + ([] if old_probes else ["startupProbe"])
        for pod in self.running:
            for probe in (container[name]["httpGet"] for name in probes):
                url = f"{probe['scheme'].lower()}://{self.addresses[pod]}:{ports[probe['port']]}{probe['path']}"
                why = "never asked"
                while True:
                    try:
                        with urllib.request.urlopen(url, timeout=3, context=anything):
                            break
                    except (OSError, urllib.error.HTTPError) as error:
                        why = error
                    if self.running[pod].poll() is not None or time.monotonic() > until:
                        log = (self.directory / pod / "log").read_text()[-2000:]
                        raise SystemExit(f"{pod} is not ready, {url}: {why}\n{log}")
                    time.sleep(0.2)

    def test(self, release):
        """The steps of the test pod, one after the other."""
        spec = next(pod for pod in release.hooks if pod["kind"] == "Pod")["spec"]
        root = self.root(release, "test", spec)
        self.tell_names(release)
        for step in spec["initContainers"] + spec["containers"]:
            arguments, variables = self.command(step, "test")
            process = self.spawn(root, arguments, variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            said = process.communicate(timeout=STEP_WITHIN_S)[0].decode().strip()
            last = said.splitlines()[-1] if said else ""
            print(f"   {'ok ' if process.returncode == 0 else 'NOT'} {step['name']}: {last[:150]}")
            if process.returncode != 0:
                raise SystemExit(f"the step ended with {process.returncode}:\n{said}")

    def members(self, release, pod):
        """The nodes that a pod takes for members."""
        lines = self.inside(release, pod, ["ackord", "cluster", "nodes", "--json"]).splitlines()
        return [one for one in map(json.loads, lines) if one["state"] == "active"]

    def number(self, release, pod):
        """The number of the node that is at the address of a pod."""
        members = self.members(release, next(one for one in self.running if one != pod))
        return next(one["id"] for one in members if one["address"].startswith(pod + "."))

    def inside(self, release, pod, words, typed="", within=60):
        """`kubectl exec -i POD -- WORDS`."""
        container = release.of("StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0]
        variables = self.command(container, pod)[1]
        standard_input, typing = os.pipe()
        # As a container runtime does for the user of the container.
        os.fchown(standard_input, 65532, 65532)
        process = self.spawn(self.directory / pod, words, variables, stdin=standard_input, stdout=subprocess.PIPE)
        os.close(standard_input)
        with os.fdopen(typing, "w") as pipe:
            pipe.write(typed)
        try:
            out = process.communicate(timeout=within)[0].decode()
        except subprocess.TimeoutExpired:
            process.kill()
            raise SystemExit(f"{words} did not end within {within} s") from None
        if process.returncode != 0:
            raise SystemExit(f"{words} ended with {process.returncode}")
        return out


def lose_disk(cluster, pod, release, given):
    """A founder comes back with an empty disk: it founds nothing, and joins once its old number is out."""
    first = next(one for one in cluster.running if one != pod)
    number = cluster.number(release, pod)
    cluster.stop(pod)
    shutil.rmtree(cluster.directory / pod / "var/lib/ackord/data")
    cluster.start(release, pod)
    # Its name stays, and no two members have the same address: the old one goes first.
    cluster.inside(release, first, ["ackord", "cluster", "remove", str(number), "--force", "--no-wait"])
    cluster.wait_ready(release, given.old_probes)
    cluster.inside(release, first, ["ackord", "cluster", "rebalance"], within=STEP_WITHIN_S)
    print(f"   ok  without node {number}, it joins")


def commands_of(notes):
    """What the notes say to do in a pod: the pod, the words, and what is typed."""
    for found in re.finditer(r"kubectl -n \S+ exec (?:-i )?(\S+) -- ([^<\n]+)(?:<<'END'\n(.*?)^END$)?", notes, re.M | re.S):
        yield found[1], found[2].split(), found[3] or ""


def scenario(given):
    values = yaml.safe_load(pathlib.Path(given.values).read_text()) if given.values else {}
    # Sixteen partitions on one machine are slow in a debug build, and prove no more.
    values.setdefault("config", {}).setdefault("limits", {}).setdefault("partitions", 4)
    with tempfile.TemporaryDirectory(prefix="ackord-simulated-") as place:
        cluster = Cluster(given.binary, pathlib.Path(place))
        release = render.render(values)
        stateful = release.of("StatefulSet")[0]
        name, replicas = stateful["metadata"]["name"], stateful["spec"]["replicas"]
        try:
            print(f"1. {replicas} pods start on empty disks, all at the same time")
            for ordinal in range(replicas):
                cluster.address(f"{name}-{ordinal}")
            for ordinal in range(replicas):
                cluster.start(release, f"{name}-{ordinal}")
            cluster.wait_ready(release, given.old_probes)
            print("2. helm test")
            cluster.test(release)
            print("3. what the notes say")
            for pod, words, typed in commands_of(release.notes):
                cluster.inside(release, pod, words, typed)
                print(f"   ok  {' '.join(words)}")
            cluster.inside(release, f"{name}-0", ["ackord", "cluster", "backup", "--out", "/tmp/backup"])
            print("   ok  a backup, asked of one pod")
            existing = [render.owned(one) for one in release.of("Secret") + [stateful]]
            if replicas > 1:
                print("4. one disk is lost")
                lose_disk(cluster, f"{name}-{replicas - 1}", release, given)
            print("5. one pod more")
            wider = {**values, "replicas": 3, "founded": True} if replicas == 1 else {**values, "replicas": replicas + 1}
            more = render.render(wider, existing=existing)
            # What the release does not make is there before it and stays.
            mine = {one["metadata"]["name"] for one in release.of("Secret") if "helm.sh/chart" in one["metadata"].get("labels", {})}
            more.objects = [one for one in more.objects if one["kind"] != "Secret" or one["metadata"]["name"] in mine]
            more.objects += [one for one in release.of("Secret") if one["metadata"]["name"] not in mine]
            if more.of("StatefulSet")[0]["spec"]["template"] != stateful["spec"]["template"]:
                raise SystemExit("another number of replicas changed the pods")
            for ordinal in range(replicas, more.of("StatefulSet")[0]["spec"]["replicas"]):
                cluster.start(more, f"{name}-{ordinal}")
            cluster.wait_ready(more, given.old_probes)
            members = cluster.members(more, f"{name}-0")
            if len(members) != more.of("StatefulSet")[0]["spec"]["replicas"]:
                raise SystemExit(f"{len(members)} members: {members}")
            print(f"   ok  {len(members)} members: " + ", ".join(one["address"].split(".")[0] for one in members))
            print("6. one pod is stopped and started again")
            again = f"{name}-{replicas - 1}"
            code = cluster.stop(again)
            if code != 0:
                raise SystemExit(f"{again} ended with {code}")
            cluster.start(more, again)
            cluster.wait_ready(more, given.old_probes)
            print("7. helm test")
            cluster.test(more)
            if replicas > 1:
                print("8. one pod less")
                last = f"{name}-{replicas}"
                number = str(cluster.number(more, last))
                cluster.inside(more, f"{name}-0", ["ackord", "cluster", "drain", number], within=STEP_WITHIN_S)
                cluster.stop(last)
                cluster.inside(more, f"{name}-0", ["ackord", "cluster", "remove", number], within=STEP_WITHIN_S)
                print(f"   ok  node {number} was drained and removed")
                print("9. helm test")
                cluster.test(release)
            print("all of it works")
        finally:
            for process in cluster.running.values():
                process.kill()
                process.wait()
            for root in cluster.directory.iterdir():
                for place_ in OF_THE_MACHINE:
                    subprocess.run(["umount", "-l", root / place_], check=False, stderr=subprocess.DEVNULL)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", required=True, help="an ackord")
    options.add_argument("--values", help="values of the chart")
    options.add_argument("--old-probes", action="store_true", help="leave the startup probe out")
    options.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if not given.inside:
        shutil.rmtree(render.SCRATCH)
        # A network and mounts of its own, which are gone with it.
        os.execvp("unshare", ["unshare", "--mount", "--net", sys.executable, *sys.argv, "--inside"])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    scenario(given)


if __name__ == "__main__":
    main()
