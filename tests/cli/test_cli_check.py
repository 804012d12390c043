"""``dfmeta check`` at the command line. The verb is registered by :mod:`dfmeta.cli.app`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from dfmeta import students
from dfmeta.cli.check import check
from dfmeta.export import export_student, targets
from dfmeta.schema import v1


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "student.onnx"
    image = v1.Input(name="image", dtype="float32", shape=["n", 1, 8, 8])
    module = students.build("tiny8", (1, 8, 8), 10, seed=1)
    path.write_bytes(export_student(module, image, "logits", provenance={}))
    return path


def test_it_fits(student: Path, command: Callable[..., Any]) -> None:
    done = command("check", student, "--target", "esp-dl", "--ram", "256K", "--flash", "1M")
    assert (done.code, done.err) == (0, "")
    assert all(word in done.out for word in ("fits", "MACs", "23,680", "of 262,144 B", "of 1,048,576 B", "temporaries"))


def test_it_does_not_fit(student: Path, command: Callable[..., Any]) -> None:
    done = command("check", student, "--target", "cortex-m", "--ram", "1K")
    assert done.code == 1
    words = " ".join(done.out.split())
    assert "does not fit: 2 violations" in words
    assert "found a float model" in words
    assert "https://st.com/" in words
    assert "expected at most 1024" in words


def test_the_same_facts_as_json(student: Path, command: Callable[..., Any]) -> None:
    done = command("check", student, "--target", "cortex-m", "--board", "stm32l4r5", "--json")
    assert done.code == 1
    found = done.json
    assert found["model"] == str(student)
    assert (found["fits"], found["ram"], found["flash"]) == (False, 655_360, 2_097_152)
    assert found["costs"]["macs"] == 23_680
    (one,) = found["violations"]
    assert {"rule", "where", "found", "expected", "fix", "source", "advice"} == set(one)
    assert {"title", "url", "version", "date", "evidence"} == set(one["source"])


def test_the_code_of_generated_c_counts_against_flash(student: Path, command: Callable[..., Any]) -> None:
    words = ("check", student, "--target", "c-codegen")
    costs = command(*words, "--json").json["costs"]
    assert costs["flash_bytes"] == costs["constant_bytes"] + costs["code_bytes"]
    table = " ".join(command(*words).out.split())
    assert f"constants {costs['constant_bytes']:,} B" in table
    assert f"code {costs['code_bytes']:,} B, predicted for a core with a floating-point unit" in table
    assert f"flash {costs['flash_bytes']:,} B" in table
    found = command(*words, "--flash", costs["flash_bytes"], "--no-fpu", "--json").json
    assert (found["fpu"], found["costs"]["code_bytes"]) == (False, costs["code_bytes"] + 1200)
    (one,) = [one for one in found["violations"] if one["rule"] == "flash"]
    assert one["found"].endswith(f"{costs['constant_bytes']} of constants and {costs['code_bytes'] + 1200} of code")


def test_code_is_not_predicted_for_other_targets(student: Path, command: Callable[..., Any]) -> None:
    words = ("check", student, "--target", "esp-dl")
    costs = command(*words, "--json").json["costs"]
    assert (costs["code_bytes"], costs["flash_bytes"]) == (None, costs["constant_bytes"])
    assert "not predicted for this target" in command(*words).out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--target", "cortex-n"), 2, "Did you mean 'cortex-m'?"),
        (("--target", "esp-dl", "--board", "esp32-p4"), 2, "esp32-s3"),
        (("--target", "esp-dl", "--ram", "lots"), 2, "256K"),
        (("--target", "esp-dl", "--flash", "0"), 2, "256K"),
        (("--target", "cortex-m", "--no-fpu"), 2, "c-codegen"),
        ((), 2, "--target"),
    ],
    ids=str,
)
def test_wrong_use(options: tuple[str, ...], code: int, said: str, student: Path, command: Callable[..., Any]) -> None:
    done = command("check", student, *options)
    assert done.code == code
    assert said in done.err
    assert "Traceback" not in done.err


def test_no_model_there(command: Callable[..., Any], tmp_path: Path) -> None:
    done = command("check", tmp_path / "none.onnx", "--target", "cortex-m")
    assert done.code == 1
    assert "none.onnx" in done.err


def test_the_help_names_what_there_is() -> None:
    """It is written out so that help needs no profile to be read."""
    hints = get_type_hints(check, include_extras=True).values()
    words = " ".join(str(each.help) for hint in hints for each in getattr(hint, "__metadata__", ()))
    boards = {board.name for name in targets.names() for board in targets.load(name).boards}
    assert all(name in words for name in (*targets.names(), *boards))
