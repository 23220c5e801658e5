"""`python -m tests.model`: the two widest scopes, a million states; about 4 minutes. The tests look at narrower
ones.
"""

from __future__ import annotations

import sys

from tests.model.explore import explore
from tests.model.protocol import Design

WIDEST = ("operator worker duplicate cancel", "flush worker duplicate cancel")


def main() -> int:
    """Look at both; 1 if a state is wrong."""
    wrong = 0
    for scope in WIDEST:
        found = explore(frozenset(scope.split()), Design())
        print(f"{scope}: {found.states:,} states, {found.wrong or 'none of them wrong'}", *found.trace, sep="\n  ")
        wrong |= bool(found.wrong)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
