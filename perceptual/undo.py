"""Transactions: several steps that are either all done or all undone, after any error or signal."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def all_or_nothing() -> Iterator[ExitStack]:
    """A stack of callbacks that undo steps; they run, last in first out, if an exception or a signal ends the block.

    Further signals are delayed while the callbacks run. Push each callback before its step begins; it must have no
    effect if the step was not done.
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
    """Lets SIGTERM and SIGHUP raise an exception, as Ctrl-C does, if they have no other handler."""
    unhandled = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    with handling(unhandled, lambda number, frame: sys.exit(128 + number)):
        yield


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Delays Ctrl-C, SIGTERM and SIGHUP until the end of a block, which should be short."""
    received: list[int] = []
    with handling(ENDING, lambda number, frame: received.append(number)):
        yield
    if received:
        signal.raise_signal(received[0])


@contextmanager
def handling(numbers: tuple[signal.Signals, ...] | list[signal.Signals], handler: Callable[..., Any]) -> Iterator[None]:
    """Sets a handler of signals for the length of a block; does nothing outside the main thread, as Python allows."""
    in_main = threading.current_thread() is threading.main_thread()
    before = {each: signal.signal(each, handler) for each in numbers if in_main}
    try:
        yield
    finally:
        for each, earlier in before.items():
            signal.signal(each, earlier)
