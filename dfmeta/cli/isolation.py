"""The whole work of a verb in one child process, and what watches over it.

A graph comes from a stranger, and shapes alone do not tell what running it takes. So the process that was started does
no work itself: it forks, before anything heavy is imported, and looks after the child. A child that holds more memory
than it may, or in which a graph is not opened or first run within its time, is killed, what it left half-written is
removed, and one error says so. In all else the child is the command: its streams, its exit code and its answer to
Ctrl-C are those of the verb. The child tells through a pipe what the watching needs (:mod:`dfmeta._watched`).

This bounds what a graph can use up; it is no sandbox. A fault in a runtime that lets a graph run code of its own gives
it all that the user may do.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

from dfmeta import _watched
from dfmeta.cli import memory
from dfmeta.cli.bounds import FIRST_PASS_SECONDS, Teller
from dfmeta.errors import LimitExceeded

# How long to wait between two looks at the memory, and after the child has ended its end of the pipe.
_PAUSE = 0.5 if memory.COSTLY else 0.05
_ENDING = 0.002
# A tick that took longer was a machine asleep, or a user's Ctrl-Z: no fault of the child's.
_LONGEST_TICK = 1.0
# Ctrl-C reaches the child from the terminal and from here: for so long it is one.
_SAME_KEY = 1.0
# What a child that has lost its parent may take to clean up.
_GRACE = 10.0
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TEMPORARY = "dfmeta-tmp-"


@dataclass
class Watch:
    """What is known of the child.

    Attributes:
        child: its process.
        memory: bytes that it may hold.
        seconds: that opening and first running a graph may take.
        staged: paths at which it is writing.
        running: what must end in time, by number: the graph, what it is, and the seconds it has taken.
        pressed: when the user asked to stop.
        ended: whether the process is gone; another may have its number then.
    """

    child: int
    memory: int
    seconds: float = FIRST_PASS_SECONDS
    staged: set[str] = field(default_factory=set)
    running: dict[int, tuple[str, str, float]] = field(default_factory=dict)
    pressed: list[float] = field(default_factory=list)
    ended: bool = False
    _unread: bytes = b""

    def hear(self, data: bytes) -> None:
        """Take in what the child wrote: one JSON list a line."""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            word, *rest = json.loads(line)
            if word == "limits":
                self.memory, self.seconds = rest
            elif word == "begin":
                self.running[rest[0]] = rest[1], rest[2], 0.0
            elif word == "end":
                self.running.pop(rest[0], None)
            elif word == "stage":
                self.staged.add(rest[0])
            elif word == "settle":
                self.staged.discard(rest[0])

    def verdict(self, held: int, passed: float) -> LimitExceeded | None:
        """What the child is to be killed for, if anything.

        Args:
            held: bytes of memory that it holds now.
            passed: seconds since this was last asked.
        """
        if held > self.memory:
            where = next((f"{where}, {what}" for where, what, _ in self.running.values()), "memory")
            fix = "Raise --max-memory if you trust the model; or try a smaller --batch-size."
            found, expected = f"{memory.in_words(held)} in use", f"at most {memory.in_words(self.memory)}"
            return LimitExceeded(where, found, expected, fix, code="memory-limit")
        for number, (where, what, spent) in list(self.running.items()):
            self.running[number] = where, what, spent + passed
            if spent + passed > self.seconds:
                fix = "Raise --first-pass-seconds if you trust the model."
                found = f"{what} that is not done after {self.seconds:g} s"
                return LimitExceeded(where, found, "one that ends within its time", fix, code="time-limit")
        return None


def run(work: Callable[[], int], failed: Callable[[BaseException], int]) -> int:
    """Do some work in a child process.

    Args:
        work: what to do there; gives the exit code.
        failed: says, here, why the work was ended; gives the exit code.

    Returns:
        The exit code of the child, in the parent alone: the child ends here. Where a signal ended it that would have
        ended this process, it ends this process too.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    told, tells = os.pipe()
    alive, lives = os.pipe()
    folder = _own_temporary()
    with _held_back():
        child = os.fork()
        if child == 0:
            os.close(told)
            os.close(lives)
            _become_child(tells, alive, folder)
        else:
            watch = Watch(child, memory.allowed())
            _forward(watch)
    if child == 0:
        _leave(work())
    os.close(tells)
    os.close(alive)
    status, verdict = _look_after(watch, told)
    _clear(watch.staged | ({folder} if folder else set()))
    return _outcome(watch, status, verdict, failed)


