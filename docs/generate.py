"""The generated part of the site: first page, reference of the API, a page per method, claims and benchmarks.

A method's page holds its docstring, its settings and its claim's committed result; nothing is typed by hand.
mkdocs runs this before it builds (`hooks` in mkdocs.yml), so that `mkdocs build` and `mkdocs serve` need no other step.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from netwright.claims.record import module_of
from netwright.core import catalogue

HERE = Path(__file__).parent


def claim_of(slug: str) -> dict[str, Any] | None:
    path = HERE / "claims" / f"{slug}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {text(v)}" for k, v in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(text(v) for v in value) + "]"
    return str(value) if str(value).startswith("`") else str(value).replace("|", "\\|")


def table(rows: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(k for row in rows for k in row))
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return lines + ["| " + " | ".join(text(r.get(n, "")) for n in names) + " |" for r in rows]


def settings(kind: type, row: catalogue.Method) -> list[str]:
    if not dataclasses.is_dataclass(kind):
        return []
    values = []
    for f in dataclasses.fields(kind):
        default = row.settings.get(f.name, None if f.default is dataclasses.MISSING else f.default)
        values.append({"setting": f"`{f.name}`", "type": f"`{f.type}`", "default": f"`{default!r}`"})
    return ["## Settings", "", *table(values), ""] if values else []


def listed(figures: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"figure": name, "value": value} for name, value in figures.items()]


def again(result: dict[str, Any]) -> str:
    """The options that repeat the measurement."""
    seeds = f" --seeds {len(result['seeds'])}" if len(result["seeds"]) != 3 else ""
    return f"{seeds}{' --full' if result['scale'] == 'full' else ''}"


def judged(result: dict[str, Any]) -> str:
    """Where the rule or the statistics are newer than the measurement."""
    if "judged" not in result:
        return ""
    return f", judged again {result['judged']['date']} at revision {result['judged']['revision']}"


def setting_today(slug: str) -> str:
    return module_of(slug).CLAIM.setting


def claim_section(result: dict[str, Any] | None) -> list[str]:
    if result is None:
        return ["## Claim", "", "Not measured yet.", ""]
    machine = result["machine"]
    lines = [
        "## Claim", "", f"**The paper:** {result['paper']}", "", f"**Here:** {result['setting']}", "",
        f"**Holds if:** {result['holds_if']}", "", f"**Verdict: {result['verdict']}.** {result['summary']}", "",
    ]  # fmt: skip
    if result["setting"] != setting_today(result["slug"]):
        lines += ["The setting has been changed since, and this is to be measured again.", ""]
    if result["notes"]:
        lines += [result["notes"], ""]
    if result.get("bed"):
        lines += ["Why this can show it:", "", *table(listed(result["bed"])), ""]
    if result["figures"]:
        lines += [*table(listed(result["figures"])), ""]
    lines += ['!!! note "Every row"', ""]
    lines += ["    " + line for line in table(result["rows"])] + [""]
    lines += [
        f"Measured {result['date']} at {result['scale']} scale in {result['seconds']} s, seeds {result['seeds']}, on "
        f"{machine['processor']} ({machine['threads']} threads), torch {result['versions']['torch']}, revision "
        f"{result['revision']}{judged(result)}. Again: `netwright claims {result['slug']}{again(result)}`.", "",
    ]  # fmt: skip
    return lines


def reference(path: str) -> list[str]:
    """What mkdocstrings makes of one object: its signature and its docstring."""
    return [f"::: {path}"]


# The reference: what a user's program calls, by what it is for.
API = {
    "The front door": ("netwright.app.improve.improve", "netwright.app.report.result.Result",
                       "netwright.app.compare.compare", "netwright.app.compare.Comparison",
                       "netwright.app.report.standings.Candidate",
                       "netwright.app.predict.predict", "netwright.app.predict.Predictions"),
    "Networks": ("netwright.core.files.load.load", "netwright.core.files.load.signature_of",
                 "netwright.core.files.export.export", "netwright.core.files.export.Exported",
                 "netwright.models.build", "netwright.core.measure.cost.cost",
                 "netwright.core.measure.latency.latency"),
    "Data": ("netwright.data.task", "netwright.core.task.Task", "netwright.core.split.ArraySplit",
             "netwright.core.split.LoaderSplit", "netwright.core.split.Normalise", "netwright.core.signature.Signature",
             "netwright.core.signature.Input", "netwright.core.signature.Feature"),
    "Budgets, training, activations": ("netwright.core.budget.Budget", "netwright.core.budget.Target",
                                       "netwright.core.fit.Fit", "netwright.core.taps.Taps",
                                       "netwright.core.progress"),
    "Methods and what they give": ("netwright.core.catalogue", "netwright.core.contracts"),
    "Studies": ("netwright.core.study.study.Study", "netwright.core.study.trial.Trial",
                "netwright.core.study.trial.Limits", "netwright.core.study.trial.Outcome"),
    "Metrics": ("netwright.core.metrics",),
    "Errors": ("netwright.core.errors",),
}  # fmt: skip


def api_page() -> str:
    lines = ["# Reference", "", "What a program can call. Most of it is at hand as `netwright.NAME`.", ""]
    for title, paths in API.items():
        lines += [f"## {title}", ""]
        for path in paths:
            lines += [*reference(path), ""]
    return "\n".join(lines)


def method_page(row: catalogue.Method) -> str:
    kind = row.load()
    paper = ", ".join(filter(None, [row.paper, row.venue, str(row.year) if row.year else ""]))
    lines = [f"# {row.name}", "", row.summary, "", f"`{row.slug}`, {row.goal}, {row.contract}", ""]
    lines += [f"Paper: {paper}", ""] if paper else []
    lines += [f"Serves: {row.serves}", ""] if row.serves else []
    lines += [*reference(row.path.replace(":", ".")), ""]
    return "\n".join(lines + settings(kind, row) + claim_section(claim_of(row.slug)))


def index_page(rows: list[catalogue.Method]) -> str:
    lines = ["# Methods", ""]
    for goal in catalogue.GOALS:
        part = [r for r in rows if r.goal == goal]
        if part:
            lines += [f"## {goal}", ""]
            lines += table([{"method": f"[{r.name}]({r.slug}.md)", "what it does": r.summary} for r in part])
            lines.append("")
    return "\n".join(lines)


def claims_page(rows: list[catalogue.Method]) -> str:
    found = [(r, claim_of(r.slug)) for r in rows]
    listed = [
        {"method": f"[{r.name}](methods/{r.slug}.md)", "verdict": c["verdict"], "measured": c["summary"]}
        for r, c in found
        if c
    ]
    lead = "What the papers say, measured here next to the baselines. Written by the runs, never by hand."
    return "\n".join(["# Claims", "", lead, "", *table(listed), ""])


def benchmarks_page() -> str:
    lines = ["# Benchmarks", "", "Netwright beside its peers, in one run each: `make bench`.", ""]
    for path in sorted((HERE / "benchmarks").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        lines += [f"## {path.stem.replace('_', ' ')}", ""]
        rows = result.pop("rows", None) if isinstance(result, dict) else result
        if isinstance(result, dict):
            lines += [*table([{"figure": k, "value": v} for k, v in result.items()]), ""]
        lines += [*table(rows), ""] if rows else []
    return "\n".join(lines)


def home() -> str:
    """The README is the first page; its links and pictures are seen from docs/."""
    page = (HERE.parent / "README.md").read_text(encoding="utf-8")
    return (
        page.replace("](docs/", "](")
        .replace('src="docs/', 'src="')
        .replace("](LICENSE)", "](architecture.md)")
    )


def write(path: Path, content: str) -> None:
    """Only what has changed, since `mkdocs serve` watches the folder."""
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")


def main() -> None:
    rows = list(catalogue.methods().values())
    for row in rows:
        write(HERE / "methods" / f"{row.slug}.md", method_page(row))
    write(HERE / "methods" / "index.md", index_page(rows))
    write(HERE / "claims.md", claims_page(rows))
    write(HERE / "benchmarks.md", benchmarks_page())
    write(HERE / "reference.md", api_page())
    write(HERE / "index.md", home())


def navigation() -> list[Any]:
    """The methods' pages by goal, behind their index."""
    pages: list[Any] = ["methods/index.md"]
    for goal in catalogue.GOALS:
        part = [{row.name: f"methods/{row.slug}.md"} for row in catalogue.of_goal(goal)]
        pages += [{goal: part}] if part else []
    return pages


def on_config(config: Any) -> Any:
    """mkdocs calls this before it looks for pages."""
    main()
    for entry in config["nav"]:
        if "Methods" in entry:
            entry["Methods"] = navigation()
    return config
