"""Pipelines: each stage computes its next items in a thread while later stages work on earlier items."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int = 4) -> Generator[T, None, None]:
    """Computes items in a separate thread, up to ``depth`` ahead, and yields them in order.

    An error is raised in the place of its item. Closing this generator closes ``items``.
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
