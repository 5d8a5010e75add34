"""Addresses of the live connections: the address of the page behind `/live`."""

from __future__ import annotations

from django.urls import path, re_path
from django.urls.resolvers import URLPattern

from runs import consumers, live_list, live_run

websocket_urlpatterns: list[URLPattern] = [
    path("live/", consumers.FrameConsumer.as_asgi()),
    path("live/runs/", live_list.RunListConsumer.as_asgi()),
    path("live/runs/<uuid:request_id>/", live_run.RunConsumer.as_asgi()),
    path("live/approvals/", consumers.QueueConsumer.as_asgi()),
    path("live/budgets/", consumers.BudgetsConsumer.as_asgi()),
    path("live/budgets/<int:pk>/", consumers.BudgetConsumer.as_asgi()),
    path("live/workers/", consumers.WorkersConsumer.as_asgi()),
    re_path(r"", consumers.NoSuchPage.as_asgi()),
]
