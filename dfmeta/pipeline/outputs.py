"""Whether an output path is free, and what is there if it is not."""

from __future__ import annotations

import os.path
from pathlib import Path

from dfmeta.bundle import Bundle
from dfmeta.errors import DfmetaError, OutputExists
from dfmeta.records.shard_checkpoint import checkpoints_at
from dfmeta.records.shard_files import read_document
from dfmeta.schema import SHARD_NAME


def require_free(out: str | Path, checkpoint: str | Path | None = None) -> None:
    """Refuse a path that is taken.

    Args:
        out: where a bundle or a shard is to be written.
        checkpoint: the folder in which its making is kept. A process that is killed after the last step of the work,
            and before the checkpoint is taken away, leaves both; who starts it again is told so.

    Raises:
        OutputExists: something is there.
    """
    if not os.path.lexists(out):
        return
    left = checkpoints_at(checkpoint) if checkpoint is not None else []
    made = _whole(Path(out)) if left else None
    if made is None:
        raise OutputExists(out)
    folders = ", ".join(map(str, left))
    fix = (
        f"If it is this command's, the work is done: remove the checkpoint ({folders}). If it is not, choose another "
        "output path."
    )
    raise OutputExists(out, f"a complete {made}, and a checkpoint beside it", fix)


def _whole(path: Path) -> str | None:
    """What lies there whole: what names its files is written last."""
    try:
        Bundle.open(path)
    except DfmetaError:
        pass
    else:
        return "bundle"
    try:
        read_document(path, SHARD_NAME)
    except DfmetaError:
        return None
    return "shard"
