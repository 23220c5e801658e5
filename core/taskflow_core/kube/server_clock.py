"""How far the clocks of this machine and of the API server are apart."""

from __future__ import annotations

from email.utils import parsedate_to_datetime


class ServerClock:
    """The clock of the API server, as the `Date` of its latest answer shows it."""

    def __init__(self) -> None:
        self._latest: tuple[float, str, float] | None = None

    def note(self, asked: float, date: str, came: float) -> None:
        """An answer came.

        Args:
            asked: when it was asked for (Unix seconds of this machine).
            date: its `Date`; empty if it had none.
            came: when it came (likewise).
        """
        self._latest = asked, date, came

    @property
    def skew(self) -> float:
        """Seconds that this machine's clock is at least ahead, or behind if negative; 0 if both may be equal."""
        if self._latest is None:
            return 0.0
        asked, date, came = self._latest
        try:
            server = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return 0.0
        # The header leaves out the fraction of a second. However long the answer took, its date is of a time between.
        return max(asked - server - 1, 0.0) or min(came - server, 0.0)
