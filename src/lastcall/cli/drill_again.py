"""The command line that repeats a drill, for its reports."""

from __future__ import annotations

import itertools
import shlex

# What they say may be nobody else's business, and the report is passed on.
_PRIVATE = "--env"
_OF_SWEEP = ("--sweep", "--span", "--seed", "--at")


def again(words: list[str]) -> str:
    """The command line that repeats one drill; of a sweep with `{at}` for the moment.

    Values of `--env` are left out.
    """
    own, dashes, command = words, [], []
    if "--" in words:
        cut = words.index("--")
        own, dashes, command = words[:cut], ["--"], words[cut + 1 :]
    several = any(word.partition("=")[0] == "--sweep" for word in own) or "," in _after(own, "--at")
    kept: list[str] = []
    skip = hide = False
    for word in own:
        name, equals, value = word.partition("=")
        if hide:
            kept.append(f"{name}=...")
        elif not skip and name == _PRIVATE and equals:
            kept.append(f"{name}={value.partition('=')[0]}=...")
        elif not skip and not (several and name in _OF_SWEEP):
            kept.append(word)
        hide, skip = word == _PRIVATE, several and word in _OF_SWEEP
    at = ["--at", "{at}"] if several else []
    return shlex.join(["lastcall", *kept, *at, *dashes, *command])


def _after(words: list[str], option: str) -> str:
    for word, after in itertools.zip_longest(words, words[1:], fillvalue=""):
        if word == option:
            return after
        if word.startswith(f"{option}="):
            return word
    return ""
