"""Fuzzes what reads screens: `picture.read` with damaged files, `phrases.signs` with damaged text.

    python tests/guests/fuzz_screen.py picture --minutes 10
    python tests/guests/fuzz_screen.py phrases --minutes 10 --seed 7

A case fails when anything but `BadPicture` is raised, when it works longer than `CASE_LIMIT_S`, or
when the process outgrows its memory (RLIMIT_AS). What fails is written to the corpus, where the
tests find it from then on. The exit status is 1 when anything failed.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import signal
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from lastcall.targets.guest.screen import phrases, picture
from lastcall.targets.guest.screen.tongues import WORDINGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

CORPUS = Path(__file__).parent / "corpus" / "screen"
CASE_LIMIT_S = 10.0  # of the processor: a busy machine is no fault
MEMORY_LIMIT_BYTES = 1024 * 1024 * 1024
NUMBERS = (0, 1, 2, 255, 256, 4096, 8191, 8192, 8193, 65535, 2**31 - 1, 2**31, 2**32 - 1)
LETTERS = "abcmnrltOo01I|!.,;:%()[]{}\t\n\n    ㅋ끄켜지마PCé\u0301\ufdfa\U0001f600\ud800\x00"


class TooSlow(BaseException):
    """A case took too long. Not an Exception, so that nothing on the way takes it for its own."""


def _alarm(_signum: int, _frame: FrameType | None) -> None:
    raise TooSlow


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A file with something wrong in it."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(made) + 1)
        match chance.randrange(7):
            case 0 if made:
                made[at % len(made)] ^= 1 << chance.randrange(8)
            case 1:
                made[at : at + chance.randrange(64)] = chance.randbytes(chance.randrange(64))
            case 2:
                del made[at:]
            case 3:
                made[at:at] = made[: chance.randrange(4096)]
            case 4:
                # The size in the header, which decides on the memory.
                for side in chance.choice(((16,), (20,), (16, 20))):
                    made[side : side + 4] = struct.pack(">I", chance.choice(NUMBERS))
            case 5:
                made[3:9] = str(chance.choice(NUMBERS)).encode() + b" "
            case _:
                del made[at : at + chance.randrange(256)]
    # Half of them with checksums that fit: else nothing behind the checksums is ever reached.
    return mended(bytes(made)) if chance.random() < 0.5 else bytes(made)


def mended(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums that they should have, as far as they can be seen."""
    made, at = bytearray(data), 8
    while at + 12 <= len(made):
        end = at + 12 + int.from_bytes(made[at : at + 4], "big")
        if end > len(made):
            break
        made[end - 4 : end] = struct.pack(">I", zlib.crc32(made[at + 4 : end - 4]))
        at = end
    return bytes(made)


def misread(text: str, chance: random.Random) -> str:
    """A text with a reader's mistakes, and worse."""
    made = list(text)
    for _ in range(chance.choice((1, 2, 8, 64))):
        at = chance.randrange(len(made) + 1)
        match chance.randrange(6):
            case 0 if made:
                made[at % len(made)] = chance.choice(LETTERS)
            case 1:
                made[at:at] = chance.choice(LETTERS) * chance.choice((1, 1, 3, 500))
            case 2:
                del made[at : at + chance.randrange(8)]
            case 3:
                made[at:at] = chr(chance.randrange(0x11000))
            case 4:
                made[at:at] = chance.choice(WORDINGS).text + chance.choice((" ", "\n", ""))
            case _:
                made = made[at:] + made[:at]
    return "".join(made) * chance.choice((1, 1, 1, 1, 40))


def picture_case(data: bytes) -> None:
    """One file through everything that reads it. BadPicture is a proper answer."""
    try:
        read = picture.read(data)
        picture.blank(read)
        picture.moves(picture.changed(read, _OTHER))
    except picture.BadPicture:
        return
    assert 0 < read.width * read.height <= picture.LIMIT_PIXELS


def phrases_case(data: bytes) -> None:
    """One text through the recognition."""
    for sign in phrases.signs(data.decode(errors="surrogatepass")):
        assert 0.5 <= sign.score <= 1, sign
        assert sign.words, sign


_OTHER = picture.read(b"P6\n4 4\n255\n" + b"\x01\x80\xff" * 16)


def corpus(what: str) -> list[bytes]:
    """The files to begin with."""
    names = ("*.txt",) if what == "phrases" else ("*.png", "*.ppm")
    files = sorted(path for name in names for path in CORPUS.glob(name))
    found = [path.read_bytes() for path in files]
    if what == "phrases":
        found += [wording.text.encode() for wording in WORDINGS]
    assert found, f"no files in {CORPUS}"
    return found


def made(what: str, files: list[bytes], chance: random.Random) -> bytes:
    """The next case."""
    data = chance.choice(files)
    if what == "picture":
        return mutated(data, chance)
    text = misread(data.decode(errors="surrogatepass"), chance)
    return text.encode(errors="surrogatepass")


def fuzz(what: str, limit_s: float, seed: int, keep: Path = CORPUS) -> tuple[int, list[Path]]:
    """Run cases until the time is over: how many they were, and the files of those that failed."""
    case: Callable[[bytes], None] = picture_case if what == "picture" else phrases_case
    chance = random.Random(seed)
    files, failed, count = corpus(what), [], 0
    before = signal.signal(signal.SIGPROF, _alarm)
    over_s = time.monotonic() + limit_s
    try:
        while time.monotonic() < over_s:
            data = made(what, files, chance)
            count += 1
            signal.setitimer(signal.ITIMER_PROF, CASE_LIMIT_S)
            try:
                case(data)
            except (Exception, TooSlow) as error:  # noqa: BLE001 (to find what nobody thought of)
                signal.setitimer(signal.ITIMER_PROF, 0)
                name = f"found-{hashlib.sha256(data).hexdigest()[:12]}"
                path = keep / f"{name}.{'txt' if what == 'phrases' else 'png'}"
                path.write_bytes(data)
                failed.append(path)
                sys.stderr.write(f"{path.name}: {error!r}\n")
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
    finally:
        signal.signal(signal.SIGPROF, before)
    return count, failed


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("what", choices=["picture", "phrases"])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    words = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    count, failed = fuzz(words.what, words.minutes * 60, words.seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(  # noqa: T201 (a program for the terminal)
        f"{words.what}: {count} cases in {words.minutes:g} min, {len(failed)} failed, "
        f"peak {peak} MiB, seed {words.seed}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
