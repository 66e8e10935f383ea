"""Students by learned policies, against policies that learn nothing and against uniform shrinking, measured here."""

from __future__ import annotations

from typing import Any

from torch import nn

from netwright.claims.beds.quartered import quartered
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean, spread
from netwright.compress.n2n import MULTIPLIERS, N2N, Search, reward, taught_by
from netwright.compress.n2n.students import Shapes
from netwright.core.budget import Budget
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import parameter_count, seeded
from netwright.core.task import Task
from netwright.models import build

METHOD = N2N(iterations=10, rollouts=5, student_epochs=1, lr=5e-3, tune=5)
LEARNED, UNLEARNED, UNIFORM = "n2n", "random choices", "uniform"
CLAIM = Claim(
    slug="n2n",
    paper=(
        "more than 10 times smaller at about the accuracy of a ResNet-34 teacher on CIFAR-10; policies learned on one "
        "teacher come to good students sooner on another"
    ),
    setting=(
        "Fashion-MNIST at 14x14, 2,000 images, ResNet-8 of width 8 as the teacher (12 epochs of AdamW 3e-3); 10 "
        "iterations of 5 rollouts for each policy, students trained for one epoch on the teacher's logits; the same "
        "with policies that do not learn; and every width and kernel by one multiplier, seven of them; the best by "
        "validation reward tuned for 5 epochs, its reward then of the 2,000 test images; three seeds"
    ),
    rule=Rule(
        holds=(
            Part(f"reward: {LEARNED} less {UNLEARNED}", "above"),
            Part(f"reward: {LEARNED} less {UNIFORM}", "at least"),
        ),
        bed=(
            Part("accuracy of the teacher", "at least", 0.78),
            Part("spread of random students' rewards", "at least", 0.03),
        ),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows = []
    for seed in scale.seeds:
        task = quartered(2000, 2000, seed)
        with seeded(seed):
            teacher = build("resnet", task.input_shape, task.outputs, depth=8, width=8)
        Fit(epochs=12, batch_size=64, lr=3e-3, seed=seed)(teacher, task)
        top = evaluate(teacher, task, "test")["accuracy"]
        rows.append({"arm": "teacher", "seed": seed, "accuracy": top})
        for arm, rates in ((LEARNED, {}), (UNLEARNED, {"removal_lr": 0.0, "shrinkage_lr": 0.0})):
            found = N2N(**{**METHOD.__dict__, **rates, "seed": seed}).search(teacher, task)
            best = found.best.network
            assert best is not None
            rows.append({"arm": arm, "seed": seed, **judged(best, teacher, task, seed, top), **curve(found)})
        rows.append(
            {"arm": UNIFORM, "seed": seed, **judged(uniform(teacher, task, seed), teacher, task, seed, top)}
        )
    return rows


def uniform(teacher: nn.Module, task: Task, seed: int) -> nn.Module:
    """The best by validation reward of the students that have one multiplier for everything."""
    shapes, made = Shapes(teacher, task.example(2)), []
    whole, before = parameter_count(teacher), evaluate(teacher, task)["accuracy"]
    for factor in dict.fromkeys(MULTIPLIERS):
        student = shapes.student(shapes.sizes([factor] * len(shapes.attributes)))
        METHOD.training(METHOD.student_epochs)(student, task, loss=taught_by(teacher))
        gone = 1 - parameter_count(student) / whole
        made.append((reward(gone, evaluate(student, task)["accuracy"] / before), student))
    return max(made, key=lambda pair: pair[0])[1]


def judged(student: nn.Module, teacher: nn.Module, task: Task, seed: int, top: float) -> dict[str, float]:
    """Tuned as the method does, then on test data."""
    N2N(**{**METHOD.__dict__, "seed": seed}).training(METHOD.tune)(
        student, task, Budget(), loss=taught_by(teacher)
    )
    accuracy = evaluate(student, task, "test")["accuracy"]
    gone = 1 - parameter_count(student) / parameter_count(teacher)
    return {"accuracy": accuracy, "compressed": gone, "reward": reward(gone, accuracy / top)}


def curve(found: Search) -> dict[str, Any]:
    """Mean rewards of the first and of the last ten rollouts of each policy, and how the students' scatter."""
    rewards = [student.reward for student in found.students if student.reward >= 0]
    middle = sum(rewards) / len(rewards)
    ends = {
        f"{stage}, {name}": sum(part) / len(part)
        for stage, values in found.rewards.items()
        for name, part in (("first", values[:10]), ("last", values[-10:]))
        if part
    }
    return {"scatter": (sum((r - middle) ** 2 for r in rewards) / len(rewards)) ** 0.5, **ends}


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures = differences(rows, LEARNED, (UNLEARNED, UNIFORM), ("reward", "accuracy", "compressed"))
    said = ", ".join(
        f"{arm} {mean(rows, arm, 'reward'):.3f} ± {spread(rows, arm, 'reward'):.3f} "
        f"({100 * mean(rows, arm, 'compressed'):.0f} % gone, {100 * mean(rows, arm, 'accuracy'):.1f} %)"
        for arm in (LEARNED, UNLEARNED, UNIFORM)
    )
    return Measured(
        summary=f"rewards of the best students: {said}; the teacher {100 * mean(rows, 'teacher', 'accuracy'):.1f} %",
        figures=figures,
        bed={
            "accuracy of the teacher": mean(rows, "teacher", "accuracy"),
            "spread of random students' rewards": mean(rows, UNLEARNED, "scatter"),
        },
    )
