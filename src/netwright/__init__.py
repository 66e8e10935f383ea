"""Netwright: which published method actually helps my network?

    import netwright as nw
    task = nw.task("digits")
    study = nw.compare("compress", my_module, task, nw.Budget(minutes=5))

Names are imported when first used, so that the command line starts fast.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Budget": "netwright.core.budget",
    "Target": "netwright.core.budget",
    "Task": "netwright.core.task",
    "Fit": "netwright.core.fit",
    "Taps": "netwright.core.taps",
    "NotApplicable": "netwright.core.errors",
    "NetwrightError": "netwright.core.errors",
    "load": "netwright.core.files.load",
    "export": "netwright.core.files.export",
    "trace": "netwright.core.graph",
    "cost": "netwright.core.measure.cost",
    "latency": "netwright.core.measure.cost",
    "Study": "netwright.core.study.study",
    "task": "netwright.data",
    "model": "netwright.models",
    "method": "netwright.core.catalogue",
    "methods": "netwright.core.catalogue",
    "compare": "netwright.app.compare",
    "improve": "netwright.app.improve",
    "predict": "netwright.app.predict",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'netwright' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
