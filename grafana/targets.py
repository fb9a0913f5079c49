#!/usr/bin/env python3
"""Writes beside prometheus.yml what it names: the nodes, a site to look into, and a token.

usage: targets.py FILE [DIR]

FILE has the line that `ackord dev --json` prints.
"""
import json
import os
import pathlib
import sys

told = json.loads(pathlib.Path(sys.argv[1]).read_text().splitlines()[0])
place = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else pathlib.Path(__file__).resolve().parent
nodes = [url.split("://")[1].rstrip("/") for url in told["urls"]]
(place / "targets.json").write_text(json.dumps([{"targets": nodes}]) + "\n")
(place / "sites.json").write_text(json.dumps([{"targets": nodes, "labels": {"__param_site": told["site"]}}]) + "\n")
with open(os.open(place / "token", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as token:
    token.write(told["admin_token"])
print(f"{len(nodes)} nodes: {' '.join(nodes)}")
