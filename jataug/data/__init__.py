"""Where images come from: class folders, .npz files and the MNIST family's idx files, read one
sample at a time.
"""

from .decode import decode
from .geometry import Geometry, prepare
from .labels import ClassMap, class_map, source_labels
from .open import open_source
from .rows import Rows, npz_rows
from .source import Sample, Source

__all__ = [
    "ClassMap",
    "Geometry",
    "Rows",
    "Sample",
    "Source",
    "class_map",
    "decode",
    "npz_rows",
    "open_source",
    "prepare",
    "source_labels",
]
