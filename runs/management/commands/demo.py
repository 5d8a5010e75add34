"""manage.py demo"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import time
from argparse import ArgumentParser
from typing import Any

import uvicorn
from channels.routing import get_default_application
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.urls import reverse
from rich.console import Console

from runs import actions, agents
from runs.engine.model import disconnect
from runs.engine.worker import Worker
from runs.management.startup import allow_operating, check_model, prepare_database
from runs.management.trace import Trace
from runs.models import Run
from tools.backends import estate

DEMO_USER = "operator"


class Command(BaseCommand):
    help = "Start agentops on this machine, web and worker in one process, and drive a first incident."

    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Where to listen, and which incident to simulate."""
        known = ", ".join(item.id for item in estate.scenarios())
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on (default 8000)")
        parser.add_argument("--scenario", default="", metavar="NAME", help=f"start this incident: {known}")

    def handle(self, *args: Any, host: str, port: int, scenario: str, **options: Any) -> None:
        """Serve until Ctrl-C."""
        console = Console(highlight=False)
        listener = bind(host, port)
        console.print("agentops", style="bold", end="")
        console.print(f"  data in {settings.DATABASES['default']['NAME']}", style="dim")
        prepare_database()
        check_model()
        user = demo_user()
        run = first_incident(user, scenario)
        if host not in settings.ALLOWED_HOSTS:
            settings.ALLOWED_HOSTS.append("*" if host in {"0.0.0.0", "::"} else host)  # noqa: S104
        server = uvicorn.Server(
            uvicorn.Config(
                get_default_application(), log_level="warning", lifespan="off", timeout_graceful_shutdown=2
            )
        )
        worker = Worker(concurrency=4)
        driving = threading.Thread(target=worker.run, name="worker")
        driving.start()
        web = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="web")
        web.start()
        base = f"http://{host}:{listener.getsockname()[1]}"
        trace = Trace(console)
        with Interrupt() as stopped:
            try:
                self._welcome(console, base, user, run, server)
                trace.follow_all(since=run, until=stopped)
            finally:
                console.print("\nStopping: each run finishes its current step …", style="dim")
                server.should_exit = True
                worker.stop()
                web.join()
                driving.join()
                disconnect()
                connections.close_all()
                console.print("Stopped. Everything is kept; start again to go on.", style="dim")

    def _welcome(
        self, console: Console, base: str, user: User, run: Run | None, server: uvicorn.Server
    ) -> None:
        while not server.started and not server.should_exit:
            time.sleep(0.01)
        link = base + reverse("sign-in-link", args=[actions.make_sign_in_link(user)])
        kind = "Claude" if settings.ANTHROPIC_API_KEY else "the local simulator (no ANTHROPIC_API_KEY is set)"
        console.print(f"Runs are answered by {kind}.")
        console.print("Open this once to sign in:", style="bold")
        console.print(f"  {link}", style="cyan", soft_wrap=True)
        if run is not None:
            console.print(f"Then watch: {base}{run.get_absolute_url()}\n", soft_wrap=True)
        console.print("Ctrl-C stops. What happens now:", style="dim")
        sys.stdout.flush()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, before anything else is started; CommandError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "another program listens there" if taken else str(error)
        raise CommandError(
            f"Cannot listen on {host}:{port}: {why}. Choose another port: manage.py demo --port 8001"
        ) from error
    return listener


def demo_user() -> User:
    """The user that the printed link signs in; made on first use, without a password."""
    user, created = User.objects.get_or_create(username=DEMO_USER)
    if created:
        user.set_unusable_password()
        user.save(update_fields=["password"])
        allow_operating(user)
    return user


def first_incident(user: User, scenario: str) -> Run | None:
    """A first run when there is none yet, or one of the chosen incident; None when old runs go on."""
    incidents = {item.id: item for item in estate.scenarios()}
    if scenario and scenario not in incidents:
        raise CommandError(f"There is no incident {scenario!r}. Known: {', '.join(incidents)}", returncode=2)
    if not scenario and Run.objects.exists():
        return None
    incident = incidents[scenario] if scenario else next(iter(incidents.values()))
    return actions.start_run(
        question=incident.alert,
        agent=next(iter(agents.installed())),
        user=user,
        started_by="alert",
        scenario=incident.id,
    )


class Interrupt:
    """Within it, Ctrl-C and SIGTERM set an event. The first asks to stop, the third does not wait."""

    def __enter__(self) -> threading.Event:
        self._asked = threading.Event()
        self._times = 0
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self._asked

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, *_: object) -> None:
        self._times += 1
        if self._times > 2:
            os._exit(130)  # what was committed is the run; the next start goes on from there
        self._asked.set()
