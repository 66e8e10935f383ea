"""What the distillation paper says, measured here."""

from __future__ import annotations

from dataclasses import replace

from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean
from netwright.claims.testbeds import testbed
from netwright.compress.distil import Distillation
from netwright.core.budget import Budget
from netwright.core.cost import cost
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import clone

CLAIM = Claim(
    slug="distillation",
    paper="MNIST: a small network makes 146 errors, taught by a larger one (67 errors) 74",
    setting=(
        "CNN of widths 16-32-64 as teacher, the same pruned to a quarter of the multiply-accumulates as student, new "
        "weights; Fashion-MNIST, 10,000 training images, 20 epochs; the student alone for equally many steps, and "
        "for so many more as the teacher's forward passes cost; accuracy on all 10,000 test images"
    ),
    holds_if="taught beats alone at equal steps in accuracy, the 95 % interval over seeds above 0",
)


def measure(scale: Scale) -> Measured:
    rows = []
    for seed in scale.seeds:
        teacher, task = testbed("fashion-cnn", seed)
        taught = Distillation(seed=seed)
        student = taught.new_student(teacher, task)
        taught = replace(taught, student=student)
        heavy, light = (cost(n, task.example()).macs for n in (teacher, student))
        # a step of training costs about three forward passes
        longer = taught.epochs * (1 + heavy / (3 * light))
        alone = Fit(epochs=taught.epochs, lr=taught.lr, weight_decay=taught.weight_decay, seed=seed)
        lonely, patient = clone(student), clone(student)
        alone(lonely, task)
        replace(alone, epochs=longer)(patient, task)
        arms = {
            "teacher": (teacher, 0.0),
            "taught": (taught(teacher, task, Budget()), taught.epochs),
            "alone": (lonely, alone.epochs),
            "alone, equal cost": (patient, longer),
        }
        for arm, (network, epochs) in arms.items():
            macs = cost(network, task.example()).macs
            rows.append(
                {"arm": arm, "seed": seed, "macs": macs, "epochs": epochs, **evaluate(network, task, "test")}
            )
    gain = difference(rows, "taught", "alone", "accuracy")
    dear = difference(rows, "taught", "alone, equal cost", "accuracy")
    percent = {
        arm: f"{100 * mean(rows, arm, 'accuracy'):.2f}"
        for arm in ("teacher", "taught", "alone", "alone, equal cost")
    }
    verdict = "holds" if gain["interval"][0] > 0 else "does not hold here"
    return Measured(
        rows=rows,
        verdict=verdict,  # type: ignore[arg-type]
        summary=(
            f"taught {percent['taught']} %, alone {percent['alone']} % at equal steps ({100 * gain['mean']:+.2f} "
            f"points [{100 * gain['interval'][0]:.2f}, {100 * gain['interval'][1]:.2f}]) and "
            f"{percent['alone, equal cost']} % at equal cost; teacher {percent['teacher']} %"
        ),
        figures={
            "accuracy, taught against alone": gain,
            "accuracy, taught against alone at equal cost": dear,
            "nll, taught against alone": difference(rows, "taught", "alone", "nll"),
        },
        notes=(
            "The temperature (4) and weight (0.9) were not tuned. A first run of this claim, with a tenth of the "
            "multiply-accumulates and 6 epochs, which leave the student far from trained, had the taught one at "
            "61.29 % and the one alone at 73.33 % at equal steps: high temperatures learn slowly. This run has the "
            "method's default strength and epochs. At equal cost the student alone sees the data "
            "several times more often, which the paper does not compare."
        ),
    )
