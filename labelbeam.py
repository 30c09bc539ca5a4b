"""Run one of the project's commands: `labelbeam COMMAND ...`. Without a command, list them all.

Each command is a module, so `labelbeam label --help` and `python -m inference.beam_runner --help` print the same text.

This module also decides which `models`, `training` and `inference` Python imports. A working folder often holds
folders of these names, and Python would import them instead of the installed packages. Therefore `labelbeam.pth`,
installed beside the packages, calls `claim_names` whenever Python starts. It acts only in the processes of our
commands. `inference` calls it too, so that a notebook that imports `inference` gets the package beside it.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder

COMMANDS = {
    "prepare": ("training.prepare", "read labelled data, split it, and describe it"),
    "train": ("training.train", "train a classifier and evaluate it"),
    "fetch": ("training.fetch", "fetch a base model and data from the Hugging Face hub"),
    "suspects": ("training.suspects", "list the labels of a data set that look wrong"),
    "evaluate": ("training.evaluate", "measure a trained model on labelled files"),
    "compare_models": ("training.compare", "say whether one trained model is better than another"),
    "decide": ("training.decide", "fit a model's thresholds and calibration to labelled files"),
    "distill": ("training.distill", "train a small model on what a large one says of texts"),
    "sweep": ("training.sweep", "search for better training settings"),
    "import": ("training.to_state_dict", "turn a classifier of the Hugging Face hub into a trained model"),
    "peek": ("inference.peek", "look at a sample of a corpus"),
    "label": ("inference.beam_runner", "label a corpus with Apache Beam, on this machine or on Dataflow"),
    "worker": ("inference.worker", "label a corpus as one of many tasks that share a folder"),
    "run": ("inference.run", "label a stream of JSON lines without Beam"),
    "report": ("inference.report", "draw the report of a run"),
    "verify": ("inference.verify", "check every line and file of a run against its receipts"),
    "compare": ("inference.compare", "show which labels differ between two runs"),
    "audit": ("inference.audit", "count a label in a corpus from a few labels given by hand"),
    "delta": ("inference.delta", "find the documents to relabel since an earlier run"),
    "collect": ("inference.collect", "write the labels of a whole corpus into one folder"),
    "export": ("inference.export", "write a run and its input as one table"),
    "cost": ("inference.estimate_cost", "estimate the time and the price of a run"),
    "optimize": ("inference.optimize", "make the int8 variant of a model, and prove that it is as good"),
    "container": ("inference.container", "build or check the image of Dataflow's workers"),
    "doctor": ("inference.doctor", "show what this machine can do and what is wrong"),
}
MODULES = {module for module, _ in COMMANDS.values()} | {"training.demo_corpus", "inference.probe"}
PACKAGES = ("models", "training", "inference")
MARK = "LABELBEAM_PROCESS"  # environment variable that marks our commands and the processes that they start


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Return its exit code, or 2 if there is no such command."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: labelbeam COMMAND [flags]\n")
        print("\n".join(f"  {name:<10} {help_text}" for name, (_, help_text) in COMMANDS.items()))
        print("\n`labelbeam COMMAND --help` lists the flags of a command.")
        return 0
    if argv[0] not in COMMANDS:
        return _refuse(argv[0])
    claim_names(always=True)
    # Every start of Python imports this module, so imports that cost time wait until they are needed.
    from importlib import import_module

    return import_module(COMMANDS[argv[0]][0]).main(argv[1:])


def _refuse(command: str) -> int:
    from difflib import get_close_matches

    close = get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(COMMANDS)}."
    print(f"error: unknown command {command}: {hint}", file=sys.stderr)
    return 2


def claim_names(*, always: bool = False) -> None:
    """Make the packages' names mean the installed packages, in a process of ours and in those that it starts."""
    if not (always or MARK in os.environ or _runs_a_command(sys.orig_argv)):
        return
    os.environ[MARK] = "1"
    if not any(isinstance(finder, _Installed) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Installed())


def _runs_a_command(argv: Sequence[str]) -> bool:
    """Return whether Python was started as `python -m COMMAND`."""
    return any(option == "-m" and module in MODULES for option, module in zip(argv, argv[1:], strict=False))


class _Installed:
    """A finder that finds the packages beside this module, before any other finder is asked."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Return the location of a package, or None for any other name."""
        return PathFinder.find_spec(name, [os.path.dirname(os.path.abspath(__file__))]) if name in PACKAGES else None


if __name__ == "__main__":
    sys.exit(main())
