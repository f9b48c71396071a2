"""What was read beside what is written: words as a bag, characters by the best places, neighbours in their order. Pure.

No reader is asked for the order of others, so words are counted wherever they stand. The rate of wrong characters
allows any order of pieces as well, like "flexible character accuracy" (Clausner, Pletschacher and Antonacopoulos,
2020): pieces of what was read are laid on pieces of what is written, the best first, and each character is used once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

__all__ = ["Tally", "neighbours", "tally", "wrong_characters"]

# A piece that differs more than this from what it is laid on was not read from there.
_MOST_DIFFERENT = 0.5
# What is left over of a piece, as a share of the other, up to which both may be the same text as a whole.
_CRUMBS = 0.3

Tally = dict[str, tuple[int, int]]


def tally(written: Sequence[str], read: Sequence[str]) -> Tally:
    """How often each word is written and was read, as (written, read)."""
    there, found = Counter(written), Counter(read)
    return {word: (there[word], found[word]) for word in dict.fromkeys([*there, *found])}


def neighbours(written: Sequence[str], read: Sequence[str]) -> tuple[int, int]:
    """Of the pairs of words that follow each other: how many do so in what was read, and how many there are."""
    pairs, found = Counter(pairwise(written)), Counter(pairwise(read))
    return (pairs & found).total(), pairs.total()


def wrong_characters(written: Sequence[str], read: Sequence[str]) -> int:
    """Characters to insert, delete or replace, once pieces of both are laid together in whatever order suits best.

    Args:
        written: pieces of text without spaces, such as lines.
        read: likewise.
    """
    left, right = Counter(filter(None, written)), Counter(filter(None, read))
    same = left & right
    pieces, parts = list((left - same).elements()), list((right - same).elements())
    _take_contained(pieces, parts)
    cost = _take_alike(pieces, parts)
    return cost + sum(map(len, pieces)) + sum(map(len, parts))


def _take_contained(pieces: list[str], parts: list[str]) -> None:
    """Remove what lies in one of the other side as it is, the longest first; what is left of that one stays."""
    waiting = sorted(((len(text), side, text) for side, texts in enumerate((pieces, parts)) for text in texts))
    sides = (pieces, parts)
    while waiting:
        _, side, text = waiting.pop()
        if text not in sides[side]:
            continue
        around = max((other for other in sides[1 - side] if text in other), key=len, default=None)
        # A letter or two lies in anything; such crumbs are laid where the rest of their word is.
        if around is None or len(text) < min(3, len(around)):
            continue
        sides[side].remove(text)
        sides[1 - side].remove(around)
        rests = [rest for rest in around.split(text, 1) if rest]
        sides[1 - side].extend(rests)
        waiting.extend((len(rest), 1 - side, rest) for rest in rests)
        waiting.sort()


def _take_alike(pieces: list[str], parts: list[str]) -> int:
    """Remove what is much alike, the most alike first; the characters that differ."""
    cost = 0
    known: dict[tuple[str, str], tuple[float, int, int, int, int]] = {}
    while pieces and parts:
        best = None
        for piece in set(pieces):
            for part in set(parts):
                if (found := known.get((piece, part))) is None:
                    found = known[piece, part] = _laid(piece, part)
                if found[0] <= _MOST_DIFFERENT and (best is None or found[1] < best[0][1]):
                    best = (found, piece, part)
        if best is None:
            return cost
        (_, _, wrong, begin, end), piece, part = best
        cost += wrong
        pieces.remove(piece)
        parts.remove(part)
        longer, side = (piece, pieces) if len(piece) > len(part) else (part, parts)
        side.extend(rest for rest in (longer[:begin], longer[end:]) if rest)
    return cost


def _laid(piece: str, part: str) -> tuple[float, int, int, int, int]:
    """The shorter of two on its best place in the longer one.

    Returns:
        How much of it differs there, how far it is from certain (a letter or two lies in anything), the number of
        characters that differ, and where in the longer one it lies.
    """
    short, long = sorted((piece, part), key=len)
    wrong, end = _nearest(short, long, anywhere=True)
    _, back = _nearest(short[::-1], long[:end][::-1], anywhere=False)
    rest = len(long) - back
    # A crumb left over at an end belongs to the same text, where that costs less than to leave it.
    if 0 < rest <= _CRUMBS * len(short) and (whole := _distance(short, long)) < wrong + rest:
        wrong, end, back = whole, len(long), len(long)
    return wrong / len(short), (wrong + 1) / len(short), wrong, end - back, end


def _nearest(pattern: str, text: str, *, anywhere: bool) -> tuple[int, int]:
    """The least edit distance between a pattern and a part of a text, and where that part ends.

    The part begins anywhere, or with the text.
    """
    best, best_end = len(pattern), 0
    for end, distance in enumerate(_distances(pattern, text, anywhere=anywhere), 1):
        if distance < best:
            best, best_end = distance, end
    return best, best_end


def _distance(first: str, second: str) -> int:
    """The edit distance of two texts as a whole."""
    *_, last = _distances(first, second, anywhere=False)
    return last


def _distances(pattern: str, text: str, *, anywhere: bool) -> Iterator[int]:
    """The edit distance of a pattern to the text up to each of its characters, by columns of bits (Myers, 1999)."""
    masks: dict[str, int] = {}
    for place, character in enumerate(pattern):
        masks[character] = masks.get(character, 0) | 1 << place
    full, last = (1 << len(pattern)) - 1, 1 << (len(pattern) - 1)
    above, below, distance = full, 0, len(pattern)
    for character in text:
        equal = masks.get(character, 0)
        diagonal = equal | below
        across = (((equal & above) + above) ^ above) | equal
        grows = below | (full & ~(across | above))
        shrinks = above & across
        distance += bool(grows & last) - bool(shrinks & last)
        grows = (grows << 1 | (not anywhere)) & full
        shrinks = shrinks << 1 & full
        above = shrinks | (full & ~(diagonal | grows))
        below = grows & diagonal
        yield distance
