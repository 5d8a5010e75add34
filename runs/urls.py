"""Addresses of the pages. Names are what templates and redirects use."""

from __future__ import annotations

from django.urls import path

from runs.views import approvals, controls, costs, health, history, receipts, runs, sign_in, tickets, workers

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
    path("runs/<uuid:request_id>/steps/<int:step>/receipt.json", receipts.receipt, name="receipt"),
    path("approvals/", approvals.queue, name="approvals"),
    path("approvals/history/", history.history, name="approvals-history"),
    path("approvals/reviewing/", history.reviewing, name="reviewing"),
    path("approvals/history.csv", history.export, {"kind": "csv"}, name="approvals-csv"),
    path("approvals/history.jsonl", history.export, {"kind": "jsonl"}, name="approvals-jsonl"),
    path("approvals/decided/", history.decided, name="approvals-decided"),
    path("approvals/<int:pk>/", approvals.approval, name="approval"),
    path("approvals/<int:pk>/decide/", approvals.decide_view, name="decide"),
    path("costs/", costs.costs, name="costs"),
    path("tickets/", tickets.ticket_list, name="tickets"),
    path("tickets/<str:reference>/", tickets.ticket_page, name="ticket"),
    path("workers/", workers.worker_page, name="workers"),
    path("workers.json", workers.workers_json, name="workers-json"),
    path("healthz", health.healthz, name="healthz"),
    path("sign-in/", sign_in.sign_in, name="sign-in"),
    path("sign-in/<str:token>/", sign_in.sign_in_link, name="sign-in-link"),
    path("sign-out/", sign_in.sign_out, name="sign-out"),
]
