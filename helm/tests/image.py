#!/usr/bin/env python3
"""Does what `helm/Dockerfile` does, without a container engine, and starts what comes out.

    a clean copy of the sources at /src ─▶ the RUN of the Dockerfile ─▶ /out        twice, and compared
    /out as a read-only root, uid 65532, one volume ─▶ ENTRYPOINT and CMD ─▶ HEALTHCHECK, a name by DNS, a stop

Each build has mounts of its own: the sources of the last commit at /src, an empty /out and crates that
are fetched anew at /usr/local/cargo, under the variables of the Dockerfile. Unlike in the image, the
compiler and the C library are those of this machine. The image itself is not built by it.

It needs root, Linux, `git`, and the toolchain of rust-toolchain.toml, and takes two release builds.

usage: image.py [--place DIR] [--commit COMMIT] [--once]
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
READY_WITHIN_S = 60
# Devices that every engine gives a container, random bytes among them.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# What the name below stands for, asked of a name server and not of a file.
NAME, ADDRESS = "broker.example.internal", "127.0.0.1"


def instructions():
    """The Dockerfile as (stage, instruction, rest)."""
    text = re.sub(r"^\s*#.*\n", "", (REPOSITORY / "helm/Dockerfile").read_text(), flags=re.M)
    stage = 0
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            word, rest = line.split(None, 1)
            stage += word == "FROM"
            yield stage, word, rest.strip()


def of(stage, word):
    return [rest for at, one, rest in instructions() if (at, one) == (stage, word)]


def variables(stage):
    return dict(one.split("=", 1) for rest in of(stage, "ENV") for one in shlex.split(rest))


def sources(commit):
    """The files of a commit: those of both builds, whatever is committed meanwhile."""
    return subprocess.run(["git", "-C", REPOSITORY, "archive", commit], stdout=subprocess.PIPE, check=True).stdout


def build(place, archive):
    """Runs the first stage; gives the directory that becomes the image's root."""
    for name in ("src", "out", "cargo"):
        (place / name).mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", place / "src"], input=archive, check=True)
    home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    # Where this machine gets crates from; the Dockerfile says nothing of it.
    for name in ("config.toml", "config"):
        if (home / name).exists():
            shutil.copy(home / name, place / "cargo" / name)
    tools = subprocess.run(["rustc", "--print", "sysroot"], stdout=subprocess.PIPE, check=True, text=True,
                           cwd=REPOSITORY).stdout.strip()
    (run,), (workdir,) = of(1, "RUN"), of(1, "WORKDIR")
    places = {"src": workdir, "out": "/out", "cargo": "/usr/local/cargo"}
    made = [at for at in places.values() if not pathlib.Path(at).exists()]
    mounts = "".join(f"mkdir -p {at} && mount --bind {place / name} {at}\n" for name, at in places.items())
    environment = {"PATH": f"{tools}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                   "HOME": "/root", "CARGO_HOME": "/usr/local/cargo", **variables(1)}
    kept = ("CARGO_HTTP_CAINFO", "SSL_CERT_FILE", "CARGO_REGISTRIES_CRATES_IO_PROTOCOL", "http_proxy", "https_proxy")
    environment.update({name: os.environ[name] for name in kept if name in os.environ})
    script = f"set -e\n{mounts}cd {workdir}\n{run}\n"
    begun = time.monotonic()
    try:
        subprocess.run(["unshare", "--mount", "sh", "-c", script], env=environment, check=True)
    finally:
        for at in made:
            pathlib.Path(at).rmdir()
    print(f"   ok  built in {time.monotonic() - begun:.0f} s: {sum(f.stat().st_size for f in files(place / 'out'))} bytes")
    return place / "out"


def files(root):
    return sorted(one for one in root.rglob("*") if one.is_file())


def hashes(root):
    return {str(one.relative_to(root)): hashlib.sha256(one.read_bytes()).hexdigest() for one in files(root)}


def name_server():
    """Answers every question for an address with the one address."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    asked = []

    def serve():
        while True:
            question, whom = server.recvfrom(512)
            end = question.index(b"\0", 12) + 5
            kind = struct.unpack(">H", question[end - 4:end - 2])[0]
            asked.append(kind)
            answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(ADDRESS) if kind == 1 else b""
            head = question[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, 1 if answer else 0, 0, 0)
            server.sendto(head + question[12:end] + answer, whom)

    threading.Thread(target=serve, daemon=True).start()
    return asked


def start(root):
    """Starts the image: read-only, as its user, with its volume and nothing else to write to."""
    (user,), (volume,), (entry,), (words,) = of(2, "USER"), of(2, "VOLUME"), of(2, "ENTRYPOINT"), of(2, "CMD")
    (health,) = of(2, "HEALTHCHECK")
    check = json.loads(health[health.index("CMD ") + 4:])
    data = root.parent / "volume"
    data.mkdir()
    owner = (root / volume.lstrip("/")).stat()
    os.chown(data, owner.st_uid, owner.st_gid)
    os.chmod(data, owner.st_mode)
    # What an engine puts into every container.
    for name, text in (("resolv.conf", "nameserver 127.0.0.1\n"), ("hosts", "127.0.0.1 localhost\n")):
        (root / "etc" / name).write_text(text)
    (root / "proc").mkdir()
    (root / "dev").mkdir()
    for device in DEVICES:
        (root / "dev" / device).touch()
    subprocess.run(["mount", "--bind", root, root], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
    # A bind mount hides what is mounted below it.
    subprocess.run(["mount", "--bind", data, root / volume.lstrip("/")], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    for device in DEVICES:
        subprocess.run(["mount", "--bind", f"/dev/{device}", root / "dev" / device], check=True)
    # The path to the data and the listener, as a user of the image would give them; all else is its default.
    environment = {**variables(2), "ACKORD_DATA": f"{volume}/data"}
    chroot = ["/usr/sbin/chroot", f"--userspec={user}", root]

    def run(words, **options):
        return subprocess.run([*chroot, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=60, **options)

    refused = run(["ackord", "config", "doc"])
    if refused.returncode != 0:
        raise SystemExit(f"the binary does not run in it: {refused.stdout}")
    try:
        (root / "written").write_text("")
        raise SystemExit("the root is not read-only")
    except OSError:
        print("   ok  the root is read-only, also for root")
    process = subprocess.Popen([*chroot, *json.loads(entry), *json.loads(words)], env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            with urllib.request.urlopen("http://127.0.0.1:4655/healthz/ready", timeout=2):
                break
        except OSError as error:
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                raise SystemExit(f"it does not get ready: {error}\n{process.stdout.read()}") from None
            time.sleep(0.1)
    uid = next(line.split()[1] for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
               if line.startswith("Uid:"))
    if uid != user.split(":")[0] or uid == "0":
        raise SystemExit(f"it runs as {uid}")
    print(f"   ok  ready as uid {uid}")
    healthy = run(check)
    if healthy.returncode != 0:
        raise SystemExit(f"the health check says {healthy.returncode}: {healthy.stdout}")
    print(f"   ok  {' '.join(check)}: {healthy.stdout.strip().splitlines()[-1]}")
    asked = name_server()
    named = run([*check, "--url", f"http://{NAME}:4655"])
    if named.returncode != 0 or not asked:
        raise SystemExit(f"names are not looked up, {len(asked)} questions: {named.stdout}")
    print(f"   ok  {NAME} is looked up at the name server")
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    if code != 0:
        raise SystemExit(f"it ended with {code}")
    kept = sorted(one.name for one in (data / "data").iterdir())
    print(f"   ok  it stops with 0 and keeps {', '.join(kept)}")


def play(given):
    with tempfile.TemporaryDirectory(prefix="ackord-image-", dir=given.place) as place:
        place, archive = pathlib.Path(place), sources(given.commit)
        print("1. the commands of the Dockerfile in a clean directory", flush=True)
        first = build(place / "first", archive)
        binary = first / "usr/local/bin/ackord"
        linked = subprocess.run(["ldd", binary], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
        if "statically linked" not in linked and "not a dynamic executable" not in linked:
            raise SystemExit(f"the binary needs libraries:\n{linked}")
        named = [word for word in (str(REPOSITORY), str(place)) if word.encode() in binary.read_bytes()]
        if named:
            raise SystemExit(f"the binary names {named}")
        print(f"   ok  ackord has SHA-256 {hashes(first)['usr/local/bin/ackord']}", flush=True)
        if not given.once:
            print("2. the same in another one", flush=True)
            second = build(place / "elsewhere" / "second", archive)
            if hashes(first) != hashes(second):
                differ = [name for name in hashes(first) if hashes(first)[name] != hashes(second).get(name)]
                raise SystemExit(f"the two differ: {differ}")
            print("   ok  both are the same", flush=True)
        print("3. what comes out, started", flush=True)
        try:
            start(first)
        finally:
            for _ in range(3):
                for at in ("var/lib/ackord", "proc", *(f"dev/{device}" for device in DEVICES), "."):
                    subprocess.run(["umount", "-l", first / at], check=False, stderr=subprocess.DEVNULL)
        print("all of it works")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--place", help="where to build; some gigabytes are needed")
    options.add_argument("--commit", default="HEAD", help="what to build")
    options.add_argument("--once", action="store_true", help="build once, compare nothing")
    options.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if not given.inside:
        # The network stays until the builds are over: crates are fetched.
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv, "--inside"])
    play(given)


if __name__ == "__main__":
    main()
