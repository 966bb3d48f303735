"""Where images come from: class folders, .npz files and the MNIST family's idx files, read one
sample at a time.
"""

from .array_rows import Rows, npz_rows
from .class_map import ClassMap, class_map, source_labels
from .decode import decode, decode_bytes
from .geometry import Geometry, prepare
from .npy import read_array
from .open_source import open_source
from .parquet_rows import ParquetRows, parquet_library
from .skip import Skip
from .source import Sample, Source
from .tar_members import Member, read_member, tar_members

__all__ = [
    "ClassMap",
    "Geometry",
    "Member",
    "ParquetRows",
    "Rows",
    "Sample",
    "Skip",
    "Source",
    "class_map",
    "decode",
    "decode_bytes",
    "npz_rows",
    "open_source",
    "parquet_library",
    "prepare",
    "read_array",
    "read_member",
    "source_labels",
    "tar_members",
]
