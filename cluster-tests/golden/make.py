#!/usr/bin/env python3
"""Makes a golden data directory: what a release left on the disk, and what it said of it.

    a broker of that release ─▶ a site with everything in it ─▶ answers.json    and then it is stopped, or killed
                                                             └▶ data.tar.gz

Directories are made once, by the release whose formats they have, and never made anew: the test opens
each with the binary of today and compares what that answers.

usage: make.py --binary PATH --out DIRECTORY [--kill]
"""
import argparse
import http.server
import json
import pathlib
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request

SITE = "golden"
STRUCTURE = {
    "service_type": "golden", "contract_author": "Ackord", "guests": "guest+stateless",
    "roles": ["Operator", "Visitor"], "owner_role": "Operator",
    "events": [
        {"name": "reading", "category": "queueing", "lifetime_s": 86400, "size": 20},
        {"name": "state", "category": "replacing", "access": {"roles": ["Operator"]}},
        {"name": "relevant", "category": "replacing"},
        {"name": "letter", "category": "private", "lifetime_s": 86400},
        {"name": "bulk", "category": "queueing", "lifetime_s": 86400, "size": 40},
    ],
}
# Answered alike for as long as the directory is.
ASKED = [
    "", "/structure", "/services/boiler", "/clients/phone", "/clients/away", "/users/anna", "/users",
    "/queues", "/queues/reading", "/queues/state", "/queues/relevant", "/queues/letter", "/queues/bulk?limit=3",
    "/clients/phone/subscriptions", "/clients/away/subscriptions", "/pushes", "/dead-letters", "/quotas", "/tokens", "/audit",
]


class Callback(http.server.BaseHTTPRequestHandler):
    """Answers the handshake and fails every delivery."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"challenge": body["challenge"]}).encode() if "challenge" in body else b""
        self.send_response(200 if answer else 500)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def make(given):
    out = pathlib.Path(given.out)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place:
        data = pathlib.Path(place, "data")
        broker = subprocess.Popen(
            [given.binary, "dev", "--data", data, "--listen", "127.0.0.1:0", "--json", "--set", "push.hosts=127.0.0.1",
             "--limit", "snapshot_log_bytes_min=65536"], stdout=subprocess.PIPE, text=True)
        ready = json.loads(broker.stdout.readline())

        def ask(method, path, body=None, token=ready["admin_token"], headers=(), code=None):
            request = urllib.request.Request(
                ready["urls"][0] + path, method=method, data=None if body is None else json.dumps(body).encode(),
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json", **dict(headers)})
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    text = answer.read()
            except urllib.error.HTTPError as error:
                if error.code == code:
                    return None
                raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}") from None
            return json.loads(text) if text else None

        of = f"/v1/sites/{SITE}"
        ask("PUT", of, {})
        ask("PUT", f"{of}/structure", STRUCTURE)
        ask("PUT", f"{of}/services/boiler")
        ask("PUT", f"{of}/users/anna", {"roles": ["Operator"]})
        ask("PUT", f"{of}/clients/phone", {"user": "anna"})
        ask("PUT", f"{of}/clients/away", {})
        tokens = {name: ask("POST", f"{of}/tokens", {"principal": {kind: name}})["token"]
                  for kind, name in (("service", "boiler"), ("client", "phone"), ("client", "away"))}
        for client in ("phone", "away"):
            for event in ("reading", "letter"):
                ask("PUT", f"{of}/clients/{client}/subscriptions/{event}", {})
        ask("PUT", f"{of}/clients/phone/subscriptions/state", {"mode": "twoway", "window": 7})
        ask("PUT", f"{of}/clients/away/subscriptions/bulk", {"max_attempts": 2, "dead_letter": True})

        def raise_(event, args, key, **more):
            body = {"event": event, "args": args, **more}
            return ask("POST", f"{of}/events", body, tokens["boiler"],
                       {"Idempotency-Key": key, "Content-Type": "application/x-ndjson"})

        for number in range(30):
            raise_("reading", {"celsius": number / 2}, f"r{number}")
        raise_("state", "heating", "s1")
        raise_("state", "idle", "s2")
        raise_("relevant", 1, "v1")
        raise_("letter", "for the one away", "l1", client="away")
        raise_("letter", "for the phone", "l2", client="phone")
        # Enough for snapshots.
        for number in range(150):
            raise_("bulk", "." * 1500, f"b{number}")
        for _ in range(3):
            event = ask("GET", f"{of}/next?event=reading", token=tokens["phone"])
            ask("POST", f"{of}/ack", event, tokens["phone"])
        callback = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Callback)
        threading.Thread(target=callback.serve_forever, daemon=True).start()
        ask("PUT", f"{of}/pushes/hook", {"client": "phone", "event": "reading", "mode": "ordered", "retry_count": 0,
                                       "url": f"http://127.0.0.1:{callback.server_address[1]}/"})
        until = time.monotonic() + 20
        while ask("GET", f"{of}/pushes/hook")["state"] != "cancelled":
            if time.monotonic() > until:
                raise SystemExit("the callback is not cancelled")
            time.sleep(0.1)
        head = raise_("relevant", 2, "v2")["instance_id"]
        known = {}
        for path in ASKED:
            answer = ask("GET", of + path, code=404)
            if answer is not None:
                known[of + path] = answer
        missing = [path for path in ASKED if of + path not in known]
        if missing:
            print(f"not there in this release: {missing}")
        told = {"made_ms": int(time.time() * 1000), "admin_token": ready["admin_token"], "tokens": tokens, "answers": known,
                "head": head}
        if given.kill:
            subprocess.run(["kill", "-KILL", *map(str, ready["pids"])], check=True)
        broker.terminate()
        broker.wait(30)
        (out / "answers.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
        with tarfile.open(out / "data.tar.gz", "w:gz") as archive:
            for one in sorted(data.rglob("*")):
                # Zeros that are written ahead, and made anew.
                if one.is_file() and "spare" not in one.parts:
                    archive.add(one, one.relative_to(data))
        print({one.name: one.stat().st_size for one in out.iterdir()}, sorted(known))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", required=True, help="an ackord of the release")
    options.add_argument("--out", required=True, help="a directory that is not there")
    options.add_argument("--kill", action="store_true", help="kill the broker instead of stopping it")
    make(options.parse_args())


if __name__ == "__main__":
    main()
