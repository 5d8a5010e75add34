"""manage.py signinlink"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from runs import actions
from runs.management.startup import prepare_database

LOCAL = "http://127.0.0.1:8000"  # where the commands of the manual start the web process


class Command(BaseCommand):
    help = "Print an address that signs a user in once, within twelve hours."

    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Who, and where agentops is reached."""
        parser.add_argument("username")
        parser.add_argument(
            "--base-url",
            default=settings.AGENTOPS_URL or LOCAL,
            help=f"where agentops is reached; without, AGENTOPS_URL, and else {LOCAL}",
        )

    def handle(self, *args: Any, username: str, base_url: str, **options: Any) -> None:
        """Make the link."""
        prepare_database()
        user = User.objects.filter(username=username, is_active=True).first()
        if user is None:
            raise CommandError(
                f"There is no active user {username!r}. Make one with: manage.py createsuperuser"
            )
        token = actions.make_sign_in_link(user)
        self.stdout.write(base_url.rstrip("/") + reverse("sign-in-link", args=[token]))