def _leave(code: int) -> NoReturn:
    """End as multiprocessing ends its forked processes: to take the interpreter down would copy every page it has."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _outcome(watch: Watch, status: int, verdict: LimitExceeded | None, failed: Callable[[BaseException], int]) -> int:
    if verdict is not None:
        if sys.stderr.isatty():
            # A progress bar hides the cursor, and had no time to show it again.
            sys.stderr.write("\x1b[?25h\n")
        return failed(verdict)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    if -code in _FORWARDED:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    if -code == signal.SIGKILL:
        # Of a second Ctrl-C; or nobody here did it, and most often it is the system, which has no memory left.
        return failed(KeyboardInterrupt() if watch.pressed else MemoryError())
    return failed(RuntimeError(f"the work was ended by {signal.Signals(-code).name}"))


def _look_after(watch: Watch, told: int) -> tuple[int, LimitExceeded | None]:
    """Wait until the child has ended, and end it where it must; its status, and why it was ended."""
    os.set_blocking(told, False)
    verdict, looked, listening = None, time.monotonic(), True
    while True:
        if listening:
            ready, _, _ = select.select([told], [], [], _PAUSE)
            listening = not ready or _heard(watch, told)
        else:
            time.sleep(_ENDING)
        process, status = os.waitpid(watch.child, os.WNOHANG)
        if process:
            watch.ended = True
            while listening and select.select([told], [], [], 0)[0]:
                listening = _heard(watch, told)
            os.close(told)
            return status, verdict
        now = time.monotonic()
        if verdict is None and now - looked >= _PAUSE:
            verdict = watch.verdict(memory.held_by(watch.child), min(now - looked, _LONGEST_TICK))
            looked = now
            if verdict is not None:
                os.kill(watch.child, signal.SIGKILL)


def _heard(watch: Watch, told: int) -> bool:
    """Take in what is there; whether there may be more."""
    data = os.read(told, 2**16)
    watch.hear(data)
    return bool(data)


@contextmanager
def _held_back() -> Iterator[None]:
    """No signal arrives while it is not settled who takes it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forward(watch: Watch) -> None:
    """Hand signals to the child; a second Ctrl-C, some time after the first, ends it at once."""

    def hand_on(number: int, _: FrameType | None) -> None:
        again = number == signal.SIGINT and any(time.monotonic() - each > _SAME_KEY for each in watch.pressed)
        if number == signal.SIGINT:
            watch.pressed.append(time.monotonic())
        if not watch.ended:
            with suppress(ProcessLookupError):
                os.kill(watch.child, signal.SIGKILL if again else number)

    for number in _FORWARDED:
        # What was to be ignored stays so, such as Ctrl-C for a command in the background.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, hand_on)


def _become_child(tells: int, alive: int, folder: str) -> None:
    if folder:
        os.environ["TMPDIR"] = folder
        if "tempfile" in sys.modules:
            sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted_once())
    threading.Thread(target=_end_with_the_parent, args=(alive, folder), daemon=True).start()
    _watched.watch(Teller(tells))


def _interrupted_once() -> Callable[[int, FrameType | None], None]:
    """Ctrl-C as Python takes it, but one key for one: a second would interrupt the cleaning up after the first."""
    last = [-_SAME_KEY]

    def interrupt(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - last[0] >= _SAME_KEY:
            last[0] = now
            signal.default_int_handler(number, frame)

    return interrupt


def _end_with_the_parent(alive: int, folder: str) -> None:
    """Wait until the parent is gone, by whatever; end then, tidily if that can be done soon."""
    os.read(alive, 1)
    _clear({folder})
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_GRACE)
    os._exit(1)


def _own_temporary() -> str:
    """A folder for the child's temporary files, so that none of them is left; empty where none can be made."""
    base = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - a new folder in it, ours alone
    path = os.path.join(base, f"{_TEMPORARY}{os.urandom(8).hex()}")
    try:
        os.mkdir(path, 0o700)
    except OSError:
        return ""
    return path


def _clear(paths: set[str]) -> None:
    for path in paths:
        if _TEMPORARY not in os.path.basename(path) or not os.path.lexists(path):
            continue
        import shutil

        with suppress(OSError):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
