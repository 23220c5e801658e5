from __future__ import annotations

import asyncio
import time

from taskflow_core.ledger.turns import Turns


def work() -> None:
    time.sleep(0.003)


async def test_others_run_during_long_work_and_are_not_asked_for_each_piece_of_short_work() -> None:
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    turns = Turns(0.002)
    for _ in range(10):
        work()
        await turns.give()
    assert others >= 9
    patient = Turns(60)
    before = others
    for _ in range(100):
        await patient.give()
    assert others == before
    task.cancel()
