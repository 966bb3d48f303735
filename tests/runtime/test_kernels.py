"""The tests of test_parity with kernels that other processors have, in processes of their own.

The libraries read these variables once, when they load. A variable that means nothing to a
processor or a library leaves the kernels as they are.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

PARITY = Path(__file__).with_name("test_parity.py")
SWITCHES = (
    "ATEN_CPU_CAPABILITY=default",
    "ATEN_CPU_CAPABILITY=avx2",
    "MKL_ENABLE_INSTRUCTIONS=AVX2",
    "ONEDNN_MAX_CPU_ISA=AVX2",
)


def run(words, switch, threads):
    name, value = switch.split("=")
    # A worker of pytest-xdist says so to its children.
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    # Threads that wait do not spin: there may be more of them than cores.
    threaded = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {**kept, **threaded, name: value}
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("switch", SWITCHES)
def test_parity_holds(switch, threads):
    root = PARITY.parents[2]
    # -P: not the folder jataug/ at the root, but what is installed.
    words = ["-P", "-m", "pytest", "-q", "-x", "--rootdir", root, "-c", root / "pyproject.toml"]
    done = run([*words, "-p", "no:cacheprovider", "-k", "same", PARITY], switch, threads)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout.splitlines()[-1]


def test_a_switch_is_taken():
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    done = run(["-c", code], SWITCHES[0], 1)
    assert done.stdout.strip() == "DEFAULT"
