"""manage.py budget"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from runs import actions
from runs.management.startup import operating_system_user, prepare_database
from runs.models import AtLimit, Budget, Period, Scope
from runs.reading.budgets import BudgetLine, read_budgets


class Command(BaseCommand):
    help = "Budgets that runs share: list, set, remove."
    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """A sub-command for each thing that can be done; which budget it is about is said the same way."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        verbs.add_parser("list", help="each budget with what is spent of it")
        for verb, help in (("set", "add a budget or change its limits"), ("remove", "limit this no longer")):
            one = verbs.add_parser(verb, help=help)
            whose = one.add_mutually_exclusive_group()
            whose.add_argument("--agent", default="", help="for this agent; without, for the installation")
            whose.add_argument("--user", default="", help="for the runs that this user started")
            whose.add_argument("--tag", default="", help="for the runs with this tag")
            one.add_argument("--period", choices=Period.values, default=Period.MONTH)
            one.add_argument("--tool", default="", help="only calls of this tool")
            if verb == "set":
                one.add_argument("--cost-usd", default="", metavar="USD", help="such as 50 or 2.50")
                one.add_argument("--tokens", default="", metavar="NUMBER")
                one.add_argument("--tool-calls", default="", metavar="NUMBER")
                one.add_argument("--at-limit", choices=AtLimit.values, default=AtLimit.WRAP_UP)
                one.add_argument(
                    "--notify-at",
                    default=None,
                    metavar="PERCENTS",
                    help="when people are told, such as 50,80,100, which is usual; empty: never",
                )

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        """Act and say what holds now; exit status 1 when it does not apply."""
        prepare_database()
        try:
            if verb == "set":
                _set(options)
            elif verb == "remove":
                title = actions.remove_budget(
                    budget_id=_find(options).pk, actor=operating_system_user().get_username()
                )
                self.stdout.write(f"The budget {title} is removed.")
        except actions.ActionError as error:
            raise CommandError(str(error)) from error
        lines = read_budgets(simulated=not settings.ANTHROPIC_API_KEY, now=timezone.now())
        for line in lines:
            self.stdout.write(_described(line))
        if not lines:
            self.stdout.write("There are no budgets. Set one: manage.py budget set --cost-usd 50")


def _set(options: dict[str, Any]) -> None:
    names = ("cost_usd", "tokens", "tool_calls")
    actions.set_budget(
        actor=operating_system_user().get_username(),
        scope=_scope(options),
        agent=options["agent"],
        user=options["user"],
        tag=options["tag"],
        period=options["period"],
        tool=options["tool"],
        limits={name: options[name] for name in names},
        at_limit=options["at_limit"],
        thresholds=options["notify_at"],
    )


def _scope(options: dict[str, Any]) -> Scope:
    return next((one for one in (Scope.AGENT, Scope.USER, Scope.TAG) if options[one]), Scope.INSTALLATION)


def _find(options: dict[str, Any]) -> Budget:
    """The budget that the options name; raises UnknownBudget."""
    key = {name: options[name] for name in ("agent", "period", "tool")}
    key |= {"tag": options["tag"].strip().lower(), "scope": _scope(options)}
    if options["user"]:
        key["user__username"] = options["user"]
    budget = Budget.objects.filter(**key).first()
    if budget is None:
        raise actions.UnknownBudget("There is no such budget. See manage.py budget list.")
    return budget


def _described(line: BudgetLine) -> str:
    """One line of the list."""
    parts = [
        f"{meter.name.lower()} {meter.used} of {meter.limit}"
        + (f" ({meter.reserved} held by calls under way)" if meter.reserved else "")
        for meter in line.meters
    ]
    waits = f", {line.paused_count} paused" if line.paused_count else ""
    return f"{line.budget.title}: {', '.join(parts)}; at the limit {line.at_limit.lower()}{waits}"
