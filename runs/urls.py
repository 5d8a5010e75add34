"""Addresses of the pages. Names are what templates and redirects use."""

from __future__ import annotations

from django.urls import path

from runs.views import approvals, budgets, controls, costs, health, outcomes, runs, sign_in, tickets, workers

urlpatterns = [
    path("", runs.run_list, name="runs"),
    path("runs/new", runs.run_new, name="run-new"),
    path("runs/<uuid:request_id>/", runs.run_page, name="run"),
    path("runs/<uuid:request_id>/cancel", controls.cancel, name="run-cancel"),
    path("runs/<uuid:request_id>/pause", controls.pause, name="run-pause"),
    path("runs/<uuid:request_id>/resume", controls.resume, name="run-resume"),
    path("runs/<uuid:request_id>/retry", controls.retry, name="run-retry"),
    path("runs/<uuid:request_id>/fork", controls.fork, name="run-fork"),
    path("runs/<uuid:request_id>/ask", controls.ask, name="run-ask"),
    path("runs/<uuid:request_id>.json", runs.run_json, name="run-json"),
    path("approvals/", approvals.queue, name="approvals"),
    path("approvals/decided/", approvals.decided, name="approvals-decided"),
    path("approvals/unknown/", outcomes.lane, name="outcomes"),
    path("approvals/unknown/<int:pk>/", outcomes.outcome, name="outcome"),
    path("approvals/unknown/<int:pk>/resolve/", outcomes.resolve, name="resolve"),
    path("approvals/<int:pk>/", approvals.approval, name="approval"),
    path("approvals/<int:pk>/decide/", approvals.decide_view, name="decide"),
    path("costs/", costs.costs, name="costs"),
    path("budgets/", budgets.budgets, name="budgets"),
    path("budgets/set", budgets.budget_set, name="budget-set"),
    path("budgets/<int:pk>/remove", budgets.budget_remove, name="budget-remove"),
    path("tickets/", tickets.ticket_list, name="tickets"),
    path("tickets/<str:reference>/", tickets.ticket_page, name="ticket"),
    path("workers/", workers.worker_page, name="workers"),
    path("workers.json", workers.workers_json, name="workers-json"),
    path("healthz", health.healthz, name="healthz"),
    path("sign-in/", sign_in.sign_in, name="sign-in"),
    path("sign-in/<str:token>/", sign_in.sign_in_link, name="sign-in-link"),
    path("sign-out/", sign_in.sign_out, name="sign-out"),
]
