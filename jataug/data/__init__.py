"""Where images come from: class folders, .npz files and the MNIST family's idx files, read one
sample at a time.
"""

from .class_map import (
    Classes,
    ClassMap,
    ClassOrder,
    class_map,
    first_classes,
    read_classes,
    source_labels,
)
from .geometry import Geometry, prepare
from .open_source import open_source
from .outside import check_outside
from .readers.array_rows import Rows, npz_rows
from .readers.decode import decode, decode_bytes
from .readers.npy import read_array
from .readers.parquet_rows import ParquetRows, parquet_library
from .readers.tar_members import Member, read_member, tar_members
from .skip import Skip
from .source import Sample, Source

__all__ = [
    "ClassMap",
    "ClassOrder",
    "Classes",
    "Geometry",
    "Member",
    "ParquetRows",
    "Rows",
    "Sample",
    "Skip",
    "Source",
    "check_outside",
    "class_map",
    "decode",
    "decode_bytes",
    "first_classes",
    "npz_rows",
    "open_source",
    "parquet_library",
    "prepare",
    "read_array",
    "read_classes",
    "read_member",
    "source_labels",
    "tar_members",
]
