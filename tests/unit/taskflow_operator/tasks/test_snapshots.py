from taskflow_core.domain.events import TaskSnapshot
from taskflow_operator.tasks.snapshots import snapshot
from tests.builders import make_task


def test_the_history_is_told_the_labels_and_an_operator_of_before_told_none() -> None:
    task = make_task().model_copy(update={"labels": {"team": "a"}})
    told = snapshot(task).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert told["labels"] == {"team": "a"}
    assert snapshot(make_task()).labels == {}
    del told["labels"]
    assert TaskSnapshot.model_validate(told).labels is None
