"""Attack libraries of other people, installed like the rest of the material (tests/material.py).

They are not in the dev extra: torchattacks holds requests at 2.25, and two of them ask for
torchvision without importing it.
"""

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import material

__all__ = ["PEERS", "imported", "site"]

PEERS = {
    "torchattacks": ("torchattacks==3.5.1",),
    "foolbox": (
        "foolbox==3.3.4",
        "eagerpy==0.30.0",
        "GitPython==3.2.1",
        "gitdb==4.0.12",
        "smmap==5.0.3",
        "requests==2.34.2",
        "certifi==2026.10.18",
        "charset-normalizer==3.5.2",
        "idna==3.20",
        "urllib3==2.8.0",
    ),
    "art": ("adversarial-robustness-toolbox==1.20.1", "six==1.17.0"),
    "autoattack": ("pyautoattack==0.2.0",),
}


def site(name: str) -> Path:
    """The folder to put on the import path for one of PEERS.

    Raises:
        UnavailableError: it cannot be installed.
    """
    return material.installed(*PEERS[name])


def imported(name: str, *modules: str) -> list[Any]:
    """Import modules of a peer; the folder is on the path only meanwhile."""
    folder = str(site(name))
    sys.path.insert(0, folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs, of their own dependencies
            return [importlib.import_module(module) for module in modules]
    finally:
        sys.path.remove(folder)
