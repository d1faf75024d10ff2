"""gpu.md: what ran, what it found, what failed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.report import number, table

TITLES = {
    "machine": "The machine",
    "weights": "Weights",
    "tests": "The tests of the golden cases, over HTTP, in fp32",
    "golden fp32": "Golden cases in fp32",
    "golden bf16": "Golden cases in bf16",
    "golden fp16": "Golden cases in fp16",
    "demo": "The demo model over HTTP, all at once against alone",
    "BLIP over HTTP": "BLIP-base over HTTP",
    "BLIP-2 over HTTP": "BLIP-2 OPT 2.7B over HTTP",
    "speed": "Towers and steps",
    "compiled": "Towers and steps, compiled",
}
NOTES = {
    "golden fp32": "Texts must be equal, and scores within 1e-4 of the authors'.",
    "golden bf16": "Half precision has no such promise: this tells how often rounding shows.",
    "golden fp16": "Flan-T5 computes in bf16 here: its states overflow fp16.",
    "BLIP over HTTP": "20 tokens a caption, random weights, pictures of 640 x 480 that count as new; one server at a "
    "time, its clients kept busy. The wrapper is the obvious one: transformers in FastAPI, no batches.",
    "BLIP-2 over HTTP": "As above.",
    "speed": "Towers: shares are of a large product in the same dtype, measured beside it, and of the data sheet. "
    "Steps: wall time with the search, the device idle before and after; tokens a second are of rows, not beams. "
    "Networks: a step without the search, at fixed shapes, one beam; wall: one at a time, waited for; device: queued, "
    "by events. The wall time of a graph is what the device needs: the rest of the other's is Python and launches.",
}


def render(content: dict[str, Any]) -> str:
    sections = content["sections"]
    return "\n\n".join([*head(content), summary(sections), *(part for one in sections for part in section(one))]) + "\n"


def head(content: dict[str, Any]) -> Iterator[str]:
    yield "# Results of `make prove-gpu`"
    if content["scale"] == "dry":
        yield "**A dry run on the CPU, at tiny sizes: it shows that each section runs. Its figures mean nothing.**"
    yield f"{content['seconds']:.0f} seconds in all."


def summary(sections: Sequence[dict[str, Any]]) -> str:
    rows = [[TITLES[one["name"]], number(one["seconds"]), verdict(one)] for one in sections]
    return f"## What ran\n\n{table(('section', 'seconds', ''), rows)}"


def verdict(section: dict[str, Any]) -> str:
    if section["failure"]:
        return f"**{section['failure'].splitlines()[0]}**"
    failed = sum(bool(row.get("failure")) for row in section["rows"])
    return f"**{failed} of {len(section['rows'])} failed**" if failed else "ran"


def section(one: dict[str, Any]) -> Iterator[str]:
    yield f"## {TITLES[one['name']]}"
    if one["name"] in NOTES:
        yield NOTES[one["name"]]
    rows = [row for row in one["rows"] if not row.get("failure")]
    for heads in dict.fromkeys(map(tuple, rows)):
        alike = [row for row in rows if tuple(row) == heads]
        yield table(heads, [[cell(row[name]) for name in heads] for row in alike])
    for row in one["rows"]:
        if row.get("failure"):
            what = ", ".join(f"{name} {cell(value)}" for name, value in row.items() if name != "failure")
            yield f"{what or 'it'} failed:\n\n{quoted(row['failure'])}"
    if one["failure"]:
        yield quoted(one["failure"])


def cell(value: object) -> str:
    return number(value) if isinstance(value, float) else "" if value is None else str(value).replace("|", "/")


def quoted(text: str) -> str:
    return f"```text\n{text.replace('```', '')}\n```"
