"""Build the image that Dataflow's workers run, with trained models in it, or check one.

    python -m inference.container build --model models/trained/ai --tag REGION-docker.pkg.dev/PROJECT/NAME/labelbeam:1

`build` sends the engine the files of labelbeam and of the named models, and no others. It leaves the push to
`docker push`.
"""

import argparse
import sys
from collections.abc import Sequence

from inference.flags import add_model
from models.arguments import Parser
from models.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Build or check an image. Return 0 when done, 1 if the build failed, 2 after wrong use or if a check failed."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> Parser:
    """Return the parser of `inference.container`."""
    parser = Parser("python -m inference.container", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="build|check")
    for name, text in (("build", "Build an image, then check it."), ("check", "Check an image on this machine.")):
        command = commands.add_parser(name, help=text, description=text)
        add_model(command)
        command.add_argument("--tag", required=True, metavar="IMAGE", help="name and tag of the image")
        if name == "build":
            command.add_argument(
                "--gpu",
                action="store_true",
                help="torch for CUDA, without the runtimes for CPUs (default: torch and runtimes for CPUs)",
            )
            command.add_argument(
                "--network", metavar="NAME", help="network of the build, such as host (default: the engine's own)"
            )
            command.add_argument(
                "--build_arg",
                type=_build_arg,
                action="append",
                default=[],
                metavar="NAME=VALUE",
                help="build argument of the Dockerfile; may be repeated",
            )
    return parser


def _build_arg(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, found {text!r}")
    return name, value


def _main(argv: Sequence[str]) -> int:
    flags = make_parser().parse(argv)
    from docker.errors import BuildError

    from inference.dataflow import image_build, images

    directories = image_build.check_models(flags.model, flags.tag)
    with images.engine() as client:
        if flags.command == "build":
            arguments = image_build.arguments(directories, gpu=flags.gpu) | dict(flags.build_arg)
            try:
                image_build.build(client, directories, flags.tag, arguments, flags.network)
            except BuildError as error:
                print(f"the image was not built: {error.msg.strip()}", file=sys.stderr)
                return 1
        image_build.check(client, directories, flags.tag)
        image_build.show_layers(client, flags.tag)
    print(f"{flags.tag}: versions and models equal those of this machine, and so do the scores of the probe texts.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
