"""Assembles what runs Tasks in pods of their own, in two steps: the delivery needs the launcher, the controller needs
the delivery.
"""

from __future__ import annotations

from taskflow_operator.assembly.foundation import Foundation
from taskflow_operator.assembly.part import Part
from taskflow_operator.assembly.tasks import TaskCore
from taskflow_operator.isolated.controller import JobController
from taskflow_operator.isolated.launcher import JobLauncher
from taskflow_operator.pools.controller import PoolController
from taskflow_operator.tasks.delivery import Delivery


def build_launcher(base: Foundation, core: TaskCore, pools: PoolController) -> JobLauncher:
    """What creates Jobs, from the pod templates of pools."""
    return JobLauncher(
        base.kube, base.ledger, pools.pod_template, token_key=base.token_key, changed=core.work_queue.add
    )


def build_controller(base: Foundation, core: TaskCore, launcher: JobLauncher, delivery: Delivery) -> Part:
    """What looks after Jobs."""
    controller = JobController(
        core.tasks,
        base.kube,
        base.ledger,
        launcher,
        delivery.republish_all,
        lease_seconds=base.settings.lease_seconds,
    )
    return Part({"jobs": controller.run})
