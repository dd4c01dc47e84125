"""A release read with pyarrow and faiss alone, without nightrec: ``python examples/plain_reader.py ROOT USER``."""

import hashlib
import json
import sys
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def read(path: Path, sha256: str) -> bytes:
    """Read a file whose bytes must be those that were written."""
    content = path.read_bytes()
    return content if hashlib.sha256(content).hexdigest() == sha256 else sys.exit(f"{path}: its bytes were changed")


root, user = Path(sys.argv[1]), sys.argv[2]
pointer = json.loads((root / "LATEST").read_bytes())
folder = root / "releases" / pointer["version"]
manifest = json.loads(read(folder / "manifest.json", pointer["manifest_sha256"]))
if pointer["format"] != 1 or manifest["format"] != 1:
    sys.exit(f"{folder}: expected format 1")
files = {name: read(folder / name, said["sha256"]) for name, said in manifest["files"].items()}
tables = {name: pa.ipc.open_file(content).read_all() for name, content in files.items() if name.endswith(".arrow")}
scores, interests = (
    pa.concat_tables(table for name, table in tables.items() if name.startswith(kind))
    for kind in ("scores", "interests")
)
user_id = pa.scalar(user).cast(scores["user_id"].type)
print(json.dumps(scores.filter(pc.equal(scores["user_id"], user_id)).to_pylist()))  # best first

index = faiss.deserialize_index(np.frombuffer(files["index/ivf.faiss"], np.uint8))  # its nprobe is stored in it
items = tables["index/items.arrow"]["item_id"]
append = json.loads(files["index/index.json"]).get("append", [])  # where popularity counts: its weight, then zeros
vectors = pc.list_flatten(interests.filter(pc.equal(interests["user_id"], user_id))["vectors"]).to_pylist()
for vector in vectors:  # what the index finds for each interest of the user, who may have had it
    (found,), (rows,) = index.search(np.array([[*vector, *append]], np.float32), 5)
    print(
        json.dumps(
            [[items[int(row)].as_py(), float(score)] for row, score in zip(rows, found, strict=True) if row >= 0]
        )
    )
