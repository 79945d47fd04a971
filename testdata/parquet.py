"""Write internal/data/testdata/rows.parquet and nested.parquet with pyarrow, as pandas and datasets do.

    V/bin/python testdata/parquet.py        (needs pyarrow)
"""
import os

import pyarrow as pa
import pyarrow.parquet as pq

table = pa.table(dict(
    text=["Größe 日本", "a", "a", "a", "line\nbreak"], number=pa.array([7, 8, 9, 10, -1], pa.int32()), share=[0.25, 0.5, 1.0, 2.0, 1e-7], sure=[True, True, False, True, False],
    label=pa.array([0, 1, 0, 1, 1], pa.int64()), note=[None, "x", None, None, "y"], words=[["a"], [], ["b", "c"], None, ["d"]]))
pq.write_table(table, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../internal/data/testdata/rows.parquet"), row_group_size=3)

nested = pa.table(dict(
    text=["one", "two", "three"],
    messages=pa.array([[dict(role="user", content="hi"), dict(role="assistant", content="yo")],
                       [dict(role="user", content="a"), dict(role="assistant", content="b")], None]),
    meta=pa.array([dict(source="a", inner=dict(n=1)), dict(source="b", inner=dict(n=2)), None]),
    tags=pa.array([["a", "b"], [], None]), raw=pa.array([b"\xff\x00", b"ab", None])))
pq.write_table(nested, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../internal/data/testdata/nested.parquet"), compression="zstd")
