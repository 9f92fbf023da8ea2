"""Make all the bad calls of tests/test_bad_input.py in both libraries, and count what came of them.

python tools/bad_input.py --record     what `make bad-input RECORD=1` runs
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from bad_calls import LIBRARIES, Outcome, attempt  # noqa: E402
from test_bad_input import ACCEPTED, ROWS, way  # noqa: E402

from walkthrough import evidence  # noqa: E402

HEAD = ["calls, while", "calls", "same type", "said in words of ours", "ours changed something",
        "PyTorch changed something", "PyTorch accepted it"]  # fmt: skip
WORDS = {
    "building": "an optimizer is built",
    "groups": "a group is added",
    "stepping": "an optimizer steps",
    "loading": "an optimizer loads or saves",
    "schedules": "a scheduler is built",
    "schedule steps": "a scheduler steps or loads",
}


def tally() -> dict[str, Counter[str]]:
    """By kind of call, how many there are and what came of them."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in WORDS}
    for kind, line, says, *_ in ROWS:
        ours, theirs = (attempt(library, line) for library in LIBRARIES.values())
        found[kind].update(counts(ours, theirs, says))
    return found


def counts(ours: Outcome, theirs: Outcome, says: str) -> dict[str, int]:
    """What came of one call, as numbers to be added; in the order of `HEAD`."""
    return {
        "calls": 1,
        "same": ours.error is theirs.error,
        "words": says != "~" and says.lstrip("~") in ours.says,
        "ours": way(ours) == "changes",
        "theirs": way(theirs) == "changes",
        "accepts": way(theirs) == "accepts",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="record the result for the page")
    options = parser.parse_args()
    begun = time.perf_counter()
    found = tally()
    total = sum(found.values(), Counter())
    keys = ("calls", "same", "words", "ours", "theirs", "accepts")
    rows = [(WORDS[kind], *(found[kind][key] for key in keys)) for kind in WORDS]
    rows.append(("all", *(total[key] for key in keys)))
    for row in rows:
        print(f"{row[0]:28}" + "".join(f"{value:6}" for value in row[1:]))
    said = f"{total['calls']} bad calls: all but {total['calls'] - total['same']} give the type of "
    said += f"error that PyTorch gives; {total['calls'] - total['ours']} leave everything as it "
    said += f"was, against {total['calls'] - total['theirs'] - total['accepts']} in PyTorch."
    print(said)
    if options.record:
        evidence.record(
            "bad-input",
            title="Bad input",
            command="make bad-input",
            summary=said,
            head=HEAD,
            rows=rows,
            notes=[
                "Compared before and after: parameters, gradients, options of all groups, state, "
                "what schedulers hold, and the dictionaries that were passed.",
                "Where the words are not ours they are Python's or torch's, such as *got an "
                "unexpected keyword argument*.",
                f"{len(ACCEPTED)} more calls, with nan, infinities and negative numbers, are "
                "refused by neither library; parameters and state are then equal, nan for nan.",
                "The table is in `tests/test_bad_input.py`, where every exception is a mark in its "
                "row.",
            ],
            seconds=time.perf_counter() - begun,
        )
    return int(total["same"] + total["accepts"] < total["calls"])


if __name__ == "__main__":
    sys.exit(main())
