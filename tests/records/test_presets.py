"""Which records a preset asks of a graph, and which values can be sites."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dfmeta.errors import GraphError, UnknownName
from dfmeta.graph.export_torch import export_module
from dfmeta.records import DEFAULT_RANK, PRESETS, find_sites, make_plan


def plans(graph, *presets, **options):
    return {(p.site.value, p.kind, p.by_class, p.features) for p in make_plan(graph, presets, **options)}


def everywhere(graph, kind):
    return {(site.value, kind, True, "flattened") for site in find_sites(graph)["all"]}


def test_the_sites_of_a_convolutional_network(digits_teacher):
    sites = find_sites(digits_teacher)
    assert [site.value for site in sites["inputs"]] == ["image"]
    assert [site.value for site in sites["top"]] == ["logits"]
    shapes = [site.shape for site in sites["all"]]
    assert shapes == [("batch", 1, 8, 8), ("batch", 8, 8, 8), ("batch", 16, 4, 4), ("batch", 10)]
    assert [site.feature_axis for site in sites["all"]] == [1, 1, 1, 1]
    assert len({site.id for site in sites["all"]}) == 4


def test_top_layer(digits_teacher):
    assert plans(digits_teacher, "top-layer") == {
        ("logits", "moments", True, "flattened"),
        ("logits", "spectrum", True, "flattened"),
        ("image", "moments", False, "channel"),
    }


def test_a_preset_at_one_site(digits_teacher):
    image = ("image", "spectrum", True, "flattened")
    assert plans(digits_teacher, "spectral@image") == {image}
    both = plans(digits_teacher, "calibration", "spectral@image")
    assert both == plans(digits_teacher, "calibration") | {image}
    assert plans(digits_teacher, "spectral@image", "spectral") == everywhere(digits_teacher, "spectrum")
    with pytest.raises(UnknownName, match="site: found 'nowhere'"):
        make_plan(digits_teacher, ["spectral@nowhere"])
    with pytest.raises(UnknownName, match=r"preset: found 'spectra'.*'spectral'"):
        make_plan(digits_teacher, ["spectra@image"])


def test_all_layers_and_spectral(digits_teacher):
    assert plans(digits_teacher, "all-layers") == everywhere(digits_teacher, "moments")
    assert plans(digits_teacher, "spectral") == everywhere(digits_teacher, "spectrum")


def test_presets_together_ask_for_each_record_once(digits_teacher):
    plan = make_plan(digits_teacher, [*PRESETS, *PRESETS])
    keys = [entry.identity for entry in plan]
    assert len(keys) == len(set(keys))
    together = plans(digits_teacher, *PRESETS)
    apart = set().union(*(plans(digits_teacher, preset) for preset in PRESETS))
    # Where one preset asks for classes and another one does not, the record by class is made of the same sums.
    assert together == {each for each in apart if each[2] or (*each[:2], True, each[3]) not in apart}


def test_a_record_of_each_class_covers_one_over_all_units(build):
    graph = build([("Gemm", "x w", "y")], {"x": ("float32", ["batch", 4])}, ("y", ["batch", 3]), {"w": (4, 3)})
    for presets in (["top-layer", "all-layers"], ["all-layers", "top-layer"]):
        grouped = {(p.site.value, p.kind, p.features): p.by_class for p in make_plan(graph, presets)}
        assert grouped["y", "moments", "flattened"] is True


def test_the_rank_is_that_asked_for_or_the_number_of_features(digits_teacher):
    ranks = {p.site.value: p.configuration["rank"] for p in make_plan(digits_teacher, ["spectral"])}
    assert ranks.pop("logits") == 10
    assert set(ranks.values()) == {DEFAULT_RANK}
    assert {p.configuration["rank"] for p in make_plan(digits_teacher, ["spectral"], rank=3)} == {3}
    assert {len(p.configuration) for p in make_plan(digits_teacher, ["all-layers"])} == {0}


@pytest.mark.parametrize(("side", "features"), [(37, "channel"), (36, "flattened")])
def test_a_large_feature_map_is_recorded_by_channels(build, side, features):
    """3 x 37 x 37 is over the limit of 4,096 features, 3 x 36 x 36 is not."""
    graph = build(
        [("Conv", "x w", "c"), ("GlobalAveragePool", "c", "p"), ("Flatten", "p", "f"), ("Gemm", "f v", "y")],
        {"x": ("float32", ["batch", 3, side, side])},
        ("y", ["batch", 2]),
        {"w": (3, 3, 1, 1), "v": (3, 2)},
    )
    found = {p.site.value: p for p in make_plan(graph, ["spectral"])}
    assert {name: p.features for name, p in found.items()} == {"x": features, "c": features, "y": "flattened"}
    assert found["c"].feature_count == (3 if features == "channel" else 3 * 36 * 36)
    assert found["c"].configuration["rank"] == min(DEFAULT_RANK, found["c"].feature_count)
    assert found["y"].configuration["rank"] == 2


def test_an_unknown_preset(digits_teacher):
    with pytest.raises(UnknownName, match="Did you mean 'all-layers'") as caught:
        make_plan(digits_teacher, ["top-layer", "all-layer"])
    assert caught.value.known == tuple(sorted(PRESETS))


class Encoder(nn.Module):
    """A transformer encoder layer over ``[n, 5, 8]``; inside, torch may put the sequence first."""

    def __init__(self, batch_first: bool, pooled: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)
        self.batch_first, self.pooled = batch_first, pooled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.encoder(x if self.batch_first else x.transpose(0, 1))
        if self.pooled:
            return self.head(found.mean(1 if self.batch_first else 0))
        return self.head(found)


def encoder(batch_first: bool, pooled: bool, dynamic: bool):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Encoder(batch_first, pooled).eval()
    names = {"input_names": ["x"], "output_names": ["y"]}
    return export_module(module, (torch.zeros(1, 5, 8),), **names, dynamic_batch=dynamic, keep_batchnorm=True)


@pytest.mark.parametrize("dynamic", [True, False], ids=["free batch", "batch of one"])
def test_values_without_the_batch_first_are_no_sites(dynamic):
    graph = encoder(batch_first=False, pooled=True, dynamic=dynamic)
    assert [(site.value, site.shape) for site in find_sites(graph)["all"]] == [
        ("x", ("batch", 5, 8)),
        ("y", ("batch", 3)),
    ]
    graph = encoder(batch_first=True, pooled=True, dynamic=dynamic)
    shapes = [site.shape for site in find_sites(graph)["all"]]
    # The attention inside is still sequence-first, or has batch and positions in one axis.
    assert shapes == [("batch", 5, 8), ("batch", 5, 16), ("batch", 5, 8), ("batch", 3)]


def test_no_site_left(build):
    graph = build(
        [("MatMul", "x w", "m"), ("Transpose", "m", "y")],
        {"x": ("float32", ["batch", 4])},
        ("y", [3, "batch"]),
        {"w": (4, 3)},
    )
    assert plans(graph, "all-layers") == {("x", "moments", True, "flattened"), ("m", "moments", True, "flattened")}
    with pytest.raises(GraphError, match=r"preset 'top-layer'.*batch as its axis 0.*batch_first=True"):
        make_plan(graph, ["top-layer"])


def test_an_axis_that_only_happens_to_be_as_long_as_the_batch(build):
    """Two positions first, whatever the batch: a look at two units alone would take them for the batch."""
    graph = build(
        [("Transpose", "x", "t"), ("MatMul", "w t", "y")],
        {"x": ("float32", ["batch", 4, 2])},
        ("y", [2, 3, "batch"]),
        {"w": (3, 4)},
    )
    assert [site.value for site in find_sites(graph)["all"]] == ["x"]


def test_a_size_that_is_not_known(build):
    ids = {"ids": ("int64", ["batch", "words"])}
    with pytest.raises(GraphError, match=r"'ids'.*\['batch', 'words'\].*sizes that are all known"):
        find_sites(build([("Gather", "table ids", "e")], ids, ("e", ["batch", "words", 6]), {"table": (30, 6)}))


def test_an_output_without_features(build):
    graph = build([("MatMul", "x w", "y")], {"x": ("float32", ["batch", 4])}, ("y", ["batch"]), {"w": (4,)})
    with pytest.raises(GraphError, match="an axis of features"):
        find_sites(graph)


def test_only_the_chosen_sites(digits_teacher):
    everything = make_plan(digits_teacher, ["all-layers", "spectral"])
    first, last = everything[1].site, everything[-1].site
    chosen = make_plan(digits_teacher, ["all-layers", "spectral"], at=[first.label, last.value])
    assert chosen == tuple(plan for plan in everything if plan.site in (first, last))
    assert {plan.kind for plan in chosen} == {"moments", "spectrum"}


def test_a_site_that_is_not_there(digits_teacher):
    with pytest.raises(UnknownName, match="Did you mean 'logits'"):
        make_plan(digits_teacher, ["all-layers"], at=["logit"])
