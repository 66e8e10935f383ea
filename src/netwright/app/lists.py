"""The commands that list: methods, a method's card, claims, data, models. Only `claims` with slugs runs anything."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.plural import number_of


def _table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _dump(document: Any) -> None:
    print(json.dumps(document, indent=1, default=str, ensure_ascii=False))


def committed(slug: str) -> dict[str, Any] | None:
    """A claim's committed result, from docs/claims of a checkout, if there is one."""
    for root in (Path("docs/claims"), Path(__file__).parents[3] / "docs" / "claims"):
        path = root / f"{slug}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def methods(goal: str | None, words: str | None, as_json: bool) -> bool:
    """Show the methods, each goal's together; whether there is one."""
    chosen = catalogue.of_goal(goal) if goal else list(catalogue.methods().values())
    if words:
        found = {m.slug for m in catalogue.search(words)}
        chosen = [m for m in chosen if m.slug in found]
    chosen.sort(key=lambda m: catalogue.GOALS.index(m.goal))
    if as_json:
        _dump([dataclasses.asdict(m) for m in chosen])
    elif chosen:
        firsts = {m.goal: m for m in reversed(chosen)}
        rows = [[m.goal if m is firsts[m.goal] else "", m.slug, m.summary] for m in chosen]
        _table(number_of(len(chosen), "method"), ["goal", "slug", "what it does"], rows)
    else:
        where = f" of the goal {goal}" if goal else ""
        what = f" that holds all of '{words}'" if words else ""
        print(f"there is no method{where}{what}. `netwright methods` lists all.", file=sys.stderr)
    return bool(chosen)


def card(slug: str, as_json: bool) -> None:
    row = catalogue.method(slug)
    result = committed(slug)
    kind = row.load()
    if dataclasses.is_dataclass(kind):
        fields = [(f.name, row.settings.get(f.name, _default(f))) for f in dataclasses.fields(kind)]
    else:
        fields = []
    if as_json:
        _dump(dataclasses.asdict(row) | {"fields": dict(fields), "claim": result})
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(f"[bold]{row.name}[/bold]  ({row.goal}, {row.contract})")
    console.print(Text(row.summary))
    if row.paper:
        console.print(
            Text(f"paper   {row.paper} ({', '.join(filter(None, [row.venue, str(row.year or '')]))})")
        )
    if row.serves:
        console.print(Text(f"serves  {row.serves}"))
    if kind.__doc__:
        console.print(Text(f"\n{kind.__doc__.strip()}\n"))
    for name, value in fields:
        console.print(Text(f"  --set {name}={value}"))
    if result:
        console.print(
            Text(f"\npaper   {result['paper']}\nhere    {result['summary']}\nverdict {result['verdict']}")
        )


def _default(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else "(required)"


def claims(
    slugs: list[str], full: bool, seeds: int, device: str, out: Path, judge: bool, as_json: bool
) -> None:
    if slugs:
        from netwright.claims.record import Scale, judge_again, run
        from netwright.core.files.paths import check_writable

        check_writable(out)
        scale = Scale("full" if full else "quick", tuple(range(seeds)), device)
        measure = (lambda slug: judge_again(slug, out)) if judge else (lambda slug: run(slug, scale, out))
        results = [measure(catalogue.method(slug).slug) for slug in slugs]
    else:
        results = [r for r in map(committed, catalogue.methods()) if r]
    if as_json:
        _dump(results)
        return
    if not slugs:
        _table(
            f"{number_of(len(results), 'claim')} measured", ["method", "verdict", "here"],
            [[r["slug"], r["verdict"], r["summary"]] for r in results],
        )  # fmt: skip
        return
    for r in results:
        print(f"{r['slug']}\npaper   {r['paper']}\nhere    {r['setting']}\n        {r['summary']}")
        print(f"verdict {r['verdict']} ({r['seconds']:.0f} s, {r['scale']} scale)\n")


def data(action: str | None, name: str | None, as_json: bool) -> None:
    from netwright.data import listing

    if action not in (None, "get"):
        raise BadInput(f"no action '{action}'. `netwright data` lists, `netwright data get NAME` fetches.")
    if action == "get":
        from netwright.app.screen import open_screen
        from netwright.core import progress
        from netwright.data.fetch import fetch

        if name is None:
            raise BadInput("which one? `netwright data` lists the names.")
        piped = not sys.stdout.isatty()  # what reads it wants the folder alone
        with (
            open_screen(quiet=as_json or piped) as view,
            view.working(f"fetching {name}") as listener,
            progress.listen(listener),
        ):
            folder = fetch(name)
        if as_json:
            _dump({"name": name, "folder": str(folder)})
        else:
            print(folder)
        return
    rows = listing()
    if as_json:
        _dump(rows)
        return
    _table(number_of(len(rows), "data set"), list(rows[0]), [[str(v) for v in r.values()] for r in rows])


def models(as_json: bool) -> None:
    from netwright.models import names

    if as_json:
        _dump(list(names()))
        return
    print("\n".join(names()))
