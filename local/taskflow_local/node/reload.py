"""Replaces the Pods of pools when a developer's handlers change. See `taskflow_local.handlers`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp
import structlog

from taskflow_core.domain import naming
from taskflow_local.errors import LocalError
from taskflow_local.handlers import ERROR, check, declare, fingerprint
from taskflow_local.kube import Kube, KubeError

POLL_SECONDS = 0.5
log = structlog.get_logger()


class Reloader:
    """Looks at the files twice a second, and has Pods replaced once they can be imported again.

    Args:
        kube: The API server.
        paths: The developer's files and folders.
        declared: The folder of the declaration.
    """

    def __init__(self, kube: Kube, paths: Sequence[Path], declared: Path) -> None:
        self._kube = kube
        self._paths = paths
        self._declared = declared
        self._files: frozenset[Path] = frozenset()

    async def run(self) -> None:
        """Work until it is cancelled."""
        # Pods that start now import what is there now, or say why they cannot.
        seen = fingerprint(self._paths, ())
        await self._import()
        seen = self._known(seen)
        while True:
            await asyncio.sleep(POLL_SECONDS)
            now = fingerprint(self._paths, self._files)
            if now == seen:
                continue
            # An editor may write in pieces.
            while now != (seen := fingerprint(self._paths, self._files)):
                now = seen
                await asyncio.sleep(POLL_SECONDS)
            if await self._import():
                seen = self._known(seen)
                await self._replace()

    def _known(self, seen: Mapping[Path, tuple[int, int]]) -> dict[Path, tuple[int, int]]:
        """What was seen, of the files that are imported now."""
        return {file: seen.get(file, now) for file, now in fingerprint(self._paths, self._files).items()}

    async def _import(self) -> bool:
        try:
            imported = await asyncio.to_thread(check, self._paths, os.environ)
            declare(self._paths, self._declared)
        except LocalError as error:
            (self._declared / ERROR).write_text(f"{error}\n")
            log.warning("handlers_not_reloaded", error=str(error))
            return False
        self._files = imported.files
        log.info("handlers_imported", handlers=imported.names)
        return True

    async def _replace(self) -> None:
        """Delete the Pods of all pools. Their workers let running attempts end or hand them back; new ones start."""
        while True:
            try:
                pods = await self._kube.get(f"/api/v1/pods?labelSelector={naming.LABEL_POOL}")
                for pod in pods["items"]:
                    meta = pod["metadata"]
                    if "deletionTimestamp" not in meta:
                        await self._delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}")
            except (KubeError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("pods_not_replaced", error=str(error))
                await asyncio.sleep(POLL_SECONDS)
                continue
            log.info("pods_replaced", pods=len(pods["items"]))
            return

    async def _delete(self, path: str) -> None:
        try:
            await self._kube.request("DELETE", path)
        except KubeError as error:
            if not error.is_absent:
                raise
