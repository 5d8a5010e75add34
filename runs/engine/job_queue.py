"""On PostgreSQL jobs name the runs to drive: procrastinate fetches them, woken by the commit that defers one.

A job lasts as long as its run is driven here, so that as many are fetched as there are threads. It may end
sooner: what counts is the lease of the run. A run that has no job, because its worker died or a job was
lost, gets one by the sweep.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import OperationalError, connections
from django.utils import timezone
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Status

from runs import actions, hints, jobs
from runs.actions import Lease

if TYPE_CHECKING:
    from runs.engine.worker import Worker

SWEEP_SECONDS = 1.0  # what only time makes due is looked for this often
STOP_SECONDS = 0.1  # how soon a stop is noticed
MOST_SWEPT = 500  # runs that one sweep looks at


class JobQueue:
    """Claims the runs that jobs name."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def serve(self) -> None:
        """Begin runs until the worker is stopping; see Source."""
        try:
            asyncio.run(self._serve())
        except ConnectorException as error:
            raise OperationalError(str(error.__cause__ or error)) from error

    async def _serve(self) -> None:
        working = asyncio.create_task(self._work())
        while not self._worker.stopping.is_set() and not working.done():
            await asyncio.wait([working], timeout=STOP_SECONDS)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working

    async def _work(self) -> None:
        """Fetch jobs and sweep, until cancelled or until one of the two ends."""
        # Two connections of its own, and one more that listens.
        connector = PsycopgConnector(kwargs=hints.postgres_parameters(), min_size=1, max_size=2, timeout=10)
        app = App(connector=connector)
        app.task(name=jobs.DRIVE)(self._drive)
        async with app.open_async():
            parts = [asyncio.create_task(self._fetch(app)), asyncio.create_task(self._sweep(app))]
            try:
                await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for part in parts:
                    part.cancel()
                ends = await asyncio.gather(*parts, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _fetch(self, app: App) -> None:
        await app.run_worker_async(
            name=self._worker.name,
            queues=[jobs.QUEUE],
            concurrency=self._worker.concurrency,
            delete_jobs="always",
            fetch_job_polling_interval=SWEEP_SECONDS,
            update_heartbeat_interval=settings.AGENTOPS_LEASE_SECONDS / 4,
            stalled_worker_timeout=settings.AGENTOPS_LEASE_SECONDS,
            shutdown_graceful_timeout=0,  # a job may end before its run is left: the worker waits for that
            install_signal_handlers=False,
        )

    async def _drive(self, run_id: int) -> None:
        """The job: claim the run and drive it, unless there is nothing to do."""
        # Threads may be left over from before the database was away. Then a sweep makes another job.
        if self._worker.free > 0 and not self._worker.stopping.is_set():
            await asyncio.wrap_future(self._worker.begin(self._claimed(run_id)))

    def _claimed(self, run_id: int) -> Iterator[Lease]:
        lease = actions.claim(run_id, self._worker.name)
        if lease is not None:
            yield lease

    async def _sweep(self, app: App) -> None:
        """Now and then expire approvals, give a job to runs that lack one, drop the jobs of dead workers."""
        while True:
            await asyncio.to_thread(sweep)
            silent = settings.AGENTOPS_LEASE_SECONDS
            await app.job_manager.prune_stalled_workers(silent)
            stalled = await app.job_manager.get_stalled_jobs(queue=jobs.QUEUE, seconds_since_heartbeat=silent)
            for job in stalled:
                with contextlib.suppress(ConnectorException):  # another worker was first
                    await app.job_manager.finish_job(job, Status.ABORTED, delete_job=True)
            await asyncio.sleep(SWEEP_SECONDS)


def sweep() -> None:
    """What becomes due with time alone: deadlines of approvals, and leases that ran out."""
    try:
        now = timezone.now()
        actions.expire_approvals(now)
        actions.resume_after_budgets(now)
        for run_id in jobs.without_job(actions.claimable(now, MOST_SWEPT)):
            jobs.defer(run_id)
    finally:
        connections.close_all()
