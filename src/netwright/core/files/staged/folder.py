"""A staged network on disk: a folder with plan.json, program.txt for people, constants.safetensors and plain .onnx
files. Nothing in it is code, and reading it runs none: the plan is checked as data, and ONNX Runtime runs the rest."""

from __future__ import annotations

import json
from pathlib import Path

from netwright.core.errors import BadInput
from netwright.core.files.checkpoint import load_state, save_state, together
from netwright.core.files.staged.plan import from_json, to_json
from netwright.core.files.staged.staged import Staged

PLAN, PROGRAM, CONSTANTS = "plan.json", "program.txt", "constants.safetensors"


def write_folder(network: Staged, folder: Path) -> list[Path]:
    """Write a staged network; its files appear together, the plan last. Gives their paths, the plan first."""
    plan = network.plan
    names = [PLAN, PROGRAM, *plan.parts, *([CONSTANTS] if plan.constants else [])]
    with together(folder, last=PLAN) as place:
        for name in plan.parts:
            (place / name).write_bytes(network.files[name])
        if plan.constants:
            save_state(place / CONSTANTS, {name: network.constants[name] for name in plan.constants})
        (place / PROGRAM).write_text(str(plan), encoding="utf-8")
        (place / PLAN).write_text(json.dumps(to_json(plan), indent=1) + "\n", encoding="utf-8")
    return [folder / name for name in names]


def read_folder(folder: Path, threads: int = 1) -> Staged:
    """A network that `write_folder` wrote; BadInput in one line where the folder holds none."""
    path = folder / PLAN
    try:
        plan = from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BadInput(f"{folder} is a folder without a {PLAN}: it holds no staged network") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is no plan ({error})") from None
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    files = {}
    for name in plan.parts:
        if name != Path(name).name or not name.endswith(".onnx"):
            raise BadInput(f"{path} names the part '{name}', which is no .onnx file of its folder")
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise BadInput(f"cannot read {folder / name}: {error.strerror or error}") from None
    constants = load_state(folder / CONSTANTS)[0] if plan.constants else {}
    return Staged(plan, files, constants, threads=threads)
