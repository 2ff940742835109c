"""What a glob over models' names covers, as far as a configuration can be judged by it. `policy/routing` matches names.

`*` stands for any characters, or none, and `?` for exactly one.
"""

import re

_WILD = re.compile(r"[*?]+")


def covers(glob: str, other: str) -> bool:
    """Whether every name that fits `other`, a glob or a plain name, fits `glob` too.

    A yes is always right, and always comes for a plain name. A few exotic pairs of globs get a wrong no: `?*` covers
    `*a*`, but that is not found.
    """
    pattern, symbols = _ordered(glob), _ordered(other)
    at, star, resumed = 0, -1, 0  # place in the pattern; its last star, and how many symbols were matched up to there
    seen = 0
    while seen < len(symbols):
        if at < len(pattern) and pattern[at] == "*":
            star, resumed, at = at, seen, at + 1
        elif at < len(pattern) and symbols[seen] != "*" and pattern[at] in ("?", symbols[seen]):
            seen, at = seen + 1, at + 1
        elif star >= 0:  # the star takes one more
            resumed += 1
            seen, at = resumed, star + 1
        else:
            return False
    return pattern[at:] in ("", "*")


def _ordered(glob: str) -> str:
    """The glob with each run of wildcards as one form: `*?*` is `?*`."""
    return _WILD.sub(lambda run: "?" * run[0].count("?") + "*" * ("*" in run[0]), glob)
