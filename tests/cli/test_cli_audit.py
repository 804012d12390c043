"""``dfmeta audit``: what it prints, what it draws, and how it leaves."""

from __future__ import annotations

import pytest

LIMIT = 60


@pytest.fixture(scope="module")
def leaky(command, publisher):
    """A bundle over sixty units: six to a class."""
    model = ("--model", "dfmeta_test_teacher:teacher", "--weights", publisher / "weights.safetensors")
    small = ("--limit", LIMIT, "--min-units", 1, "--preset", "all-layers")
    made = command("record", *model, "--data", "digits:train", "--scale", "1/255", *small, "--out", publisher / "leaky")
    assert made.code == 0, made.err
    return publisher / "leaky"


def sets(members="digits:train", others="digits:test"):
    return ("--members", members, "--non-members", others)


def test_an_alarm_leaves_with_1_and_one_json_document(command, leaky, tmp_path):
    plot = tmp_path / "roc.png"
    found = command("audit", leaky, *sets(), "--limit", LIMIT, "--plot", plot, "--json")
    assert found.code == 1, found.err
    facts = found.json
    assert facts["alarm"] is True
    assert facts["members"] == LIMIT
    assert "curves" not in facts
    assert facts["plot"] == str(plot)
    (best,) = facts["best"]
    assert best["kind"] == "moments"
    assert best["area"] > 0.8
    assert best["alarm"]
    assert "0.6" in facts["rule"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_table_for_people(command, leaky):
    found = command("audit", leaky, *sets(), "--limit", LIMIT, "--record", "moments")
    assert found.code == 1
    for text in ("alarm: the records give members away", "AUC", "TPR at 1 % FPR", "likelihood-ratio", "60 members"):
        assert text in found.out, text


def test_no_alarm_leaves_with_0(command, release):
    found = command("audit", release, *sets(), "--record", "r0000")
    assert found.code == 0, found.err
    assert "no alarm" in found.out


def test_the_same_curves_are_the_same_bytes(command, leaky, tmp_path):
    for name in ("a.png", "b.png"):
        command("audit", leaky, *sets(), "--limit", LIMIT, "--plot", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_same_set_twice(command, leaky):
    found = command("audit", leaky, *sets("digits:test", "digits:test"))
    assert found.code == 2
    assert "the same units as --non-members" in found.err


def test_a_plot_that_cannot_be_written(command, leaky, tmp_path):
    wrong = command("audit", leaky, *sets(), "--plot", tmp_path / "roc.pdf")
    assert wrong.code == 2
    assert "--plot" in wrong.err
    (tmp_path / "there.png").write_bytes(b"")
    taken = command("audit", leaky, *sets(), "--plot", tmp_path / "there.png")
    assert taken.code == 2
    assert "something already there" in taken.err


def test_an_unknown_record(command, leaky):
    found = command("audit", leaky, *sets(), "--record", "momentz")
    assert found.code == 2
    assert "moments" in found.err
