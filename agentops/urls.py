"""All addresses of this installation."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("", include("runs.urls"))]

handler400 = "runs.views.errors.bad_request"
handler403 = "runs.views.errors.permission_denied"
handler404 = "runs.views.errors.page_not_found"
handler500 = "runs.views.errors.server_error"
