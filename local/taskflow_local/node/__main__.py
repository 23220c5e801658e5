"""`python -m taskflow_local.node`: the Node of a local stack. KUBECONFIG is a file that local mode wrote."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from taskflow_local.kube import Access, Kube
from taskflow_local.node.agent import Agent, kill_leftovers
from taskflow_local.node.logs import LogServer
from taskflow_local.node.reload import Reloader
from taskflow_local.readiness import READY_FILE


async def serve(pods: Path, pki: Path, port: int, access: Access, reload: tuple[Sequence[Path], Path]) -> None:
    """Run the node until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    ready = pods / READY_FILE
    async with Kube(access) as kube:
        agent = Agent(kube, pods, port)
        async with LogServer(pods, agent.is_running, pki, port):
            reloader = asyncio.create_task(Reloader(kube, *reload).run()) if reload[0] else None
            await agent.run(stop, lambda: _write(ready))
            if reloader is not None:
                reloader.cancel()
    ready.unlink(missing_ok=True)


def _write(ready: Path) -> None:
    ready.write_text(f"{os.getpid()}\n")


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m taskflow_local.node", description=main.__doc__)
    parser.add_argument("--pods", type=Path, required=True, help="folder for the Pods' logs, records and scratch space")
    parser.add_argument("--pki", type=Path, required=True, help="folder with the stack's certificates")
    parser.add_argument("--port", type=int, required=True, help="loopback port on which the API server asks for logs")
    parser.add_argument("--handlers", type=Path, nargs="*", default=[], help="modules whose change replaces workers")
    parser.add_argument("--declared", type=Path, default=Path(), help="folder in which they are declared")
    arguments = parser.parse_args()
    pods: Path = arguments.pods
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.dev.ConsoleRenderer(colors=False),
        ]
    )
    killed = kill_leftovers(pods)
    structlog.get_logger().info("node_started", killed_leftovers=killed)
    access = Access.read(Path(os.environ["KUBECONFIG"]))
    asyncio.run(serve(pods, arguments.pki, arguments.port, access, (arguments.handlers, arguments.declared)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
