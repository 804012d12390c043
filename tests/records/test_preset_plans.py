"""What `spectral-pairs` and `calibration` ask of real graphs, and which sites follow each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dfmeta.errors import DataError, UnknownName
from dfmeta.graph import Graph
from dfmeta.graph.export_torch import export_module
from dfmeta.records import Gathered, RecordPlan, SitePlan, find_sites, make_plan
from dfmeta.records.budget import fit_memory
from dfmeta.records.plan import peak_bytes
from dfmeta.records.sites import left_out, neighbours


class Attention(nn.Module):
    """Self-attention over ``[n, 5, 8]``, position by position, that keeps the batch first; then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.head = nn.Linear(40, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part(x).unflatten(2, (2, 4)).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = torch.softmax(q @ k.transpose(2, 3) / 2, 3) @ v
        return self.head((x + self.out(mixed.transpose(1, 2).flatten(2))).flatten(1))


@pytest.fixture(scope="module")
def attention() -> Graph:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Attention().eval()
    names = {"input_names": ["x"], "output_names": ["y"]}
    return export_module(module, (torch.zeros(2, 5, 8),), **names, dynamic_batch=True, keep_batchnorm=True)


def pairs(graph):
    """Places in ``all`` of the sites that follow each other."""
    sites = find_sites(graph)["all"]
    return [(sites.index(before), sites.index(after)) for before, after in neighbours(graph, sites)]


def test_neighbours_in_a_chain(lenet, digits_teacher):
    assert pairs(lenet) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert pairs(digits_teacher) == [(0, 1), (1, 2), (2, 3)]


def test_neighbours_across_residual_blocks_are_the_last_layers(resnet):
    """A shortcut leads back to every block before; of those, only the nearest layer is a neighbour."""
    assert pairs(resnet) == [(place, place + 1) for place in range(20)]


def test_neighbours_in_attention(attention):
    """x, q, k, v, out, y: the output projection follows three sites, the head x by way of them only."""
    assert len(find_sites(attention)["all"]) == 6
    assert pairs(attention) == [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (4, 5)]


def test_neighbours_where_paths_part(build):
    graph = build(
        [("Gemm", "x v", "a"), ("Gemm", "x w", "b"), ("Add", "a b", "c"), ("Gemm", "c w", "d"), ("Add", "d a", "y")],
        {"x": ("float32", ["batch", 4])},
        ("y", ["batch", 4]),
        {"v": (4, 4), "w": (4, 4)},
    )
    sites = [site.value for site in find_sites(graph)["all"]]
    assert [(sites[before], sites[after]) for before, after in pairs(graph)] == [
        ("x", "a"),
        ("x", "b"),
        ("a", "d"),
        ("b", "d"),
        ("d", "y"),
    ]


def test_a_shape_is_no_path(build):
    graph = build(
        [("Gemm", "x v", "a"), ("Shape", "a", "s"), ("Reshape", "z s", "r"), ("Gemm", "r v", "y")],
        {"x": ("float32", ["batch", 4]), "z": ("float32", ["batch", 4])},
        ("y", ["batch", 4]),
        {"v": (4, 4)},
    )
    sites = [site.value for site in find_sites(graph)["all"]]
    assert [(sites[before], sites[after]) for before, after in pairs(graph)] == [("x", "a"), ("z", "y")]


def test_inputs_that_are_left_out_say_why(build, lenet):
    graph = build(
        [
            ("Gemm", "x v", "a"),
            ("Transpose", "a", "t"),
            ("MatMul", "u t", "m"),
            ("Transpose", "m", "y"),
        ],
        {"x": ("float32", ["batch", 4])},
        ("y", ["batch", 2]),
        {"v": (4, 3), "u": (2, 3)},
    )
    assert [site.value for site in find_sites(graph)["operator-inputs"]] == ["x"]
    assert [label for label, _ in left_out(graph)] == ["the m"]
    assert "batch" in dict(left_out(graph))["the m"]
    assert left_out(lenet) == ()


def test_spectral_pairs(lenet):
    plan = make_plan(lenet, ["spectral-pairs"])
    assert plan[:6] == make_plan(lenet, ["spectral"])
    assert {entry.kind for entry in plan[6:]} == {"cross-spectrum"}
    assert all(entry.by_class and entry.features == "flattened" for entry in plan[6:])
    assert [entry.configuration for entry in plan[6:]] == [
        {"rank": 32, "paired_feature_count": 6 * 28 * 28},
        {"rank": 32, "paired_feature_count": 16 * 10 * 10},
        {"rank": 32, "paired_feature_count": 120},
        {"rank": 32, "paired_feature_count": 84},
        {"rank": 10, "paired_feature_count": 10},
    ]


def test_what_is_too_large_for_a_covariance_is_sketched(lenet, resnet):
    found = [entry.configuration for entry in make_plan(resnet, ["spectral-pairs"]) if entry.paired]
    # 3,072 to 16,384 features with more than 4,096; then 4,096 with 4,096, which still fit.
    assert found[0] == {"rank": 32, "paired_feature_count": 16384, "sketch": 128}
    assert [("sketch" in each) for each in found] == [True] * 14 + [False] * 6
    flattened = {p.site.label: p for p in make_plan(lenet, ["spectral"], rank=5, features="flattened")}
    assert flattened["conv1"].configuration == {"rank": 5, "sketch": 20}
    assert flattened["conv2"].configuration == {"rank": 5}
    channels = make_plan(lenet, ["spectral", "all-layers"], features="channel")
    assert {p.features for p in channels if len(p.site.shape) == 4} == {"channel"}


def test_calibration_of_a_convolutional_network(lenet):
    plan = make_plan(lenet, ["calibration"])
    moments = {entry.site.label: entry for entry in plan if entry.kind == "second-moment"}
    assert list(moments) == ["input", "input of conv2", "input of fc1", "input of fc2", "input of out"]
    window = {"kernel": [5, 5], "strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0], "groups": 1}
    for name, count in (("input", 25), ("input of conv2", 150)):
        assert moments[name].features == "patch"
        assert moments[name].feature_count == count
        assert moments[name].configuration == {"form": "toeplitz", "storage": "float32", **window}
    for name, count in (("input of fc1", 400), ("input of fc2", 120), ("input of out", 84)):
        assert (moments[name].features, moments[name].feature_count) == ("flattened", count)
        assert moments[name].configuration == {"form": "full", "storage": "float32"}
    histograms = [entry.site.label for entry in plan if entry.kind == "histogram"]
    outputs = ["conv1", "conv2", "fc1", "fc2", "out"]
    assert sorted(histograms) == sorted({*moments, *outputs})
    assert [entry.site.label for entry in plan if entry.kind == "moments"] == outputs
    assert not any(entry.by_class for entry in plan)
    assert {entry.gathered_by_class for entry in plan if entry.kind != "moments"} == {False}
    Gathered(plan, classes=10)


def test_what_several_operators_read_is_recorded_once(attention):
    plan = make_plan(attention, ["calibration"])
    moments = [entry for entry in plan if entry.kind == "second-moment"]
    assert [(entry.features, entry.feature_count) for entry in moments] == [
        ("channel", 8),
        ("channel", 8),
        ("flattened", 40),
    ]
    assert moments[0].site.value == "x"
    assert moments[0].site.label.endswith(" and 2 more")
    # The graph's input has its channels on axis 1 for others; this one is read along axis 2. Its range is the same.
    assert moments[0].site.feature_axis == 2
    assert [entry.site.value for entry in plan if entry.kind == "histogram"].count("x") == 1
    Gathered(plan)


def test_convolutions_that_unfold_one_value_differently(build):
    graph = build(
        [
            ("Conv", "x v", "a"),
            ("Conv", "x w", "b"),
            ("Conv", "x u", "c"),
            *((("GlobalAveragePool", one, f"p{one}")) for one in "abc"),
            ("Sum", "pa pb pc", "s"),
            ("Flatten", "s", "y"),
        ],
        {"x": ("float32", ["batch", 3, 8, 8])},
        ("y", ["batch", 2]),
        {"v": (2, 3, 3, 3), "w": (2, 3, 1, 1), "u": (2, 3, 3, 3)},
    )
    moments = [p for p in make_plan(graph, ["calibration"]) if p.kind == "second-moment"]
    assert [(p.site.value, p.configuration["kernel"], p.configuration["form"]) for p in moments] == [
        ("x", [3, 3], "toeplitz"),
        ("x", [1, 1], "full"),
    ]


@pytest.mark.parametrize("form", ["full", "toeplitz", "kronecker", "diagonal"])
@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_forms_and_storages_that_were_asked_for(lenet, form, storage):
    moments = [p for p in make_plan(lenet, ["calibration"], form=form, storage=storage) if p.kind == "second-moment"]
    patches = {(p.configuration["form"], p.configuration["storage"]) for p in moments if p.features == "patch"}
    others = {(p.configuration["form"], p.configuration["storage"]) for p in moments if p.features != "patch"}
    assert patches == {(form, "float32" if form == "diagonal" else storage)}
    assert others == ({("diagonal", "float32")} if form == "diagonal" else {("full", storage)})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"form": "ful"}, "Did you mean 'full'"),
        ({"storage": "int4"}, "Did you mean 'int8'"),
        ({"features": "channels"}, "Did you mean 'channel'"),
    ],
)
def test_options_that_there_are_not(lenet, options, text):
    with pytest.raises(UnknownName, match=text):
        make_plan(lenet, ["calibration"], **options)


