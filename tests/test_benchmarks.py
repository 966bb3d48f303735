"""Each part of benchmarks/speed.py on the smallest models, once: what it computes is right. The
parts themselves compare gradients with torch's, and what two ways of an attack break; of times
nothing is asked.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SPEED = Path(__file__).resolve().parent.parent / "benchmarks" / "speed.py"
PARTS = {
    "gradient": [r"demo classifier, batch 2: jataug forward \+ gradient"],
    "attacks": [r"PGD, 10 steps: jataug", r"PGD, 10 steps: foolbox", r"joint, 10 steps: jataug"],
    "pipeline": [r"generate, demo classifier, 1 step, folder", r"generate, .* npz"],
    "memory": [r"demo classifier, batch 2: \d+ MiB"],
    "exporting": [r"export_attack, demo classifier"],
    "evaluating": [r"joint attack, 3 steps, 2 restarts, .* withstand: gradients"],
    "engines": [r"demo classifier, batch 64: onnxruntime", r"demo classifier, batch 64: openvino"],
}


def run(part):
    command = [sys.executable, str(SPEED), "--smoke", "--only", part]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_table(part):
    if part == "memory" and not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells how far a process has grown since a moment")
    if part == "engines":
        pytest.importorskip("openvino", reason="openvino, of jataug[openvino], is not installed")
    lines = [line for line in run(part).splitlines() if line.endswith(f"| {part}.py |")]
    for work in PARTS[part]:
        found = [line for line in lines if re.search(rf"^\| [^|]*{work}", line)]
        assert found, f"{work}: not among {lines}"
        # What is left of a difference of times may be below 0 in one round.
        assert all(re.search(r"\| -?\d+\.\d\d \[", line) for line in found)
    if part == "evaluating":
        shares = [
            float(m) for m in re.findall(r"gradients \| without \| ([\d.]+)", "\n".join(lines))
        ]
        assert len(shares) == 4
        assert all(0 < share < 1 for share in shares)
    if part == "engines":
        values = re.findall(
            r": (\w+) \| % robust accuracy \(512 images\) \| ([\d.]+)", "\n".join(lines)
        )
        exact = {name: float(value) for name, value in values}
        assert exact["openvino"] == pytest.approx(exact["onnxruntime"], abs=0.5)


def test_cuda_beside_itself():
    """On the CPU: nothing differs from it, all is measured; where CUDA is missing it says so."""
    script = str(SPEED.with_name("on_cuda.py"))
    command = [sys.executable, script, "--smoke", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| demo classifier | 0.0e+00 | 0.0e+00 | 0.00% | 0.00% |" in done.stdout
    for contestant in ("jataug", "eager torch", "eager torch, channels_last, bfloat16"):
        assert re.search(rf"\| demo classifier, PGD, {contestant} \| \d+ \[", done.stdout)
    assert re.search(r"\(forward \+ gradient\) / forward \|  \| \d+\.\d\d \[", done.stdout)
    assert "| demo classifier | 1,000 |" in done.stdout
    for computed in ("float32", "float16"):
        assert re.search(rf"\| {computed} \| 128 \| \d+\.\d\d \|", done.stdout)
    assert re.search(r"\| demo classifier \| 0 \| 0 \| -?\d+\.\d\d: \w+", done.stdout)
    for way in ("natural", "joint, torch", "joint, ONNX Runtime on live weights"):
        assert re.search(rf"\| small-cnn, {way} \| \d+ \[", done.stdout)
