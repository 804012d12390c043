"""Record how often each channel is zero, at the input of the digits model, and publish it.

python examples/sparsity/record.py --out release
"""

from __future__ import annotations

import argparse
from pathlib import Path

import dfmeta
from dfmeta.bundle import Bundle
from dfmeta.data import feed, from_flags, open_data
from dfmeta.pipeline import Release, graph_inputs
from dfmeta.records import RecordPlan, find_sites

MODEL = Path(__file__).resolve().parents[1] / "digits-cnn.onnx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="the bundle's folder")
    options = parser.parse_args()
    graph = dfmeta.Graph.from_file(MODEL)
    inputs = graph_inputs(graph, from_flags(scale=1 / 255))
    plan = [RecordPlan(site, "sparsity", by_class=True, features="channel") for site in find_sites(graph)["inputs"]]
    with dfmeta.Recorder(graph, plan, classes=10) as recorder:
        for batch in feed(open_data("digits:train"), inputs, 256):
            recorder.update(batch.inputs, batch.labels)
    about = Release(name="digits-cnn", dataset="scikit-learn digits")
    dfmeta.publish(options.out, graph, recorder.finish(), inputs=inputs, release=about, classes=10)
    bundle = Bundle.open(options.out)
    pooled = bundle.record_tensors(bundle.manifest.records[0].id)
    share = pooled["zeros"].sum() / (pooled["count"] * pooled["zeros"].size)
    print(f"{share:.1%} of all pixels are zero")


if __name__ == "__main__":
    main()
