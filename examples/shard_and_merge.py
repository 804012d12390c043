"""Record over data that lies in several places, as a map and a reduce of plain processes.

    python examples/shard_and_merge.py --out release

Map: each worker records its own part into a shard: everything that was gathered, in float64, for nobody else to see.
Reduce: the shards are added up, and the sum is published. The result is that of one pass over all the data.

Engines do the same with these two functions, and need no more of dfmeta than that each task can write a folder:

* Spark: ``spark.sparkContext.parallelize(range(1, n + 1), n).foreach(record_part)``, then ``merge`` on the driver;
* Ray: ``ray.get([ray.remote(record_part).remote(i) for i in range(1, n + 1)])``, then ``merge``;
* Slurm, Kubernetes, batch jobs: ``dfmeta record --shard part-$I --part $I/$N ... --out shards/part-$I`` in an array of
  N jobs, then ``dfmeta merge shards/* --out release`` in a job that waits for them. A job that may be killed adds
  ``--checkpoint scratch/part-$I`` and is simply started again.

Where every worker has data of its own (hospitals, say), each leaves ``--part`` out and names its own ``--data``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import dfmeta
from dfmeta.data import from_flags
from dfmeta.pipeline import Gathering, merge_into_shard

MODEL = Path(__file__).parent / "digits-cnn.onnx"
# The same in every worker: shards of different graphs, preprocessing or batches are refused.
GATHERING = Gathering(presets=("all-layers",), preprocessing=from_flags(scale=1 / 255), batch_size=128)


def record_part(number: int, parts: int, folder: Path) -> Path:
    """Map: the ``number``-th of so many parts of the training digits, as a shard."""
    name = f"part-{number}"
    graph = dfmeta.Graph.from_file(MODEL)
    part = (number, parts)
    return dfmeta.record_shard(graph, "digits:train", folder / name, name=name, gathering=GATHERING, part=part).path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder to make")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # Workers are started afresh: a copy of a process that already runs threads is not safe.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
            work = partial(record_part, parts=options.parts, folder=folder)
            shards = list(pool.map(work, range(1, options.parts + 1)))
        # Reduce, as one step of a tree: a shard of shards. With thousands of them, each rack would make one.
        first = merge_into_shard(shards[::2], folder / "even", name="even")
        second = merge_into_shard(shards[1::2], folder / "odd", name="odd")
        print(f"shards: {len(shards)}, of {first.units} and {second.units} units on two branches")
        release = dfmeta.merge([first.path, second.path], options.out)
    print(f"{release.path}: {release.records} records over {release.units} units")
    print(f"valid: {dfmeta.validate(release.path).valid}")


if __name__ == "__main__":
    main()
