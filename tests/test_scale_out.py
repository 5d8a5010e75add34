"""Many workers on one PostgreSQL: they share the runs, take over from the dead, and wait for the database."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psycopg
import pytest

from tests.conftest import Installation, eventually, wait_for_line
from tests.forkserver import Process
from tests.postgres import private_cluster

pytestmark = [pytest.mark.server, pytest.mark.postgres]

START = """
from runs import actions
for number in range({}):
    actions.start_run(question=f"Is the shop healthy? {{number}}", agent="incident", user=None,
                      started_by="test", scenario="noisy-healthy")
"""
RUNNING = "SELECT count(*) FROM runs_run WHERE status = 'running' AND step_count > 1"
UNENDED = "SELECT status, count(*) FROM runs_run WHERE ended_at IS NULL GROUP BY status"
CLAIMS = "SELECT actor, data FROM runs_event WHERE kind = 'run.claimed' ORDER BY id"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Installation]:
    """An installation whose runs take some seconds, and whose processes have few connections each."""
    made = Installation(
        tmp_path, AGENTOPS_LEASE_SECONDS="2", AGENTOPS_PACE="0.2", AGENTOPS_DATABASE_CONNECTIONS="4"
    )
    yield made
    made.close()


def start_runs(shop: Installation, number: int) -> None:
    started = shop.command("shell", "-v0", "-c", START.format(number))
    assert started.returncode == 0, started.stderr


def start_worker(shop: Installation, concurrency: int) -> tuple[Process, str]:
    """A worker that looks for runs, and its name."""
    worker = shop.start("worker", "--concurrency", str(concurrency))
    return worker, wait_for_line(worker, "drives up to").split()[1]


def all_good(shop: Installation, number: int) -> bool:
    """Every run ends well; nothing is lost or twice, and no job is left behind."""
    eventually(lambda: not shop.rows(UNENDED), within=90)
    assert shop.rows("SELECT status, count(*) FROM runs_run GROUP BY status") == [("succeeded", number)]
    checked = shop.command("checkruns")
    assert (checked.returncode, checked.stdout) == (0, f"{number} runs checked, 0 with contradictions\n")
    for seqs in shop.rows("SELECT array_agg(seq ORDER BY seq) FROM runs_step GROUP BY run_id"):
        assert seqs[0] == list(range(1, len(seqs[0]) + 1)), "a step is missing or twice"
    return bool(eventually(lambda: shop.rows("SELECT count(*) FROM procrastinate_jobs") == [(0,)]))


def test_a_killed_worker_loses_its_runs_to_another_and_nothing_else(shop: Installation) -> None:
    start_runs(shop, 4)
    doomed, doomed_name = start_worker(shop, 4)
    eventually(lambda: shop.rows(RUNNING) == [(4,)])
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait()
    assert shop.rows("SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'") == [(4,)]
    survivors = {start_worker(shop, 2)[1], start_worker(shop, 2)[1]}
    assert all_good(shop, 4)
    claims = shop.rows(CLAIMS)
    taken = [actor for actor, data in claims if f'"taken_over_from":"{doomed_name}"' in data]
    assert len(taken) == 4 and set(taken) == survivors, "both take runs over, each run once"


def test_a_worker_that_is_told_to_stop_hands_its_runs_to_another(shop: Installation) -> None:
    start_runs(shop, 4)
    leaving, _ = start_worker(shop, 4)
    eventually(lambda: shop.rows(RUNNING) == [(4,)])
    _, staying = start_worker(shop, 4)
    leaving.send_signal(signal.SIGTERM)
    assert leaving.wait(30) == 0
    assert all_good(shop, 4)
    assert [actor for actor, _ in shop.rows(CLAIMS)[4:]] == [staying] * 4
    assert not [data for _, data in shop.rows(CLAIMS) if '"taken_over_from":""' not in data]
    assert shop.rows("SELECT count(*) FROM runs_event WHERE kind = 'run.handed_back'") == [(4,)]


def test_many_runs_share_few_connections(shop: Installation) -> None:
    start_runs(shop, 12)
    start_worker(shop, 12)
    connected = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'agentops'"
    )
    most = at_once = 0
    while shop.rows(UNENDED):
        most = max(most, shop.rows(connected)[0][0])
        at_once = max(at_once, shop.rows(RUNNING)[0][0])
    assert at_once > 8
    assert most <= 4 + 3, "the pool, two for jobs, and one that listens"
    assert all_good(shop, 12)


def test_a_worker_waits_for_a_database_that_restarts(tmp_path: Path) -> None:
    with private_cluster() as cluster:
        shop = Installation(
            tmp_path, postgres=cluster.address, AGENTOPS_LEASE_SECONDS="2", AGENTOPS_PACE="0.2"
        )
        try:
            start_runs(shop, 4)
            worker, _ = start_worker(shop, 4)
            eventually(lambda: shop.rows(RUNNING) == [(4,)])
            cluster.stop()
            assert "the database does not answer" in wait_for_line(worker, "does not answer")
            cluster.start()
            assert all_good(shop, 4)
            assert worker.poll() is None
        finally:
            shop.close()


def test_pages_that_get_no_connection_say_that_the_database_is_busy(shop: Installation) -> None:
    shop.environment["AGENTOPS_DATABASE_CONNECTIONS"] = "4"
    made = shop.command("createsuperuser", "--noinput", "--username", "olga", "--email", "olga@example.com")
    assert made.returncode == 0, made.stderr
    address = shop.serve()
    link = shop.command("signinlink", "olga", "--base-url", address).stdout.strip()
    with (
        httpx2.Client(follow_redirects=True, timeout=60) as browser,
        ThreadPoolExecutor(6) as threads,
        psycopg.connect(shop.database) as somebody,
    ):
        assert browser.get(link).status_code == 200
        somebody.execute("LOCK TABLE runs_run IN ACCESS EXCLUSIVE MODE")
        asked = [threads.submit(browser.get, f"{address}/") for _ in range(6)]
        eventually(lambda: sum(page.done() for page in asked) >= 2, within=30)
        refused = [page.result() for page in asked if page.done()]
        somebody.rollback()
        answers = [page.result() for page in asked]
        assert sorted(answer.status_code for answer in answers) == [200] * 4 + [503] * 2
        for page in refused:
            assert "The database is busy" in page.text and page.headers["Retry-After"] == "5"
        assert browser.get(f"{address}/").status_code == 200
