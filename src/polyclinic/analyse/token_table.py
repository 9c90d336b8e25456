"""The sample's tokens one by one, as a Parquet table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyclinic.analyse.sampling import Kept

SCHEMA = pa.schema(
    [
        ("language", pa.string()),
        ("document", pa.string()),
        ("position", pa.int32()),  # among the counted tokens of the document
        ("token", pa.int32()),  # vocabulary id
        ("layer", pa.int16()),
        ("picks", pa.list_(pa.int16())),
        ("weights", pa.list_(pa.float32())),
    ]
)


def write_tokens(path: Path, documents: Sequence[Kept], layers: Sequence[int], languages: Sequence[str]) -> None:
    """Write one row for each token and sparse layer, documents in order."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for kept in documents:
            if kept.weights_LTK is None:
                raise ValueError(f"{kept.name} was kept without weights")
            size, top_k = len(kept.ids_T), kept.picks_LTK.shape[2]
            rows = len(layers) * size
            lists = np.arange(0, rows * top_k + 1, top_k, dtype=np.int32)
            columns = [
                pa.array([languages[kept.language]] * rows),
                pa.array([kept.name] * rows),
                pa.array(np.tile(np.arange(size, dtype=np.int32), len(layers))),
                pa.array(np.tile(kept.ids_T.astype(np.int32), len(layers))),
                pa.array(np.repeat(np.array(layers, dtype=np.int16), size)),
                pa.ListArray.from_arrays(lists, kept.picks_LTK.ravel()),
                pa.ListArray.from_arrays(lists, kept.weights_LTK.ravel()),
            ]
            writer.write_table(pa.table(columns, schema=SCHEMA))
