"""The published test vector: made again it is the same, and the golden session reproduces it."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from drivers.packages import EXAMPLES
from material import ROOT

from jataug import Session

VECTOR = EXAMPLES / "vector"


def read(folder: Path) -> dict[str, Any]:
    """vector.json, each case with its arrays under "arrays"."""
    vector = json.loads((folder / "vector.json").read_text(encoding="utf-8"))
    raw = (folder / vector["data"]).read_bytes()
    for case in vector["cases"]:
        case["arrays"] = {
            name: np.frombuffer(
                raw, np.dtype(t["dtype"]).newbyteorder("<"), int(np.prod(t["shape"])), t["offset"]
            ).reshape(t["shape"])
            for name, t in case["tensors"].items()
        }
    return vector


@pytest.fixture(scope="module")
def vector() -> dict[str, Any]:
    return read(VECTOR)


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_vector", VECTOR / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["make_vector"] = module
    spec.loader.exec_module(module)
    return module


def test_made_again_it_is_the_same(
    vector: dict[str, Any], maker: ModuleType, tmp_path: Path
) -> None:
    maker.write(tmp_path)
    again = read(tmp_path)
    assert [case["name"] for case in again["cases"]] == ["claim-1", "evaluation", "claim-8"]
    for case, made in zip(vector["cases"], again["cases"], strict=True):
        arrays, others = case.pop("arrays"), made.pop("arrays")
        assert case == made
        for name, array in arrays.items():
            np.testing.assert_allclose(others[name], array, rtol=0, atol=2e-5, err_msg=name)
        np.testing.assert_array_equal(others["final_levels"], arrays["final_levels"])
        case["arrays"] = arrays


@pytest.mark.parametrize("number", range(3))
def test_the_session_reproduces_it(vector: dict[str, Any], number: int) -> None:
    case = vector["cases"][number]
    arrays = case["arrays"]
    for file in case["artifacts"].values():
        with Session.open(VECTOR / file, device="cpu", threads=1) as session:
            result = session.attack(
                arrays["levels"],
                indices=np.array(case["indices"]),
                seed=int(case["seed"]),
                epoch=case["epoch"],
                flow=np.array(case["flow_radius"], np.float32),
                pixel=np.array(case["pixel_radius"], np.float32),
            )
        np.testing.assert_array_equal(result.adversarial, arrays["final_levels"])
        assert result.label.tolist() == case["labels"]
        assert result.target.tolist() == case["last_targets"]
        assert result.success.tolist() == case["success"]
        for name in ("flow", "delta", "loss", "logits"):
            np.testing.assert_allclose(
                getattr(result, name), arrays[f"final_{name}"], rtol=0, atol=vector["tolerance"]
            )


def test_it_holds_what_it_claims(vector: dict[str, Any]) -> None:
    claim, evaluation, other = vector["cases"]
    assert set(claim["artifacts"]) == {"step", "loop", "unrolled"}
    assert 0.0 in claim["flow_radius"]
    assert int(evaluation["seed"]) > 2**53
    last, kept = (evaluation["arrays"][f"{name}_delta"] for name in ("last", "kept"))
    assert np.abs(last - kept).max() > 1e-3
    assert other["targets"] != other["last_targets"]
    assert np.abs(other["arrays"]["start_flow"]).max() > 1
    successes = [flag for case in vector["cases"] for flag in case["success"]]
    assert {True, False} == set(successes)


def test_it_is_small_and_explained(vector: dict[str, Any]) -> None:
    files = [path for path in VECTOR.iterdir() if path.suffix in (".onnx", ".json", ".bin")]
    assert sum(path.stat().st_size for path in files) < 400_000
    page = (ROOT / "docs" / "drivers.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[a-z_]+", page))
    for case in vector["cases"]:
        assert named >= {*case["tensors"], *(set(case) - {"arrays"})}
