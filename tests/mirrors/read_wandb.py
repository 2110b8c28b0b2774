"""Prints what a file of W&B's says, by W&B's own messages: ``read_wandb.py FILE``.

The file is a log of LevelDB's (https://github.com/google/leveldb/blob/main/doc/log_format.md) after a header of seven
bytes; W&B's own reader is not in Python.
"""

import json
import sys
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7


def records(data):
    """Every message, put together where it goes over blocks."""
    at, whole = HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(whole)
            whole = b""


def values(items):
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


said = {"config": {}, "history": [], "summary": {}, "tags": [], "exit": None, "host": "", "id": "", "others": []}
for record in records(Path(sys.argv[1]).read_bytes()):
    kind = record.WhichOneof("record_type")
    if kind == "run":
        said["config"] |= values(record.run.config.update)
        said |= {"tags": list(record.run.tags), "host": record.run.host, "id": record.run.run_id}
    elif kind == "config":
        said["config"] |= values(record.config.update)
    elif kind == "history":
        said["history"].append(values(record.history.item) | {"_step": record.history.step.num})
    elif kind == "summary":
        said["summary"] |= values(record.summary.update)
    elif kind == "exit":
        said["exit"] = record.exit.exit_code
    else:
        said["others"].append(kind)
print(json.dumps(said))
