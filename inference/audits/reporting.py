"""Keeps the estimates of an audit: in its folder, and in that of its run, whose report shows them."""

import sys
from typing import Any

import orjson

from inference.audits.audit_folder import ESTIMATES, Audit
from inference.corpus import storage
from inference.runs import report_page, run_folder
from inference.runs.own_files import AUDITS


def keep(audit: Audit, found: dict[str, Any], folder: str) -> None:
    """Write the estimates of an audit, and draw the report of its run again if the run is still there."""
    content = orjson.dumps(found, option=orjson.OPT_INDENT_2)
    storage.write_file(storage.join(folder, ESTIMATES), content)
    try:
        description = run_folder.read(audit.source)
        if description and description["run"] == audit.run:
            storage.write_file(storage.join(audit.source, AUDITS, f"{audit.name}.json"), content)
            print(f"report: {report_page.write(audit.source)}", file=sys.stderr)
    except Exception as error:  # each storage raises its own errors; the estimates are written already
        print(f"warning: the report of {audit.source} does not show them: {error}", file=sys.stderr)
