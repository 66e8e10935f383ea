"""No file imports itself, by whatever way: what import-linter holds between siblings, here between a package and its
own files too."""

from __future__ import annotations

import grimp
import networkx as nx


def test_there_is_no_circle_of_imports_between_files() -> None:
    graph = grimp.build_graph("netwright", cache_dir=None)
    links = nx.DiGraph((m, d) for m in graph.modules for d in graph.find_modules_directly_imported_by(m))
    assert links.number_of_edges() > 500
    assert [sorted(found) for found in nx.strongly_connected_components(links) if len(found) > 1] == []
