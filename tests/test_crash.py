"""A worker is killed with kill -9 in the middle of a run, and the run finishes as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import Installation, eventually, wait_for_line

pytestmark = [pytest.mark.server, pytest.mark.anywhere]


@pytest.mark.long
def test_a_run_survives_its_worker_being_killed_again_and_again(tmp_path: Path) -> None:
    installation = Installation(tmp_path, AGENTOPS_LEASE_SECONDS="1", AGENTOPS_PACE="0.15")
    try:
        started = installation.command(
            "runagent", "PostgreSQL connection pool exhausted", "--detach", "--json"
        )
        request_id = json.loads(started.stdout)["request_id"]

        # First death: a turn is streaming. Second: tools are running or about to.
        for moment in (
            "SELECT 1 FROM runs_step WHERE kind = 'model' AND status = 'running' AND length(draft) > 0",
            "SELECT 1 FROM runs_step WHERE kind = 'tool' AND status IN ('executing', 'ready')",
        ):
            worker = installation.start("worker")
            wait_for_line(worker, "drives up to")
            eventually(lambda query=moment: installation.rows(query))
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
            assert installation.rows("SELECT status FROM runs_run") == [("running",)]

        survivor = installation.start("worker")
        wait_for_line(survivor, "drives up to")
        eventually(lambda: installation.rows("SELECT 1 FROM runs_run WHERE status = 'waiting'"), within=60)
        os.kill(survivor.pid, signal.SIGKILL)  # third death: nothing runs, a person is asked
        survivor.wait()

        approved = installation.command(
            "shell",
            "-v0",
            "-c",
            "from runs import actions; from runs.models import Approval;"
            "from runs.management.startup import operating_system_user as me;"
            "a = Approval.objects.get(state='pending');"
            "actions.decide(approval_id=a.pk, voter=me(), verdict='approve', revision=1, digest=a.digest)",
        )
        assert approved.returncode == 0, approved.stderr
        last = installation.start("worker")
        wait_for_line(last, "drives up to")
        eventually(lambda: installation.rows("SELECT 1 FROM runs_run WHERE status = 'succeeded'"), within=60)

        log = json.loads(installation.command("exportrun", request_id).stdout)
        ids = [call["id"] for call in log["tool_calls"]]
        assert len(ids) == len(set(ids)) and all(call["status"] == "succeeded" for call in log["tool_calls"])
        assert [result["tool_use_id"] for result in log["tool_results"]] == ids
        seqs = [seq for (seq,) in installation.rows("SELECT seq FROM runs_step ORDER BY seq")]
        assert seqs == list(range(1, len(seqs) + 1)), "a step is missing or twice"
        lost = [call for call in log["model_calls"] if call["status"] == "failed"]
        assert lost and all("worker process ended" in call["error"] for call in lost)
        assert all(call["usage"]["estimated"] for call in lost)
        assert installation.rows("SELECT count(*) FROM tools_worldaction") == [(1,)]
        claims = [event for event in log["events"] if event["kind"] == "run.claimed"]
        assert any(event["data"]["taken_over_from"] for event in claims)
        checked = installation.command("checkruns")
        assert (checked.returncode, checked.stdout) == (0, "1 runs checked, 0 with contradictions\n")
    finally:
        installation.close()