def test_a_rank_below_one(lenet):
    with pytest.raises(DataError, match="rank: found 0, expected at least 1"):
        make_plan(lenet, ["spectral"], rank=0)


def test_ids_of_the_old_presets_stay_as_they_are(lenet):
    sites = find_sites(lenet)
    assert [site.id for site in sites["all"]] == [f"s{number:04d}" for number in range(6)]
    further = [site for site in sites["operator-inputs"] if site not in sites["all"]]
    assert [site.id for site in further] == [f"s{number:04d}" for number in range(6, 10)]
    assert sites["every"] == (*sites["all"], *further)
    assert sites["operator-outputs"] == sites["all"][1:]


def test_pairs_need_both_of_their_sites(lenet):
    plan = make_plan(lenet, ["spectral-pairs"], at=["conv2", "fc1"])
    assert [[site.label for site in entry.sites] for entry in plan] == [["conv2"], ["fc1"], ["conv2", "fc1"]]


def site(features):
    return SitePlan("s0000", "x", "x", "float32", ("batch", features), 1)


def spectrum(features, **configuration):
    return RecordPlan(site(features), "spectrum", True, "flattened", {"rank": 4, **configuration})


def sketched(entry):
    return RecordPlan(entry.site, entry.kind, True, "flattened", {**entry.configuration, "sketch": 16})


def test_the_largest_covariances_become_sketches_until_memory_suffices():
    plan = [spectrum(500), spectrum(2000), spectrum(20), spectrum(1000)]
    assert fit_memory(plan, 10, peak_bytes(plan, 10), sketched) == tuple(plan)
    one = [plan[0], sketched(plan[1]), *plan[2:]]
    assert fit_memory(plan, 10, peak_bytes(plan, 10) - 1, sketched) == tuple(one)
    assert fit_memory(plan, 10, peak_bytes(one, 10) - 1, sketched) == (*one[:3], sketched(plan[3]))
    # A sketch of the smallest would be larger than the whole of it; and what cannot fit is the recorder's to refuse.
    assert fit_memory(plan, 10, 0, sketched) == (sketched(plan[0]), sketched(plan[1]), plan[2], sketched(plan[3]))


def test_a_network_too_wide_for_its_classes(resnet):
    limit = 12 * 2**30
    plan = make_plan(resnet, ["spectral-pairs"], classes=10, memory_limit=limit)
    assert peak_bytes(plan, 10) <= limit < peak_bytes(make_plan(resnet, ["spectral-pairs"]), 10)
