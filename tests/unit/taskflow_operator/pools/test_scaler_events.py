"""What the scaler tells people, and what it takes for an outage."""

from __future__ import annotations

from taskflow_operator.pools.scaler import LOOK_SECONDS, REPORT_SECONDS
from tests.unit.taskflow_operator.pools.scaling_world import at_four


async def test_each_change_of_the_number_of_pods_is_an_event_that_says_why() -> None:
    world = await at_four()
    assert world.events.all == [
        ("ScaledUp", "from 0 to 4 pods: Demand, 4 slots wanted (4 ready, 0 running, 0 due soon)")
    ]
    world.end_all()
    await world.tick(400)
    reason, note = world.events.all[-1]
    assert (reason, note.partition(" pods")[0]) == ("ScaledDown", "from 1 to 0")


async def test_after_an_outage_of_redis_workers_have_time_to_report() -> None:
    world = await at_four()
    await world.tick(REPORT_SECONDS)
    world.view.silent = set(world.cluster.pods)
    # What the loop does when Redis did not answer.
    world.scaler._answers_since = None
    await world.tick(REPORT_SECONDS)
    assert world.cluster.removed == []
    world.view.silent = set()
    await world.tick(LOOK_SECONDS)
    assert world.cluster.removed == []
