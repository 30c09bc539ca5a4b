"""Draw report.html, one page about a run, from the files in its folder. The run may still be unfinished.

python -m inference.report runs/ai
python -m inference.report gs://mine/runs/ai --actual JOB_ID --project mine --region europe-west4
"""

import sys
from collections.abc import Sequence

from inference.flags import BeamParser
from models import paths
from models.errors import UserError, exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report of a run and print its path. Return 0 when done, 2 if there is no such run."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> BeamParser:
    """Return the parser of `inference.report`."""
    parser = BeamParser("python -m inference.report", __doc__)
    parser.add_argument("run", type=paths.anywhere, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--actual", metavar="JOB_ID", help="finished Dataflow job whose cost the page shows (default: none)"
    )
    return parser


def _main(argv: Sequence[str]) -> None:
    flags, beam_flags = make_parser().parse_with_beam(argv)
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    from inference.corpus import storage
    from inference.runs import report_page

    cloud = storage.configure(beam_flags).view_as(GoogleCloudOptions)
    bill = None
    if flags.actual:
        from inference.cost import actual, pricing

        if not (cloud.project and cloud.region):
            raise UserError("--actual: expected --project and --region of the job as well; add them.")
        bill = actual.bill(*actual.fetch(cloud.project, cloud.region, flags.actual), pricing.load_prices())
    print(report_page.write(flags.run, bill.as_dict() if bill else None))


if __name__ == "__main__":
    sys.exit(main())
