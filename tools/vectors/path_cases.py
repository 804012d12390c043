"""Where members may lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from vectors.drafts import Case, Draft, cases_of, gone, put
from vectors.manifests import SIDECAR, member, small

_LONG = "/".join(["a" * 83] * 3 + ["b.onnx"])  # 258 bytes
_DEEP = "a/b/c/d/e/f/g/model.onnx"


def _unsafe(id: str, path: str, comment: str, *, seen: bool = True) -> Case:
    schema: Literal["valid", "invalid"] = "invalid" if seen else "valid"
    return Case(id, "paths", "unsafe-path", "2.2", comment, small, change=put("files/0/path", path), schema=schema)


def _with(path: str, role: str = "model.weights") -> Callable[[Draft], None]:
    """One member more."""
    more = member("more", role, path, SIDECAR)
    return lambda draft: draft.manifest["files"].append(more)


def _moved(path: str) -> Callable[[Draft], None]:
    """The graph at another path."""

    def change(draft: Draft) -> None:
        draft.manifest["files"][0]["path"] = path
        draft.members = {path: draft.members["model.onnx"]}

    return change


_invalid, _valid = cases_of("paths", clause="2.2", base=small)

CASES = (
    _unsafe("path-parent", "../model.onnx", "Above the bundle."),
    _unsafe("path-parent-inside", "a/../model.onnx", "Up and down again."),
    _unsafe("path-dot", "./model.onnx", "A dot is no segment."),
    _unsafe("path-absolute", "/etc/model.onnx", "Anywhere."),
    _unsafe("path-home", "~/model.onnx", "Someone's home."),
    _unsafe("path-backslash", "a\\model.onnx", "A separator elsewhere."),
    _unsafe("path-drive", "C:model.onnx", "A drive elsewhere."),
    _unsafe("path-stream", "model.onnx:x.onnx", "A stream elsewhere."),
    _unsafe("path-hidden", ".git/model.onnx", "A hidden folder."),
    _unsafe("path-option", "-model.onnx", "An option to tools."),
    _unsafe("path-space", "my model.onnx", "A space."),
    _unsafe("path-percent", "%2e%2e/model.onnx", "An escape of another grammar."),
    _unsafe("path-nul", "model.onnx\x00.onnx", "A NUL."),
    _unsafe("path-newline", "model\n.onnx", "A line break."),
    _unsafe("path-unicode", "modèle.onnx", "Not ASCII."),
    _unsafe("path-empty", "", "No path."),
    _unsafe("path-double-slash", "a//model.onnx", "An empty segment."),
    _unsafe("path-trailing-slash", "model.onnx/", "A folder."),
    _unsafe("path-nine-segments", f"h/{_DEEP}", "Nine segments."),
    _unsafe("path-long-segment", f"{'a' * 96}.onnx", "101 characters."),
    _unsafe("path-too-long", _LONG, "258 bytes."),
    _unsafe("path-trailing-dot", "a./model.onnx", "A dot at the end, which Windows drops.", seen=False),
    _unsafe("path-device", "nul.onnx", "A device of Windows.", seen=False),
    _unsafe("path-device-folder", "Com1/model.onnx", "A device as a folder, in any case.", seen=False),
    _unsafe("path-manifest", "DFMETA.json", "The manifest's own name.", seen=False),
    _unsafe("path-pickle", "model.pt", "A format that is executed when it is opened.", seen=False),
    _unsafe("path-archive", "model.onnx.zip", "A format that is unpacked when it is opened.", seen=False),
    _unsafe("path-program", "MODEL.PY", "A program, in any case.", seen=False),
    _invalid(
        "path-case-twin",
        code="duplicate-path",
        comment="One file where case is ignored.",
        draft=_with("dfmeta/Records.safetensors"),
        files=gone("dfmeta/Records.safetensors"),
    ),
    _invalid(
        "path-twice",
        code="duplicate-path",
        comment="One file under two ids.",
        draft=_with("dfmeta/records.safetensors"),
    ),
    _invalid(
        "path-inside-file",
        code="duplicate-path",
        comment="A file that would have to be a folder.",
        draft=_with("model.onnx/w.safetensors"),
        files=gone("model.onnx/w.safetensors"),
    ),
    _invalid(
        "wrong-suffix",
        code="wrong-suffix",
        clause="2.1",
        comment="A graph is an .onnx file.",
        draft=_moved("model.onnx2"),
    ),
    _valid(
        "path-at-the-limits",
        comment="Eight segments, one of 100 characters.",
        draft=_moved(f"a/b/c/d/e/f/{'g' * 100}/model.onnx"),
    ),
    _valid(
        "unlisted-files",
        clause="2.1",
        comment="What the manifest does not list is not opened, whatever it is.",
        files=lambda files: files.update({"README.md": b"# Two features\n", "old/model.pt": b"not opened\n"}),
    ),
)
