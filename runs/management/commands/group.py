"""manage.py group"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runs import actions
from runs.management.startup import prepare_database


class Command(BaseCommand):
    help = "Show a group of people, make it, and change who is in it. Rules call groups roles."

    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The group, and what changes."""
        parser.add_argument("name", metavar="GROUP")
        parser.add_argument("--add", metavar="USER", nargs="+", default=[], help="who joins it")
        parser.add_argument("--remove", metavar="USER", nargs="+", default=[], help="who leaves it")
        parser.add_argument(
            "--allow", metavar="PERMISSION", nargs="+", default=[], help="what its members may do: decide, …"
        )

    def handle(
        self, *args: Any, name: str, add: list[str], remove: list[str], allow: list[str], **options: Any
    ) -> None:
        """Change it and print its members; a sentence and status 1 when that cannot be."""
        prepare_database()
        try:
            members = actions.change_group(name, add=add, remove=remove, allow=allow)
        except actions.ActionError as error:
            raise CommandError(str(error)) from error
        for member in members:
            self.stdout.write(member.name + ("" if member.may_decide else " (lacks the permission decide)"))
        if not members:
            self.stdout.write(f"Nobody is in {name}.")
