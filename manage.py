#!/usr/bin/env python
"""Django's command line: `python manage.py help` lists what it can do."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line


def main() -> None:
    """Run the command; what is wrong with the settings is a sentence, not a traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentops.settings")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its code instead of an error.
        stream.reconfigure(errors="backslashreplace")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"agentops cannot start: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
