"""Settings of the tests: the real ones, with data of their own, no key and no waiting."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

os.environ.pop("ANTHROPIC_API_KEY", None)
os.environ["AGENTOPS_PACE"] = "0"
os.environ["AGENTOPS_COOLING_OFF_SECONDS"] = "0"  # tests of it say so
os.environ["AGENTOPS_DATA"] = tempfile.mkdtemp(prefix="agentops-tests-")


@atexit.register
def _leave_nothing_behind(owner: int = os.getpid(), folder: str = os.environ["AGENTOPS_DATA"]) -> None:
    if os.getpid() == owner:  # a forked process ends before its parent
        shutil.rmtree(folder, ignore_errors=True)


from agentops.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Threads of a test end before their connection would: none may be kept open for later.
DATABASES["default"]["CONN_MAX_AGE"] = 0  # noqa: F405
