#!/usr/bin/env python3
"""Puts the schema of the chart's values together, or says whether it is up to date.

    helm/values.outer.json + `ackord config schema`  ->  helm/ackord/values.schema.json

The part about `config` is the broker's own schema, without `$schema` and without the keys that the
outer part lists as `x-ackord-set-by-chart`: those the chart sets itself. The list is left out of
the result, and the keys of all objects of the result are sorted.

usage: schema.py --config-schema FILE [--write]
       ackord config schema | schema.py --config-schema - [--write]
"""
import argparse
import json
import pathlib
import sys

HELM = pathlib.Path(__file__).resolve().parent.parent
OUTER = HELM / "values.outer.json"
WHOLE = HELM / "ackord" / "values.schema.json"
LIST = "x-ackord-set-by-chart"


def without(schema, path):
    """Takes the key of a dotted path out of a schema; one that is not there is an error."""
    *above, last = path.split(".")
    for name in above:
        schema = schema["properties"][name]
    del schema["properties"][last]


def assemble(outer, config):
    """The whole schema, as text."""
    outer, config = json.loads(json.dumps(outer)), json.loads(json.dumps(config))
    config.pop("$schema", None)
    for path in outer.pop(LIST):
        without(config, path)
    outer["properties"]["config"] = config
    return json.dumps(outer, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def outer_of(whole):
    """What a whole schema says outside of `config`."""
    whole = json.loads(json.dumps(whole))
    whole["properties"]["config"] = {}
    return whole


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--config-schema", required=True, help="what `ackord config schema` prints; - is standard input")
    options.add_argument("--write", action="store_true", help="write the result")
    given = options.parse_args()
    text = sys.stdin.read() if given.config_schema == "-" else pathlib.Path(given.config_schema).read_text()
    whole = assemble(json.loads(OUTER.read_text()), json.loads(text))
    if given.write:
        WHOLE.write_text(whole)
    elif not WHOLE.exists() or WHOLE.read_text() != whole:
        print(f"{WHOLE} is not up to date: ackord config schema | {__file__} --config-schema - --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
