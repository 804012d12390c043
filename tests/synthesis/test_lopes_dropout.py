"""`lopes:all-layers-dropout`: what is dropped, and what remains."""

from __future__ import annotations

import pytest
import torch

from dfmeta.synthesis import build
from dfmeta.synthesis._dropped_units import DroppedUnits, mask_name


def test_with_nothing_dropped_it_is_all_layers(image_task):
    settings = {"images": "20", "iterations": "4"}
    kept = {**settings, "drop_input": "0", "drop_hidden": "0"}
    losses = [
        build(f"lopes:{name}", image_task(0), given).advance()
        for name, given in (("all-layers", settings), ("all-layers-dropout", settings), ("all-layers-dropout", kept))
    ]
    # Drawing masks moves the seed on, so that the starting noise differs: the same descent from elsewhere.
    assert losses[2] == pytest.approx(losses[0], rel=0.2)
    assert losses[1] > 1.2 * losses[0]


def test_masks_stand_before_each_weight_operator(image_task, digits, digits_network):
    """Against torch's own modules, one after the other."""
    task, images = image_task(0), digits[0][:5]
    dropped = DroppedUnits(task, 0.2, 0.5)
    masks = dropped.masks(5)
    assert len(masks) == 3
    layers = list(digits_network)
    names = [name for name in masks if name != mask_name("image")]
    value = layers[0](images * masks[mask_name("image")])
    for layer in layers[1:4]:
        value = layer(value)
    value = layers[4](value * masks[names[0]])
    for layer in layers[5:9]:
        value = layer(value)
    wanted = layers[9](value * masks[names[1]])
    with torch.no_grad():
        found = dropped.values(images, ["logits"], masks)["logits"]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        ones = {name: torch.ones_like(mask) for name, mask in masks.items()}
        torch.testing.assert_close(dropped.values(images, ["logits"], ones)["logits"], task.logits(images))


@pytest.mark.parametrize(("drop", "mean"), [(0.0, 1.0), (0.3, 1.0), (1.0, 0.0)])
def test_masks_keep_sums_on_average(image_task, drop, mean):
    masks = DroppedUnits(image_task(0), drop, drop).masks(400)
    for mask in masks.values():
        assert float(mask.mean()) == pytest.approx(mean, abs=0.03)
        assert float((mask == 0).float().mean()) == pytest.approx(drop, abs=0.02)


def test_when_everything_is_dropped_nothing_breaks(image_task):
    settings = {"images": "20", "iterations": "3", "drop_input": "1", "drop_hidden": "1"}
    assert build("lopes:all-layers-dropout", image_task(0), settings).advance() > 0
