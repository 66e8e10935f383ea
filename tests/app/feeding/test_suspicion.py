"""A network that guesses is told from one that knows."""

import torch

from netwright.app.feeding.suspicion import guesses


def test_classes_are_held_against_the_commonest():
    targets = torch.tensor([0] * 60 + [1] * 40)
    answers = lambda right: torch.eye(2)[torch.where(torch.arange(100) < right, targets, 1 - targets)]
    assert guesses(answers(60), targets, "classification")
    assert guesses(answers(69), targets, "classification"), (
        "two standard errors of 0.6 over 100 rows are 0.098"
    )
    assert not guesses(answers(70), targets, "classification")


def test_values_are_held_against_their_mean():
    y = torch.arange(20.0)[:, None]
    assert guesses(y.mean().expand(20, 1), y, "regression")
    assert guesses(-y, y, "regression")
    assert not guesses(0.5 * y + 5, y, "regression")


def test_labels_are_held_against_their_commoner_answers():
    targets = (torch.arange(200)[:, None] % torch.tensor([2, 4]) == 0).float()
    assert guesses(torch.full((200, 2), -1.0), targets, "multilabel")
    assert not guesses(targets - 0.5, targets, "multilabel")
