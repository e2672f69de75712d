"""Several steps, of which all are done or none, whatever error or signal comes between them."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def all_or_nothing() -> Iterator[ExitStack]:
    """A stack for callbacks that undo steps, the latest first; they run if an exception or a signal ends the block.

    Further signals are ignored while they run. Each goes on the stack before its step begins, so it must do no harm
    where the step was not done.
    """
    undo = ExitStack()
    with signals_exit():
        try:
            yield undo
        except BaseException:
            with signals_deferred():
                undo.close()
            raise


@contextmanager
def signals_exit() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP unwind the program, as Ctrl-C does, where nothing else handles them."""
    unhandled = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    with handling(unhandled, lambda number, frame: sys.exit(128 + number)):
        yield


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Has Ctrl-C, SIGTERM and SIGHUP wait until the end of a block, which should be short."""
    came: list[int] = []
    with handling(ENDING, lambda number, frame: came.append(number)):
        yield
    if came:
        signal.raise_signal(came[0])


@contextmanager
def handling(numbers: tuple[signal.Signals, ...] | list[signal.Signals], handler: Callable[..., Any]) -> Iterator[None]:
    """Handles signals for the length of a block; only in the main thread, as Python allows it nowhere else."""
    in_main = threading.current_thread() is threading.main_thread()
    before = {each: signal.signal(each, handler) for each in numbers if in_main}
    try:
        yield
    finally:
        for each, earlier in before.items():
            signal.signal(each, earlier)
