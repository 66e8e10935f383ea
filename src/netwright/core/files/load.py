"""A network from wherever it is: a module, an ONNX file, an exported program, or code with a file of weights."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput, UnknownName
from netwright.core.files.checkpoint import load_state
from netwright.core.files.facts import input_shapes, normalises, signature_for, signature_of
from netwright.core.files.match import check_match
from netwright.core.files.paths import exists
from netwright.core.files.staged.folder import PLAN, read_folder
from netwright.core.quiet import quiet

__all__ = ["check_match", "input_shapes", "load", "normalises", "read_state", "signature_for", "signature_of"]

_KINDS = "an .onnx file, a .pt2 file, a .pt file, or package.module:function with a file of weights"
_NESTED = ("state_dict", "model_state_dict", "model", "net")


def load(
    source: nn.Module | str | Path,
    *,
    trust_pickle: bool = False,
    state: str | Path | None = None,
    example: tuple[Tensor, ...] | None = None,
) -> nn.Module:
    """The network, in evaluation mode if it comes from a file.

    source: a module (returned as it is); an .onnx file (core/onnx_import); a .pt2 file of torch.export.save;
    a folder of plan and parts (core/files/staged);
    'package.module:function' or 'file.py:function', called without arguments, with its weights in `state`;
    a .pt or .pth file that holds a whole module, which is a pickle and refused unless trust_pickle.
    state: safetensors, or a torch file of tensors alone. example: inputs, for ONNX files with free sizes.
    Every file that cannot be used is a BadInput of one line. No pickle is run unless trust_pickle.
    """
    network = _source(source, trust_pickle, example)
    if state is not None:
        _fill(
            network,
            read_state(Path(state)),
            str(state),
            str(source) if not _is_module(source) else "the network",
        )
    return network


def _is_module(source: Any) -> bool:
    return isinstance(source, nn.Module)


def _source(source: Any, trust_pickle: bool, example: tuple[Tensor, ...] | None) -> nn.Module:
    if isinstance(source, nn.Module):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise BadInput(f"a network is a torch module, {_KINDS}; got a {type(source).__name__}")
    path = Path(source)
    if not exists(path) and ":" in path.name:
        return _from_code(str(source))
    if exists(path) and (path / PLAN).is_file():
        return read_folder(path)
    _must_be_file(path)
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        from netwright.core.files.onnx_import import read_onnx

        return read_onnx(path, example)
    if suffix == ".pt2":
        from netwright.core.files.pt2 import read_pt2

        return read_pt2(path, trust_pickle)
    if suffix in (".pt", ".pth"):
        return _from_torch(path, trust_pickle)
    if suffix == ".safetensors":
        raise _only_weights(path)
    raise BadInput(f"{path}: a network is {_KINDS}")


def _must_be_file(path: Path) -> None:
    if not exists(path):
        raise BadInput(f"{path}: no such file; a network is {_KINDS}")
    if path.is_dir():
        raise BadInput(f"{path} is a folder; a network is {_KINDS}")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error
    if not first:
        raise BadInput(f"{path} is empty")


def _only_weights(path: Path) -> BadInput:
    return BadInput(
        f"{path} holds weights but no network. Name the code that builds it, package.module:function, and give "
        f"this file as its state; or export the network as ONNX or with torch.export.save."
    )


def _from_code(source: str) -> nn.Module:
    """What the named function returns (or the named module object itself)."""
    place, _, name = source.rpartition(":")
    try:
        module = _import(place)
    except ModuleNotFoundError as error:
        raise BadInput(f"{source}: there is no module '{error.name}' to import") from None
    except Exception as error:
        raise BadInput(f"{source}: importing it failed ({type(error).__name__}: {_line(error)})") from error
    if not hasattr(module, name):
        raise UnknownName(f"function in {place}", name, [n for n, v in vars(module).items() if callable(v)])
    made = getattr(module, name)
    if not isinstance(made, nn.Module):
        try:
            made = made()
        except Exception as error:
            raise BadInput(f"{source} failed ({type(error).__name__}: {_line(error)})") from error
    if not isinstance(made, nn.Module):
        raise BadInput(f"{source} gives a {type(made).__name__}, not a torch module")
    return made.eval()


def _import(place: str) -> Any:
    """A module by its import path, or a .py file; the current folder counts as a place to import from."""
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise BadInput(f"{place}: no such file")
        place_id = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
        name = f"{path.stem}_{place_id}"  # no other module's
        spec: Any = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        cloudpickle.register_pickle_by_value(module)  # a worker cannot import it by a name
        spec.loader.exec_module(module)
        return module
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return importlib.import_module(place)


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _from_torch(path: Path, trust_pickle: bool) -> nn.Module:
    made = _torch_file(path, trust_pickle)
    if isinstance(made, nn.Module):
        return made.eval()
    if isinstance(made, dict):
        inner = next((made[k] for k in _NESTED if isinstance(made.get(k), nn.Module)), None)
        if inner is not None:
            return inner.eval()
        raise _only_weights(path)
    raise BadInput(f"{path} holds a {type(made).__name__}, not a torch module")


def _torch_file(path: Path, trust_pickle: bool) -> Any:
    """What a file of torch.save holds; anything but tensors and plain containers only if trusted."""
    content = path.read_bytes()
    zipped = zipfile.is_zipfile(io.BytesIO(content))
    if zipped:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise BadInput(
                f"{path} is a TorchScript archive; export the network as ONNX or with torch.export.save"
            )
    elif content[:1] != b"\x80":  # what every pickle since protocol 2 starts with
        raise BadInput(f"{path} is no torch file, or only a part of one")
    try:
        with quiet():
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not trust_pickle:
            raise BadInput(
                f"{path} holds a pickled object, which could run code when loaded. If you trust it: "
                "--trust-pickle. Better: export it with torch.export.save or safetensors."
            ) from None
    except Exception:
        raise BadInput(f"{path} is no torch file, or only a part of one") from None
    try:
        with quiet():
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
    except Exception as error:
        raise BadInput(f"{path} cannot be unpickled ({type(error).__name__}: {_line(error)})") from error


def read_state(path: Path) -> dict[str, Tensor]:
    """Weights by name, from safetensors or a torch file that holds tensors alone."""
    _must_be_file(path)
    if path.suffix.lower() == ".safetensors":
        return load_state(path)[0]
    found = _torch_file(path, trust_pickle=False)
    for name in _NESTED:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise BadInput(f"{path} holds no dictionary of tensors")
    return found


def _fill(network: nn.Module, state: dict[str, Tensor], file: str, source: str) -> None:
    """Put the weights in; names and shapes must be the network's."""
    own = network.state_dict()
    if (
        state
        and all(name.startswith("module.") for name in state)
        and not any(n.startswith("module.") for n in own)
    ):
        state = {
            name.removeprefix("module."): tensor for name, tensor in state.items()
        }  # saved from DataParallel
    faults = []
    for words, names in (
        ("lacks", own.keys() - state.keys()),
        ("has the unknown", state.keys() - own.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            faults.append(f"{words} '{min(names)}'{more}")
    for name in own.keys() & state.keys():
        if own[name].shape != state[name].shape:
            faults.append(f"'{name}' is {tuple(state[name].shape)}, not {tuple(own[name].shape)}")
            break
    if faults:
        raise BadInput(f"{file} does not fit {source}: {'; '.join(faults)}")
    network.load_state_dict(state)
