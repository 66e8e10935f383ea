"""Whose tests take the time: processor seconds by method, of its own tests and its part in the conformance suite."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from netwright.core import catalogue

SHARE = 5.0  # seconds; 183 methods then leave `make test` under 20 minutes on two cores


def method_of(nodeid: str, slugs: Iterable[str]) -> str | None:
    """The method that a test belongs to: by its file (`test_<slug>.py`, or a folder of that name), or by its row."""
    path, _, rest = nodeid.partition("::")
    parts = [PurePosixPath(part).stem.removeprefix("test_").replace("_", "-") for part in path.split("/")]
    if "conformance" in parts:
        row = re.search(r"\[(.*)\]", rest)
        parts = [row[1]] if row else []
        fitting = [slug for slug in slugs if parts and (parts[0] == slug or parts[0].startswith(f"{slug}-"))]
        return max(fitting, key=len, default=None)
    return next((part for part in reversed(parts) if part in set(slugs)), None)


def by_method(reports: Iterable[Any]) -> dict[str, float]:
    """Seconds by slug, from the reports of teardown (they know what the whole test took)."""
    slugs = list(catalogue.methods())
    found: dict[str, float] = defaultdict(float)
    for report in reports:
        slug = method_of(report.nodeid, slugs)
        if slug is not None and report.when == "teardown":
            found[slug] += dict(report.user_properties).get("cpu", 0.0)
    return dict(found)


def beyond_their_share(seconds: Mapping[str, float], share: float = SHARE) -> list[str]:
    """A line for each of the ten methods that take most, where that is more than their share."""
    most = sorted(seconds, key=lambda slug: -seconds[slug])[:10]
    return [f"{seconds[slug]:5.1f} s  {slug}" for slug in most if seconds[slug] > share]
