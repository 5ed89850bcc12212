"""Reads a `.wandb` file, the log of an offline run: W&B's protobuf records in LevelDB's log format."""

import json
import struct
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
HEADER = 7


def records(path: Path) -> list[Record]:
    """All records of the file, in order."""
    data, at, found, part = path.read_bytes(), HEADER, [], b""
    assert data[:4] == b":W&B"
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        part += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # a full record, or the last piece of one
            found.append(Record.FromString(part))
            part = b""
    return found


def history(path: Path) -> list[dict]:
    """The rows that were logged."""
    rows = [r.history.item for r in records(path) if r.WhichOneof("record_type") == "history"]
    return [{".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items} for items in rows]


def config(path: Path) -> dict:
    """The configuration of the run."""
    run = next(r.run for r in records(path) if r.WhichOneof("record_type") == "run")
    return {i.key: json.loads(i.value_json) for i in run.config.update}


def axes(path: Path) -> dict:
    """The step axis of each measurement that was declared with one."""
    metrics = [r.metric for r in records(path) if r.WhichOneof("record_type") == "metric"]
    return {metric.name: metric.step_metric for metric in metrics if metric.step_metric}
