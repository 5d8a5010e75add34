"""manage.py demo"""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
import threading
import time
from argparse import ArgumentParser, ArgumentTypeError
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
from runs.management.interrupt import Interrupt
from runs.management.startup import allow_operating, check_model, prepare_database
from runs.management.trace import Trace
from runs.models import Run
from tools.backends import estate

DEMO_USER = "operator"
MAX_PORT = 65535


class Command(BaseCommand):
    help = "Start agentops on this machine, web and worker in one process, and drive a first incident."

    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Where to listen, and which incident to simulate."""
        known = ", ".join(item.id for item in estate.scenarios())
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
        parser.add_argument("--port", type=port_number, default=8000, help="port to listen on (default 8000)")
        parser.add_argument(
            "--scenario", type=incident, default="", metavar="NAME", help=f"start this incident: {known}"
        )

    def handle(self, *args: Any, host: str, port: int, scenario: str, **options: Any) -> None:
        """Serve until Ctrl-C."""
        console = Console(highlight=False, markup=False)
        listener = bind(host.strip("[]"), port)
        console.print("agentops", style="bold", end="")
        console.print(f"  data in {settings.DATABASES['default']['NAME']}", style="dim")
        prepare_database()
        check_model()
        user = demo_user()
        run = first_incident(user, scenario)
        names = names_of(host.strip("[]"), listener)
        settings.ALLOWED_HOSTS.extend(name for name in names if name not in settings.ALLOWED_HOSTS)
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
        base = f"http://{names[0]}:{listener.getsockname()[1]}"
        trace = Trace(console)
        with Interrupt() as stopped:
            try:
                self._welcome(console, base, user, run, server)
                if is_wildcard(listener):
                    console.print(f"Answers to {', '.join(names)}.", style="dim", soft_wrap=True)
                    console.print("Set AGENTOPS_HOSTS for other names and addresses.", style="dim")
                console.print("Ctrl-C stops. What happens now:", style="dim")
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
        sys.stdout.flush()


def port_number(text: str) -> int:
    """A port to listen on; 0 stands for any free one."""
    if text.isascii() and text.isdecimal() and len(text) < 6 and int(text) <= MAX_PORT:
        return int(text)
    raise ArgumentTypeError(
        f"{text[:20]!r} is no port: give a number from 1 to {MAX_PORT}, or 0 for any free one."
    )


def incident(name: str) -> str:
    """The id of an incident of the simulated shop; empty when none was chosen."""
    known = [item.id for item in estate.scenarios()]
    if name and name not in known:
        raise ArgumentTypeError(f"There is no incident {name!r}. Known: {', '.join(known)}")
    return name


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, before anything else is started; CommandError when that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise CommandError(f"Cannot listen on {host}: {error}. Choose another --host.") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if family == socket.AF_INET6:  # :: is for both families, as the printed 127.0.0.1 needs
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, UnicodeError) as error:
        listener.close()
        address = f"{in_address(host)}:{port}"
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            sentence = "another program listens there. Choose another port: manage.py demo --port 8001"
        elif isinstance(error, PermissionError):
            sentence = "this user may not. Choose a port from 1024 on: manage.py demo --port 8001"
        else:
            sentence = f"{error}. Choose an address of this machine: manage.py demo --host 127.0.0.1"
        raise CommandError(f"Cannot listen on {address}: {sentence}") from error
    return listener


def in_address(host: str) -> str:
    """The host as it stands in a link and in a Host header."""
    return f"[{host}]" if ":" in host else host


def is_wildcard(listener: socket.socket) -> bool:
    """Does it listen on every address of this machine?"""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_unspecified


def names_of(host: str, listener: socket.socket) -> list[str]:
    """The names a browser reaches the listener by; the first one opens it on this machine.

    A wildcard stands for the names and addresses this machine has, never for any name: else a page from
    elsewhere could give this machine a name of its own, and read and decide through the visitor's browser.
    """
    if not is_wildcard(listener):
        return [in_address(host)]
    machine = socket.gethostname()
    try:
        found = {str(item[4][0]).partition("%")[0] for item in socket.getaddrinfo(machine, None)}
    except OSError:  # a machine that does not know its own name
        found = set()
    names = ["127.0.0.1", "localhost", machine, *(in_address(address) for address in sorted(found))]
    return list(dict.fromkeys(name for name in names if name))


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
    if not scenario and Run.objects.exists():
        return None
    incidents = {item.id: item for item in estate.scenarios()}
    chosen = incidents[scenario] if scenario else next(iter(incidents.values()))
    return actions.start_run(
        question=chosen.alert,
        agent=next(iter(agents.installed())),
        user=user,
        started_by="alert",
        scenario=chosen.id,
    )
