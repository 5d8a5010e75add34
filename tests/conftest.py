"""Fixtures for all tests: a fixed cast of people, a private installation, a real browser."""

from __future__ import annotations

import fcntl
import functools
import ipaddress
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.management import create_contenttypes
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.models.signals import post_migrate
from pytest_django.fixtures import Settings
from pytest_django.plugin import DjangoDbBlocker

from runs.engine import model
from tests.forkserver import Process, forkserver
from tests.postgres import database_of, on_server

# Playwright's sync API keeps a running loop in the main thread, where tests read the database.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

ROOT = Path(__file__).resolve().parent.parent
UNDER_CI = os.environ.get("CI", "") == "true"


# Files that take longest, of those with real processes and browsers: they begin first, so that no process of
# the tests is left alone with one of them at the end.
LONGEST = [
    *("crash_matrix", "story", "commands", "accessibility", "notifications", "reading_runs", "workers"),
    *("crash", "repricing", "policy_pages", "chaos", "summaries", "budget_scopes", "scale_out", "at_limit"),
    *("second_thoughts", "reviewing_together", "find_browser", "budget_browser"),
]


SHARED = "AGENTOPS_TESTS_SHARED"


def pytest_configure(config: pytest.Config) -> None:
    """A folder for all processes of this run of the tests; whoever makes it removes it."""
    if SHARED not in os.environ:
        os.environ[SHARED] = tempfile.mkdtemp(prefix="agentops-shared-")
        config.add_cleanup(functools.partial(shutil.rmtree, os.environ[SHARED], ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all others in their order."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


OF_THIS_MACHINE = {None, "", "localhost", socket.gethostname(), b"localhost"}


def _stay_on_this_machine(event: str, arguments: tuple[Any, ...]) -> None:
    """Raises before the process of the tests looks a name up elsewhere or sends anything off the machine."""
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        end = arguments[1]
        host = end[0] if isinstance(end, tuple) and arguments[0].family != socket.AF_UNIX else None
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        host = arguments[0]
    else:
        return
    if host in OF_THIS_MACHINE:
        return
    is_number = False
    with suppress(OSError):  # a number in any spelling is not looked up
        is_number = bool(socket.inet_aton(str(host)))
    with suppress(ValueError):
        if ipaddress.ip_address(str(host).partition("%")[0]).is_loopback:
            return
        is_number = True
    if not (is_number and event == "socket.getaddrinfo"):
        raise AssertionError(f"a test would leave this machine: {event} {host!r}")


sys.addaudithook(_stay_on_this_machine)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Under CI a test that was skipped for want of a browser or a server has failed."""
    report: Any = yield
    needs = item.get_closest_marker("browser") or item.get_closest_marker("server")
    if UNDER_CI and report.skipped and needs:
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
    return report


def _user(name: str, *permissions: str) -> User:
    user = User.objects.create_user(name, password="correct horse battery")
    user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
    return user


@pytest.fixture
def operator(db: None) -> User:
    """May start runs and decide."""
    return _user("olga", "decide", "start")


@pytest.fixture
def second_operator(db: None) -> User:
    """May start runs and decide, too."""
    return _user("dana", "decide", "start")


@pytest.fixture
def owner(db: None) -> User:
    """May start runs, decide, and change rules."""
    return _user("petra", "decide", "policy", "start")


@pytest.fixture
def viewer(db: None) -> User:
    """May look."""
    return _user("vera")


@pytest.fixture
def faults(settings: Settings) -> Iterator[Callable[[str], None]]:
    """Scripts the simulator of this process; the next run meets a fresh one."""

    def script(text: str) -> None:
        model.disconnect()
        settings.AGENTOPS_SIMULATOR_FAULTS = text

    script("")
    yield script
    model.disconnect()


DATABASE = "agentops.sqlite3"
UNWANTED = ("ANTHROPIC", "DJANGO", "DATABASE", "PYTHONDONTWRITEBYTECODE")


POSTGRES = os.environ.get("DATABASE_URL", "") if connection.vendor == "postgresql" else ""
# A database with all tables, copied for each installation; one for each process of the tests.
TEMPLATE = f"agentops_template_{os.environ.get('PYTEST_XDIST_WORKER', '')}"


@functools.cache
def template(address: str) -> str:
    """The name of the template in this cluster; made on first use."""
    on_server(address, f"CREATE DATABASE {TEMPLATE}")
    migrated = subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v0"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_of(address, TEMPLATE)},
    )
    assert migrated.returncode == 0
    return TEMPLATE


@functools.cache
def tables() -> Path:
    """A SQLite database with all tables and nothing in them, made once for all processes of the tests."""
    path = Path(os.environ[SHARED]) / DATABASE
    with (path.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            clean = {k: v for k, v in os.environ.items() if not k.startswith(UNWANTED)}
            folder = path.parent / "making"
            migrated = forkserver().run(
                ["manage.py", "migrate", "-v0"], clean | {"AGENTOPS_DATA": str(folder)}, 120
            )
            assert migrated.returncode == 0, migrated.stderr
            (folder / DATABASE).rename(path)
    return path


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """The database of this process is a copy of one that has all tables, where that is a file."""
    return connection.vendor == "sqlite"


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, django_db_keepdb: bool
) -> None:
    """Put the copy where Django looks for it."""
    if django_db_keepdb:
        shutil.copy(tables(), connection.settings_dict["TEST"]["NAME"])


PERMANENT = (ContentType, Permission)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """A flush puts content types and permissions back as they were.

    Django makes all of them anew after each test with transactions, and that costs more than most tests do.
    """
    with django_db_blocker.unblock():
        rows = [(table, list(table._default_manager.all())) for table in PERMANENT]

    def put_back(**_: object) -> None:
        for table, known in rows:
            table._default_manager.bulk_create(known)

    post_migrate.disconnect(create_contenttypes)
    post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    post_migrate.connect(put_back, sender=apps.get_app_config("auth"), weak=False)


class Installation:
    """A private installation in a folder of its own, run by the real commands as real processes.

    When the tests run on PostgreSQL, or with the address of a cluster, it has a database of its own there.
    Its tables are there from the beginning: to make them takes longer than most tests.
    """

    def __init__(self, folder: Path, postgres: str = POSTGRES, **environment: str) -> None:
        self.folder = folder
        self.database = ""
        if postgres:
            name = f"agentops_{uuid.uuid4().hex}"
            on_server(postgres, f"CREATE DATABASE {name} TEMPLATE {template(postgres)}")
            self.database = database_of(postgres, name)
            environment["DATABASE_URL"] = self.database
        elif not (folder / DATABASE).exists():
            shutil.copy(tables(), folder / DATABASE)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(UNWANTED)},
            "AGENTOPS_DATA": str(folder),
            "AGENTOPS_PACE": "0",
            "AGENTOPS_COOLING_OFF_SECONDS": "0",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self._started: list[Process | subprocess.Popen[str]] = []
        self.web: Process | None = None

    def without_tables(self) -> Installation:
        """The same as somebody has it who has just unpacked it, on SQLite."""
        if not self.database:
            (self.folder / DATABASE).unlink()
        return self

    def command(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run one manage.py command to its end."""
        return forkserver().run(["manage.py", *arguments], self.environment, timeout)

    def start(self, *arguments: str, **environment: str) -> Process:
        """Start a manage.py command that stays; it is ended with the test."""
        process = forkserver().popen(["manage.py", *arguments], self.environment | environment)
        self._started.append(process)
        return process

    def start_afresh(self, *arguments: str) -> subprocess.Popen[str]:
        """The same with an interpreter of its own, as a person starts it; takes a second longer."""
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._started.append(process)
        return process

    def serve(self, port: int = 0) -> str:
        """Start the web process alone, at this port or a free one; returns its address."""
        arguments = ["-m", "uvicorn", "agentops.asgi:application", "--port", str(port), "--lifespan", "off"]
        process = forkserver().popen(arguments, self.environment)
        self._started.append(process)
        self.web = process
        line = wait_for_line(process, "running on")
        found = re.search(r"http://[\d.]+:\d+", line)
        assert found, line
        return found[0]

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Read the installation's database directly, as nobody else's code would."""
        if self.database:
            with psycopg.connect(self.database) as server:
                return server.execute(query.encode(), parameters or None).fetchall()
        path = f"file:{self.folder}/agentops.sqlite3?mode=ro"
        with closing(sqlite3.connect(path, uri=True, timeout=20)) as source:
            return source.execute(query, parameters).fetchall()

    def close(self) -> None:
        """End what was started here, by id."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._started:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


def wait_for_line(process: Process | subprocess.Popen[str], words: str) -> str:
    """The first line of output that holds these words; fails with all output when the process ends."""
    assert process.stdout
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return line
    raise AssertionError(f"{words!r} never came:\n{''.join(seen)}")


def eventually(check: Any, *, within: float = 30.0) -> Any:
    """The first true value of check(), looked for every 20 ms; fails after `within` seconds."""
    until = time.monotonic() + within
    while not (value := check()):
        assert time.monotonic() < until, f"did not happen within {within} s"
        time.sleep(0.02)
    return value


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """A fresh installation that does not wait for show."""
    made = Installation(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium. Module scope: a longer life would keep its loop from later async tests."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium: install Debian's chromium, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()
