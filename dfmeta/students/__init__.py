"""The students floor: small networks that learn from a teacher, one file each.

The file name is the student's name (``_`` in the file, ``-`` in the name), so a new student is one new file:
its ``build(input_shape, classes, generator)`` makes a fresh network, or its ``derive(origin, variant, generator)`` one
from the teacher itself, for a name with a variant such as ``scaled:0.5``.
A consumer's own network is named on the command line as ``module:callable``; a name found in a bundle is only
ever looked up in the catalogue.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from dfmeta._catalog import STUDENTS
from dfmeta.errors import StepError
from dfmeta.students._origin import Origin

__all__ = ["Origin", "build", "derived", "names"]


def names() -> tuple[str, ...]:
    """The catalogue's students, sorted; imports none of them."""
    return STUDENTS.names()


def build(spec: str, input_shape: tuple[int, ...], classes: int, seed: int, origin: Origin | None = None) -> nn.Module:
    """Build one student and check that it takes the input and gives one value for each class.

    Args:
        spec: a name of :func:`names`, with its variant where it is derived from the teacher (``scaled:0.5``), or
            ``module:callable`` for the consumer's own code, which is imported and called as ``callable(input_shape,
            classes)``. Pass no spec that was read from a bundle.
        input_shape: one input without the batch axis, such as ``(1, 32, 32)``.
        classes: length of the output, 1 or more.
        seed: all random numbers of the initial weights come from it; the global generator is left as it was.
        origin: the teacher and its records, for derived students.

    Returns:
        A module that maps ``[n, *input_shape] float32`` to ``[n, classes]``.

    Raises:
        UnknownName: no such student in the catalogue.
        StepError: the input does not fit, or the callable cannot be imported or does not build such a module.
    """
    if classes < 1:
        raise StepError(f"student {spec!r}", f"{classes} classes", "1 or more")
    if not input_shape or min(input_shape) < 1:
        raise StepError(f"student {spec!r}", f"input shape {list(input_shape)}", "sizes of 1 or more")
    where = f"student {spec!r}"
    make: Callable[..., object]
    arguments: tuple[object, ...]
    generator = torch.Generator().manual_seed(seed)
    module_name, _, attribute = spec.partition(":")
    if derived(spec):
        if origin is None:
            raise StepError(where, "no teacher", "the graph that it is derived from", "Give a bundle.")
        make = _callable(STUDENTS.load(module_name), "derive", where)
        arguments = (origin, attribute, generator)
    elif ":" in spec:
        make = _callable(_import(module_name, where), attribute, where)
        arguments = (input_shape, classes)
    else:
        module = STUDENTS.load(spec)
        if not hasattr(module, "build") and hasattr(module, "derive"):
            raise StepError(where, "no variant", f"one, such as {module.EXAMPLE!r}", "It is made from the teacher.")
        make = _callable(module, "build", where)
        arguments = (input_shape, classes, generator)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _checked(_call(make, arguments, where), input_shape, classes, where)


def derived(spec: str) -> bool:
    """Whether a student is made from the teacher: its name is in the catalogue and has a variant."""
    name, colon, _ = spec.partition(":")
    return bool(colon) and name in STUDENTS.names()


def _import(module_name: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # the consumer's code may raise anything while it is imported
        raise StepError(
            where,
            f"{type(error).__name__} while importing {module_name!r}: {error}",
            "module:callable with a module that can be imported",
            "Is its folder on PYTHONPATH?" if isinstance(error, ModuleNotFoundError) else "",
        ) from error


def _callable(module: ModuleType, attribute: str, where: str) -> Callable[..., object]:
    found: Any = getattr(module, attribute, None) if attribute else None
    if callable(found):
        return found  # type: ignore[no-any-return]
    what = (
        f"an object of type {type(found).__name__}, which cannot be called,"
        if found is not None
        else "no such attribute"
    )
    raise StepError(where, f"{what} at {module.__name__}:{attribute}", "a callable that builds the student")


def _call(make: Callable[..., object], arguments: tuple[object, ...], where: str) -> object:
    try:
        return make(*arguments)
    except StepError:
        raise
    except Exception as error:  # as above: outside code
        raise StepError(
            where,
            f"{type(error).__name__} while building it: {error}",
            "callable(input_shape, classes) to work",
        ) from error


def _checked(student: object, input_shape: tuple[int, ...], classes: int, where: str) -> nn.Module:
    """Run a zero batch of two, so that a wrong network is refused before any training."""
    if not isinstance(student, nn.Module):
        raise StepError(where, f"an object of type {type(student).__name__}", "a torch.nn.Module")
    modes = {module: module.training for module in student.modules()}
    student.eval()
    try:
        with torch.no_grad():
            output = student(torch.zeros(2, *input_shape))
    except Exception as error:  # as above: outside code
        raise StepError(
            where,
            f"{type(error).__name__} on a zero batch of shape {[2, *input_shape]}: {error}",
            f"an output of shape {[2, classes]}",
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
    shape = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if shape != [2, classes]:
        raise StepError(where, f"output {shape} on a zero batch of 2", f"shape {[2, classes]}")
    return student
