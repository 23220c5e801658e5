"""What holds of an array that has ended."""

from __future__ import annotations

from typing import Any

from taskflow_core.domain.naming import keys_of
from taskflow_core.ledger.connect import connect_sync
from tests.builders import UID
from tests.integration.arrays.site import Site

KEYS = keys_of("team-a")


async def accounted(site: Site, status: dict[str, Any], total: int) -> None:
    """Every item ended once, in the status as in the history, and nothing is left of the array in Redis."""
    array = status["array"]
    past = await site.past(UID)
    assert array["succeeded"] + array["failed"] == array["total"] == total
    assert (past.succeeded, past.failed) == (array["succeeded"], array["failed"])
    assert len(past.ended) == total
    raw = connect_sync(site.redis_settings)
    try:
        assert raw.exists(KEYS.array(UID)) == 0
        assert raw.zcard(KEYS.ledger) == 0
        assert raw.zcard(KEYS.leases) == 0
        assert raw.hlen(KEYS.stops) == 0
    finally:
        raw.connection_pool.disconnect()
