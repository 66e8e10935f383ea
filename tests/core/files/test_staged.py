"""Staged networks, made by hand: a plan is followed as it says, and one that could do harm or not end is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput, NetwrightError
from netwright.core.files.load import load
from netwright.core.files.staged import Staged, read_folder, write_folder
from netwright.core.files.staged.plan import (
    Block,
    Choice,
    Fail,
    Give,
    Input,
    Jump,
    Name,
    Plan,
    check,
    from_json,
    to_json,
)
from netwright.core.quiet import silent

PLAN = Plan(
    (Input("x", (1, 2), "float32"),),
    1,
    ("limit",),
    (
        Block(
            "b0",
            "net.py, line 3",
            "first.onnx",
            ("x", "limit"),
            ("y", "large"),
            (),
            Choice("large", "b1", "b2"),
        ),
        Block("b1", "", "", (), (), (("y", "x"), ("x", "y")), Jump("b3")),
        Block("b2", "", "", (), (), (), Fail("net.py, line 5 (raise)")),
        Block(
            "b3",
            "",
            "",
            (),
            (),
            (),
            Give((Name("x"), [Name("y")], {"n": Name("large", number=True)}, 7, None)),
        ),
    ),
)


class First(nn.Module):
    def forward(self, x: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * x, x.sum() > limit


@pytest.fixture(scope="module")
def staged() -> Staged:
    buffer = io.BytesIO()
    with silent():
        torch.onnx.export(
            First(), (torch.ones(1, 2), torch.tensor(1.0)), buffer, dynamo=False, opset_version=20,
            input_names=["x", "limit"], output_names=["y", "large"],
        )  # fmt: skip
    return Staged(PLAN, {"first.onnx": buffer.getvalue()}, {"limit": torch.tensor(1.0)})


def test_a_plan_is_followed(staged):
    x = torch.tensor([[1.0, 2.0]])
    doubled, (same,), numbers, seven, nothing = staged(x)
    assert torch.equal(doubled, 2 * x), "both moves at once: x and y change places"
    assert torch.equal(same, x)
    assert (numbers, seven, nothing) == ({"n": True}, 7, None)
    assert staged.way(x) == ("first.onnx",)
    with pytest.raises(NetwrightError, match=r"net\.py, line 5"):
        staged(-x)


def test_it_comes_back_from_json_and_from_its_folder(staged, tmp_path):
    assert from_json(json.loads(json.dumps(to_json(PLAN)))) == PLAN
    files = write_folder(staged, tmp_path / "net")
    assert {f.name for f in files} == {"plan.json", "program.txt", "first.onnx", "constants.safetensors"}
    x = torch.tensor([[1.0, 2.0]])
    for again in (read_folder(tmp_path / "net"), load(tmp_path / "net")):
        assert again.plan == PLAN
        assert torch.equal(again(x)[0], 2 * x)
    text = (tmp_path / "net" / "program.txt").read_text()
    for line in (
        "b0:  # net.py, line 3", "y, large = first.onnx(x, limit)", "if large: go to b1, else: go to b2", "y = x",
        "go to b3", "fail: net.py, line 5 (raise)", "return (x, [y], {'n': number(large)}, 7, None)",
    ):  # fmt: skip
        assert line in text


def changed(place: int, **fields: object) -> dict:
    plan = to_json(PLAN)
    plan["blocks"][place] |= fields
    return plan


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (changed(1, then={"go": "b0"}), "no later block"),
        (changed(1, then={"go": "elsewhere"}), "no later block"),
        (changed(0, given=["elsewhere", "limit"]), "reads 'elsewhere' before it is there"),
        (changed(1, moves={"z": "elsewhere"}), "before it is there"),
        (changed(0, then={"if": "elsewhere", "yes": "b1", "no": "b2"}), "before it is there"),
        (changed(3, then={"return": {"tuple": ["x", {"list": ["z"]}]}}), "before it is there"),
        (changed(3, then={"return": {"call": "os.system"}}), "cannot be read"),
        (changed(3, then={"return": {"is": [1]}}), "cannot be read"),
        (changed(3, name="b0"), "two of one name"),
        (changed(0, then={}), "cannot be read"),
        ({**to_json(PLAN), "version": 2}, "version 2"),
        ({**to_json(PLAN), "blocks": []}, "no blocks"),
        ([], "cannot be read"),
    ],
)
def test_a_plan_that_could_not_run_is_refused(found, reason):
    with pytest.raises(BadInput, match=reason):
        from_json(found)


def test_what_stands_on_one_way_only_is_not_there_where_ways_meet():
    blocks = (
        Block("b0", "", "", (), (), (), Choice("x", "b1", "b2")),
        Block("b1", "", "", (), (), (("y", "x"),), Jump("b2")),
        Block("b2", "", "", (), (), (), Give(Name("y"))),
    )
    with pytest.raises(BadInput, match="reads 'y'"):
        check(Plan(PLAN.inputs, 1, (), blocks))


def test_a_folder_that_was_tampered_with_is_refused(staged, tmp_path):
    write_folder(staged, tmp_path)
    plan = tmp_path / "plan.json"

    def refused(text: str, reason: str) -> None:
        plan.write_text(text)
        with pytest.raises(BadInput, match=reason):
            read_folder(tmp_path)

    refused("{", r"plan\.json is no plan")
    refused('{"version": 1}', r"plan\.json: the plan cannot be read")
    refused(json.dumps(changed(0, run="../first.onnx")), r"no \.onnx file of its folder")
    refused(json.dumps(changed(0, run="first.py")), r"no \.onnx file of its folder")
    refused(json.dumps(changed(0, run="second.onnx")), "cannot read")
    refused(json.dumps({**to_json(PLAN), "constants": ["limit", "other"]}), "'other' is not there")
    plan.write_text(json.dumps(to_json(PLAN)))
    Path(tmp_path, "first.onnx").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="ONNX Runtime"):
        read_folder(tmp_path)(torch.ones(1, 2))
    with pytest.raises(BadInput, match="holds no staged network"):
        read_folder(tmp_path / "nowhere")
