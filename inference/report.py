"""Draws report.html, one page on a run, from what its folder holds; also of a run that has not ended.

python -m inference.report runs/ai
python -m inference.report gs://mine/runs/ai --actual JOB_ID --project mine --region europe-west4
"""

import sys
from collections.abc import Sequence

from inference.flags import BeamParser
from models.errors import UserError, exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report of a run and print its path. Return 0 done, 2 no such run."""
    return exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def make_parser() -> BeamParser:
    """Return the parser of `inference.report`."""
    parser = BeamParser("python -m inference.report", __doc__)
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument("--actual", metavar="JOB_ID", help="a finished job on Dataflow, whose cost the page shows")
    return parser


def _run(argv: Sequence[str]) -> None:
    flags, beam_flags = make_parser().parse_with_beam(argv)
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    from inference.corpus import storage
    from inference.runs import report_page

    cloud = storage.configure(beam_flags).view_as(GoogleCloudOptions)
    paid = None
    if flags.actual:
        from inference.cost import actual, pricing

        if not (cloud.project and cloud.region):
            raise UserError("--actual: expected --project and --region of the job as well; add them.")
        paid = actual.bill(*actual.fetch(cloud.project, cloud.region, flags.actual), pricing.load_prices())
    print(report_page.write(flags.run, paid.as_dict() if paid else None))


if __name__ == "__main__":
    sys.exit(main())
