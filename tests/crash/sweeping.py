"""One death at each point of a run, side by side."""

from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from crash.stage import held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

TRIES = 8


def side_by_side(stages: list[S], work: Callable[[S, T], R], items: Iterable[T]) -> list[R]:
    """Do something with each item, each on a stage of its own."""
    free: queue.SimpleQueue[S] = queue.SimpleQueue()
    for stage in stages:
        free.put(stage)

    def one(item: T) -> R:
        stage = free.get()
        try:
            return work(stage, item)
        finally:
            free.put(stage)

    with ThreadPoolExecutor(len(stages)) as pool:
        return list(pool.map(one, items))


def sweep(
    stages: list[S],
    points: list[str],
    work: Callable[[S, int | None, str | None], str],
    wanted: Callable[[str], bool] = lambda _: True,
) -> None:
    """One death at each point, by number; then at each that a change of schedule kept from us.

    Args:
        stages: where to play.
        points: of a run that nobody killed.
        work: plays a case with a death at a point, by number or by label; says where it was.
        wanted: whether a point, by its label, is to be the place of a death.
    """
    numbers = [at for at, label in enumerate(points, 1) if wanted(label)]
    labels = side_by_side(stages, lambda s, at: work(s, at, None), numbers)
    covered = {each for label in labels for each in held(label)}
    due = {each for label in points if wanted(label) for each in held(label)}
    for _ in range(TRIES):
        missed = sorted(due - covered)
        labels = side_by_side(stages, lambda s, on: work(s, None, on), missed)
        covered |= {each for label in labels for each in held(label)}
    assert due <= covered, f"never killed at {due - covered}"
