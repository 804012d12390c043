"""The processes that torchrun started, sharing one pass over the data: each takes a part, the first adds them up.

Small messages always go over gloo, arrays over nccl where each process has a GPU of its own. Parts are added in
the order of the ranks, so that the result does not depend on which of them is done first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from dfmeta.errors import DfmetaError, StepError

DEFAULT_TIMEOUT = 1800.0
_FAILURES = (RuntimeError, ValueError, OSError)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its fellows.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        device: where arrays lie while they travel.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether it is the one that adds up and publishes."""
        return self.rank == 0

    def part(self, batches: int) -> range:
        """The batches that are this process's: contiguous, and all of them together are all batches."""
        return cut(batches, self.rank, self.size)

    def collect(
        self,
        identity: Mapping[str, Any],
        arrays: Callable[[], Mapping[str, np.ndarray]],
        take: Callable[[int, Mapping[str, Any], dict[str, np.ndarray]], None],
    ) -> None:
        """Bring every rank's arrays to the first one.

        Args:
            identity: what this process recorded and how, in JSON types.
            arrays: gives this process's arrays; not called on the first.
            take: called on the first with each other's rank, identity and arrays, in the order of the ranks.

        Raises:
            StepError: a rank that died, or did not answer within the timeout.
        """
        if not self.first:
            with _reported(0):
                self._send_arrays(identity, arrays())
            return
        for rank in range(1, self.size):
            with _reported(rank):
                theirs, received = self._receive_arrays(rank)
            take(rank, theirs, received)

    def share(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``make`` gave on the first rank, on every rank, once it is done there.

        Args:
            make: gives JSON types.

        Raises:
            StepError: the first rank failed, or did not answer within the timeout.
        """
        if not self.first:
            with _reported(0):
                found = _receive_document(0)
            if "failed" in found:
                fix = "See what that process reported."
                raise StepError("rank 0", f"a failure there ({found['failed']})", "the work to be finished", fix)
            return found
        try:
            made = make()
        except DfmetaError as error:
            self._tell({"failed": type(error).__name__})
            raise
        self._tell(made)
        return made

    def _tell(self, document: Mapping[str, Any]) -> None:
        for rank in range(1, self.size):
            with _reported(rank):
                _send_document(document, rank)

    def _send_arrays(self, identity: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        listed = [[name, values.dtype.str, list(values.shape)] for name, values in arrays.items()]
        _send_document({"identity": identity, "arrays": listed}, 0)
        for values in arrays.values():
            if values.size:
                dist.send(torch.from_numpy(np.ascontiguousarray(values).reshape(-1)).to(self.device), 0)

    def _receive_arrays(self, rank: int) -> tuple[Mapping[str, Any], dict[str, np.ndarray]]:
        document = _receive_document(rank)
        found = {}
        for name, dtype, shape in document["arrays"]:
            values = np.zeros(shape, dtype)
            if values.size:
                tensor = torch.from_numpy(values.reshape(-1)).to(self.device)
                dist.recv(tensor, rank)
                values = tensor.cpu().numpy().reshape(shape)
            found[name] = values
        return document["identity"], found


def cut(batches: int, part: int, parts: int) -> range:
    """The ``part``-th (from 0) of so many contiguous runs of whole batches, as even as they can be."""
    return range(batches * part // parts, batches * (part + 1) // parts)


@contextmanager
def open_ranks(distributed: bool, *, timeout: float = DEFAULT_TIMEOUT, device: str = "cpu") -> Iterator[Ranks]:
    """Meet the other processes, and part from them.

    Args:
        distributed: whether there are others: then every process that torchrun started must come here. A process
            group that is there already is used, and left as it is.
        timeout: seconds to wait for another process before giving up.
        device: where the graph runs.

    Raises:
        StepError: the others did not come.
    """
    if not distributed:
        yield Ranks()
        return
    alone, own = not dist.is_initialized(), local_device(device)
    if alone:
        nccl = device == "cuda" and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if nccl:
            # Otherwise every process of a machine would meet the others on its first GPU.
            torch.cuda.set_device(own)
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=timedelta(seconds=timeout))
        except _FAILURES as error:
            fix = "Start every process with torchrun; raise --timeout if some only start late."
            raise StepError("process group", f"no meeting ({_short(error)})", "all processes", fix) from error
    try:
        backends = str(dist.get_backend_config())
        yield Ranks(dist.get_rank(), dist.get_world_size(), own if "nccl" in backends else "cpu")
    finally:
        if alone:
            dist.destroy_process_group()


def local_device(device: str) -> str:
    """``cuda`` under torchrun is a GPU of this process's own, as far as there are enough."""
    if device != "cuda" or not torch.cuda.device_count():
        return device
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def _send_document(document: Mapping[str, Any], rank: int) -> None:
    raw = np.frombuffer(json.dumps(document).encode(), np.uint8).copy()
    dist.send(torch.tensor([len(raw)]), rank)
    dist.send(torch.from_numpy(raw), rank)


def _receive_document(rank: int) -> dict[str, Any]:
    length = torch.zeros(1, dtype=torch.int64)
    dist.recv(length, rank)
    raw = torch.zeros(int(length), dtype=torch.uint8)
    dist.recv(raw, rank)
    document: dict[str, Any] = json.loads(raw.numpy().tobytes())
    return document


@contextmanager
def _reported(rank: int) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise StepError(
            f"rank {rank}",
            f"no answer ({_short(error)})",
            "its part of the work",
            "See what that process reported, and start all of them again (with --checkpoint they go on where they "
            "were); raise --timeout if it only was slow.",
        ) from error


def _short(error: Exception) -> str:
    # Without the place in gloo's source, and its guesses after the first sentence.
    return re.sub(r"\[\S+:\d+\] ", "", " ".join(str(error).split())).partition(". ")[0][:160]
