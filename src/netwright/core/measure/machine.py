"""The machine that a figure was measured on."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

# flag in /proc/cpuinfo -> the name that people use; what decides whether 8-bit arithmetic is fast
_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX512-VNNI",
    "amx_int8": "AMX-INT8",
    "asimd": "NEON",
    "asimddp": "NEON-dot-product",
    "i8mm": "NEON-I8MM",
}


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's fields of /proc/cpuinfo; empty where there is no such file."""
    fields: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return fields
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields


def processor_name() -> str:
    """The processor's name, such as 'AMD EPYC 9354'."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def instruction_sets() -> tuple[str, ...]:
    """Vector instruction sets that matter for inference, such as ('AVX2', 'AVX512-VNNI'); empty if unknown."""
    fields = _cpuinfo()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return tuple(name for flag, name in _SETS.items() if flag in flags)
