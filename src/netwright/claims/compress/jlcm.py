"""Codebooks learned with their mapping, by either gradient, against k-means and learned rounding; measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.rounded import ERROR, gap, judged, subject
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import mean, told
from netwright.compress.jlcm import JLCM
from netwright.compress.quant_survey import QuantSurvey
from netwright.core.budget import Budget

BITS = (3, 2)
ARMS: dict[str, dict[str, Any]] = {
    "proximal": {},
    "plain": {"gradient": "plain"},
    "one codebook": {"codebooks": 1},
    "k-means": {"steps": 0},
}
PEER = "AdaRound"  # even steps, one scale per channel, about as many bytes
CLAIM = Claim(
    slug="jlcm",
    paper="Llama-7B in about 2 GB; the proximal gradient of the mapping beats the plain one, and codebooks even steps",
    setting=(
        "residual CNN of depth 8 and width 16 trained to the end on Fashion-MNIST (the bed 'fashion'); weights alone, "
        "at 3 and 2 bits, first and last layer at 8; 256 training images to calibrate, biases corrected in every arm; "
        f"{ERROR}; k-means has the indices that k-means gives, and in every arm with codebooks their values are fitted "
        "to the layer's output by least squares at the end; AdaRound learns which way weights are rounded to even "
        "steps with one scale per channel"
    ),
    rule=Rule(
        holds=(
            Part("log error: proximal less plain", "below"),
            Part("log error: proximal less k-means", "below"),
            Part(f"log error: proximal less {PEER}", "below"),
        ),
        mixed=((Part("log error: proximal less k-means", "below"),),),
        bed=(
            Part("accuracy of float", "at least", 0.92),
            Part("accuracy lost at 2 bits by k-means", "at least", 0.02),
            Part(f"bytes of proximal over {PEER}'s", "at most", 1.02),
        ),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows = []
    for seed in scale.seeds:
        network, task, whole, row = subject(seed)
        rows.append(row)
        for bits in BITS:
            made: dict[str, Any] = {
                arm: JLCM(bits=bits, seed=seed, **settings) for arm, settings in ARMS.items()
            }
            made[PEER] = QuantSurvey(bits=bits, seed=seed, scheme="channel")
            for arm, method in made.items():
                row = judged(*method.pair(network, task, Budget()), task, whole)
                rows.append({"arm": arm, "bits": bits, "seed": seed, **row})
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    at = lambda arm, bits, figure: mean([r for r in rows if r["bits"] == bits], arm, figure)
    others = (*list(ARMS)[1:], PEER)
    gaps = {
        f"log error: proximal less {other}": gap(rows, "proximal", other, "error", BITS) for other in others
    }
    figures: dict[str, Any] = gaps | {
        f"{figure}: {arm}, {bits} bits": at(arm, bits, figure)
        for figure in ("error", "accuracy", "bytes") for arm in ("proximal", *others) for bits in BITS
    }  # fmt: skip
    figures["difference of packed and simulated outputs"] = max(row.get("difference", 0.0) for row in rows)
    whole = mean(rows, "float", "accuracy")
    accuracy = ", ".join(f"{arm} {100 * at(arm, 2, 'accuracy'):.1f} %" for arm in ("proximal", *others))
    return Measured(
        summary=(
            f"logarithm of the error, proximal less plain {told(gaps['log error: proximal less plain'], 1)}, less "
            f"k-means {told(gaps['log error: proximal less k-means'], 1)}, less {PEER} "
            f"{told(gaps[f'log error: proximal less {PEER}'], 1)}; of {100 * whole:.1f} % accuracy, 2 bits leave: "
            f"{accuracy}"
        ),
        figures=figures,
        bed={
            "accuracy of float": whole,
            "accuracy lost at 2 bits by k-means": whole - at("k-means", 2, "accuracy"),
            f"bytes of proximal over {PEER}'s": max(
                at("proximal", bits, "bytes") / at(PEER, bits, "bytes") for bits in BITS
            ),
        },
        notes=(
            "Adam divides each logit's gradient by its own size, and the two gradients differ in size alone: what is "
            "left of the proximal one is little. Held against an Adam that shares that size among a weight's logits, "
            "by hand on layers made up, the plain gradient had the smaller error there too. Weights are packed and "
            "activations float, so nothing here says anything of speed."
        ),
    )
