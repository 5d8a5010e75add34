"""The command line: what a new user types first, and what scripts rely on."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from decimal import Decimal
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from tests.conftest import Installation, eventually, wait_for_line

pytestmark = pytest.mark.server
QUESTION = "PostgreSQL connection pool exhausted"


def test_runagent_yes_finds_evidence_before_it_acts_and_adds_up(installation: Installation) -> None:
    done = installation.command("runagent", QUESTION, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    log = json.loads(done.stdout)
    assert log["user_query"] == QUESTION and log["status"] == "succeeded" and log["simulated"]
    names = [call["name"] for call in log["tool_calls"]]
    acts = [n for n, call in enumerate(log["tool_calls"]) if call["effect"] == "destructive"]
    assert len(acts) == 1 and log["tool_calls"][acts[0]]["status"] == "succeeded"
    before, after = set(names[: acts[0]]), set(names[acts[0] + 1 :])
    assert {"search_logs", "get_metrics", "list_recent_deployments"} <= before
    assert "get_metrics" in after, "it checks that the fix worked"
    assert all(result["content"]["status"] == "ok" for result in log["tool_results"])
    assert log["final_response"] and log["claude_reasoning"]

    classes = ["input", "cache_write_5m", "cache_write_1h", "cache_read", "output"]
    total = Decimal(0)
    tokens = 0
    for call in log["model_calls"]:
        prices, usage = call["usd_per_million_tokens"], call["usage"]
        total += sum(Decimal(prices[name]) * usage[f"{name}_tokens"] for name in classes) / 1_000_000
        tokens += sum(usage[f"{name}_tokens"] for name in classes)
    assert Decimal(log["cost_usd"]) == total > 0
    assert log["total_tokens"] == tokens
    (approval,) = log["approvals"]
    assert approval["state"] == "approved" and len(approval["votes"]) == 1

    again = installation.command("exportrun", log["request_id"])
    assert json.loads(again.stdout) == log


def test_runagent_no_executes_nothing_and_files_a_ticket(installation: Installation) -> None:
    done = installation.command("runagent", QUESTION, "--no", "--json")
    assert done.returncode == 0, done.stderr
    log = json.loads(done.stdout)
    acts = [call for call in log["tool_calls"] if call["effect"] == "destructive"]
    assert acts and all(call["status"] == "refused" for call in acts)
    assert "create_incident_ticket" in [c["name"] for c in log["tool_calls"] if c["status"] == "succeeded"]
    assert installation.rows("SELECT count(*) FROM tools_worldaction") == [(0,)]
    assert installation.rows("SELECT count(*) FROM tools_ticket") == [(1,)]


def test_runagent_without_anybody_to_ask_leaves_the_run_waiting(installation: Installation) -> None:
    done = installation.command("runagent", QUESTION)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "waits for a decision" in done.stdout and "Approval needed" in done.stdout
    assert installation.rows("SELECT status, lease_owner FROM runs_run") == [("waiting", "")]


def test_runagent_stopped_by_its_budget_says_what_it_found(tmp_path: Path) -> None:
    installation = Installation(tmp_path, AGENTOPS_RUN_BUDGET_USD="0.09")
    done = installation.command("runagent", QUESTION, "--yes", "--json")
    assert done.returncode == 3, done.stdout + done.stderr
    log = json.loads(done.stdout)
    assert (log["status"], log["reason"]) == ("stopped", "cost_usd")
    assert Decimal(log["cost_usd"]) <= Decimal("0.09")
    assert "$0.09" in log["explanation"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runagent", " "], "Write what the agent should find out"),
        (["runagent", "x" * 100_000], "Shorten it"),
        (["runagent", "Why?", "--agent", "nobody"], "Installed: incident"),
        (["runagent", "Why?", "--scenario", "volcano"], "Known:"),
        (["runagent"], "QUESTION"),
        (["worker", "--concurrency", "0"], "1 to 256"),
        (["exportrun", "42"], "not a request id"),
        (["demo", "--scenario", "volcano"], "Known:"),
    ],
)
def test_wrong_usage_is_status_2_and_a_sentence(
    installation: Installation, arguments: list[str], words: str
) -> None:
    done = installation.command(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AGENTOPS_PACE", "abc", "not a number"),
        ("AGENTOPS_SIMULATOR", "maybe", "neither yes nor no"),
        ("AGENTOPS_RUN_BUDGET_USD", "-1", "not a number of zero or more"),
        ("AGENTOPS_SIMULATOR_FAULTS", "1: confetti", "AGENTOPS_SIMULATOR_FAULTS cannot be read"),
        ("DATABASE_URL", "garbage", "is no database address"),
        ("DATABASE_URL", "mysql://localhost/x", "use PostgreSQL or an SQLite file"),
        ("DATABASE_URL", "sqlite://:memory:", "use PostgreSQL or an SQLite file"),
        ("DATABASE_URL", "postgres://127.0.0.1:1/x", "Start it, or correct its address"),
        ("AGENTOPS_DATA", "/dev/null/data", "Set AGENTOPS_DATA to a folder"),
    ],
)
def test_a_wrong_setting_is_a_sentence(tmp_path: Path, name: str, value: str, words: str) -> None:
    done = Installation(tmp_path, **{name: value}).command("runagent", "Why?", "--detach")
    assert done.returncode == 1
    assert words in done.stderr and "Traceback" not in done.stderr


def test_processes_that_start_together_on_fresh_data_share_it(installation: Installation) -> None:
    installation.without_tables()
    workers = [installation.start("worker") for _ in range(3)]
    for worker in workers:
        wait_for_line(worker, "drives up to")


def test_an_empty_secret_is_replaced(installation: Installation) -> None:
    (installation.folder / "secret_key").touch()
    assert installation.command("check").returncode == 0
    assert len((installation.folder / "secret_key").read_text()) > 40


def test_a_terminal_that_cannot_show_a_character_gets_its_code(tmp_path: Path) -> None:
    installation = Installation(tmp_path, PYTHONIOENCODING="ascii")
    done = installation.command("runagent", "Why is the café slow? 🍂", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["user_query"] == "Why is the café slow? 🍂"


def test_no_key_and_no_simulator_says_what_to_set(tmp_path: Path) -> None:
    done = Installation(tmp_path, AGENTOPS_SIMULATOR="0").command("runagent", "Why?")
    assert done.returncode == 1 and "ANTHROPIC_API_KEY" in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_run_cannot_be_exported(installation: Installation) -> None:
    done = installation.command("exportrun", "8f2c41d0-1b2c-4d3e-8f90-a1b2c3d4e5f6")
    assert done.returncode == 1 and "There is no run" in done.stderr


def test_a_port_in_use_is_said_before_anything_starts(installation: Installation) -> None:
    installation.without_tables()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = installation.command("demo", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "another program listens there" in done.stderr and "--port" in done.stderr
    assert not (installation.folder / "agentops.sqlite3").exists()


def test_a_database_that_cannot_be_written_is_said_with_what_to_do(installation: Installation) -> None:
    (installation.without_tables().folder / "agentops.sqlite3").mkdir()
    done = installation.command("worker")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Cannot use the database" in done.stderr and "Traceback" not in done.stderr


def test_the_secret_key_is_made_once_and_for_its_owner_alone(installation: Installation) -> None:
    installation.command("check")
    path = installation.folder / "secret_key"
    secret = path.read_text()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    installation.command("check")
    assert path.read_text() == secret


def test_demo_serves_stops_on_ctrl_c_and_keeps_its_data(installation: Installation) -> None:
    demo = installation.without_tables().start_afresh("demo", "--port", "0")
    link = wait_for_line(demo, "/sign-in/").strip()
    browser = build_opener(HTTPCookieProcessor())
    with browser.open(link, timeout=30) as answer:
        assert "PostgreSQL connection pool exhausted" in answer.read().decode()
    assert installation.rows(
        "SELECT codename FROM auth_permission p JOIN auth_user_user_permissions u ON u.permission_id = p.id "
        "ORDER BY codename"
    ) == [("budget",), ("decide",), ("notify",), ("policy",), ("price",), ("start",)]
    with pytest.raises(HTTPError), build_opener().open(link, timeout=30):
        raise AssertionError("the link works twice")
    eventually(lambda: installation.rows("SELECT 1 FROM runs_run WHERE status = 'waiting'"))
    # A terminal sends Ctrl-C to every process of the command, and a launcher may pass it on once more.
    demo.send_signal(signal.SIGINT)
    demo.send_signal(signal.SIGINT)
    rest = demo.communicate(timeout=30)[0]
    assert demo.returncode == 0 and "Everything is kept" in rest and "Traceback" not in rest
    again = installation.start("demo", "--port", "0")
    wait_for_line(again, "/sign-in/")
    again.send_signal(signal.SIGINT)
    assert "Traceback" not in again.communicate(timeout=30)[0]
    assert installation.rows("SELECT count(*) FROM runs_run") == [(1,)]
