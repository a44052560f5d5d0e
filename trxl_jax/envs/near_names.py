"""Suggestions for names that don't exist."""

import difflib
import re
from collections.abc import Sequence

_SHOWN = 10


def near_names(name: str, known: Sequence[str], prefix: str = "") -> str:
    """A clause for an error message that suggests similar names, or else gives a few of the known ones."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    by_plain = {plain(text): text for text in known}
    near = difflib.get_close_matches(plain(name), by_plain, n=3, cutoff=0.6)
    if not near:
        some = ", ".join(prefix + text for text in sorted(known)[:_SHOWN])
        return f"known are {some}" + (f" and {len(known) - _SHOWN} others" if len(known) > _SHOWN else "")
    return "did you mean " + ", ".join(prefix + by_plain[text] for text in near) + "?"
