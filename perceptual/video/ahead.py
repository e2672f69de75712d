"""Stretches of work that overlap: each makes its next items while those behind it work on the last ones."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int = 4) -> Generator[T, None, None]:
    """The same items in the same order, made in a thread of their own, up to ``depth`` before they are asked for.

    An error comes where its item would have. When this is closed, so is ``items``.
    """
    end = object()
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[T | object]] = deque(thread.submit(next, items, end) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, items, end))
                yield item  # type: ignore[misc]
        finally:
            thread.shutdown(cancel_futures=True)
            if close := getattr(items, "close", None):
                close()
