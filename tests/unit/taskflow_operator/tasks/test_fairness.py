from __future__ import annotations

from taskflow_operator.tasks import dispatcher
from tests.builders import make_task
from tests.unit.taskflow_operator.fakes import eventually
from tests.unit.taskflow_operator.parts import Parts


async def test_a_task_of_another_namespace_waits_for_the_batch_before_it_and_its_turn() -> None:
    async with Parts() as parts:
        for namespace in ("crowd", "team-a"):
            parts.serve("default", namespace=namespace)
        for number in range(20 * dispatcher.BATCH):
            parts.work_queue.add(parts.add(make_task(uid=f"c{number}", name=f"c{number}", namespace="crowd")).uid)
        await eventually(lambda: parts.publisher.sent)
        before = len(parts.publisher.sent)
        parts.work_queue.add(parts.add(make_task(uid="first")).uid)
        await eventually(lambda: any(sent.message.uid == "first" for sent in parts.publisher.sent))
        place = [sent.message.uid for sent in parts.publisher.sent].index("first")
        assert place - before <= 2 * dispatcher.BATCH
