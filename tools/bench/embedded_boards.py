"""The same C on emulated Cortex-M boards: what it computes, how many instructions, how much stack and flash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from embedded_c import FLAGS, SOURCES, Floats, Generated, program, run
from numpy.typing import NDArray

INSTRUCTIONS_PER_TICK = 40
_GCC, _PACKAGE = "arm-none-eabi-gcc", "gcc-arm-none-eabi libnewlib-arm-none-eabi"


@dataclass(frozen=True)
class Board:
    """An emulated machine.

    Attributes:
        name: of its core.
        machine: QEMU's name.
        flags: of the compiler for that core.
    """

    name: str
    machine: str
    flags: tuple[str, ...]

    @property
    def soft_float(self) -> bool:
        """Whether it has no floating-point unit."""
        return "-mfloat-abi=soft" in self.flags


BOARDS = (
    Board("cortex-m4", "mps2-an386", ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")),
    Board("cortex-m3", "mps2-an385", ("-mcpu=cortex-m3", "-mthumb", "-mfloat-abi=soft")),
)


@dataclass(frozen=True)
class BoardProgram:
    """What runs on a board.

    Attributes:
        board: the machine.
        elf: the program.
        generated: the model in it.
        flash: bytes that the model adds to a program: weights, other constants, code, and what it calls of the C
            library. It is the program less the same program with a model that does nothing.
        data: of them, bytes of constants, weights included.
    """

    board: Board
    elf: Path
    generated: Generated
    flash: int
    data: int


@dataclass(frozen=True)
class BoardRun:
    """What a board did.

    Attributes:
        outputs: ``[n, outputs]``.
        instructions: ``[n]`` that the emulator executed within the model, to 40. They are no cycles.
        stack: most bytes of stack that the model touched.
    """

    outputs: Floats
    instructions: NDArray[np.int64]
    stack: int


def build_for_board(generated: Generated, board: Board, folder: Path) -> BoardProgram:
    """Cross-compile and link.

    Raises:
        Absent: no cross-compiler.
        RuntimeError: the code does not compile, or does not fit into 4 MB.
    """
    elf = folder / f"{generated.path.stem}-{board.name}.elf"
    _link(generated.definitions, board, elf)
    empty = folder / f"empty-{board.name}-{generated.inputs}-{generated.outputs}.elf"
    _link(generated.empty, board, empty)
    objects = folder / f"{elf.stem}.o"
    words = [*board.flags, *FLAGS, *generated.definitions, "-c", str(SOURCES / "model.c"), "-o", str(objects)]
    run([program(_GCC, _PACKAGE), *words])
    constants = sum(size for name, size in _sections(objects).items() if name.startswith((".rodata", ".data")))
    return BoardProgram(board, elf, generated, _stored(elf) - _stored(empty), constants)


def _link(definitions: tuple[str, ...], board: Board, elf: Path) -> None:
    split = (
        "-ffunction-sections",
        "-fdata-sections",
        "-Wl,--gc-sections",
        "-nostartfiles",
        "-Wl,--no-warn-rwx-segments",
    )
    sources = [str(SOURCES / "board.c"), str(SOURCES / "model.c"), "-T", str(SOURCES / "board.ld")]
    run([program(_GCC, _PACKAGE), *board.flags, *FLAGS, *split, *definitions, *sources, "-lm", "-o", str(elf)])


def _stored(elf: Path) -> int:
    """Bytes that a program takes in flash."""
    return sum(size for name, size in _sections(elf).items() if name.startswith((".text", ".data", ".ARM.exidx")))


def _sections(file: Path) -> dict[str, int]:
    """Section to bytes."""
    said = run([program("arm-none-eabi-size", "binutils-arm-none-eabi"), "-A", str(file)]).stdout
    rows = [line.split() for line in said.splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) == 3 and row[0].startswith(".")}


def execute(built: BoardProgram, inputs: Floats, folder: Path) -> BoardRun:
    """Run on all inputs in the emulator.

    Args:
        built: the program.
        inputs: ``[n, ...]``.
        folder: a new one, where the board's files go.

    Raises:
        Absent: no emulator.
        RuntimeError: the program ended with an error.
    """
    emulator = program("qemu-system-arm", "qemu-system-arm")
    folder.mkdir(parents=True)
    given = np.ascontiguousarray(inputs, "<f4")
    given.tofile(folder / "inputs.bin")
    machine = ["-M", built.board.machine, "-kernel", str(built.elf.resolve()), "-icount", "shift=0"]
    quiet = ["-display", "none", "-monitor", "none", "-serial", "none"]
    run([emulator, *machine, *quiet, "-semihosting-config", "enable=on,target=native"], cwd=folder)
    outputs = np.fromfile(folder / "outputs.bin", "<f4").reshape(len(given), built.generated.outputs)
    ticks = np.fromfile(folder / "ticks.bin", "<u4").astype(np.int64)
    stack = int(np.fromfile(folder / "stack.bin", "<u4")[0])
    return BoardRun(outputs.astype(np.float32), ticks * INSTRUCTIONS_PER_TICK, stack)
