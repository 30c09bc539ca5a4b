"""Uploads a trained model to the Hugging Face hub.

Beside the files of the model, the repository gets model.safetensors in the hub's own names, so that
transformers.pipeline loads it. The token comes from HF_TOKEN or `hf auth login`, never from a flag.
"""

import tempfile
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from models import trained_model, weights
from models.errors import UserError
from models.network import StockClassifier
from training import hub_access

README = "README.md"
REPORT = "report.html"  # it shows texts: the worst errors


def check(repository: str) -> None:
    """Check before a training that its model can be uploaded: the name of the repository, and the token.

    Raises:
        UserError: the hub refuses one of them, or cannot be reached.
    """
    try:
        validate_repo_id(repository)
        api = HfApi()
        if problem := hub_access.unreachable(api.endpoint):
            raise OSError(problem)
        api.whoami()
    except HFValidationError:
        raise UserError(f"--push_to_hub expects USER/NAME or ORGANISATION/NAME, found {repository!r}.") from None
    except LocalTokenNotFoundError:
        raise UserError("--push_to_hub needs a token: set HF_TOKEN, or run `hf auth login`.") from None
    except Exception as error:  # its HTTP library, and so the kind of its errors, changes with the hub's version
        raise UserError(f"--push_to_hub: the hub refused or could not be reached: {_first_line(error)}") from None


def push(directory: Path, repository: str, *, texts: bool = False) -> None:
    """Upload the model's files and its card into a repository. A new repository is private.

    A second upload sends only what changed. No file that holds texts is sent, unless `texts` asks for the report.

    Raises:
        UserError: the upload failed; the model in the directory is safe.
    """
    files = [trained_model.MANIFEST, *trained_model.read_manifest(directory).files, README, *([REPORT] * texts)]
    try:
        api = HfApi()
        url = api.create_repo(repository, private=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="labelbeam_hub_") as name:
            folder = Path(name)
            _save_for_transformers(directory, folder)
            for file in files:
                if (directory / file).is_file():
                    (folder / file).unlink(missing_ok=True)
                    (folder / file).symlink_to((directory / file).resolve())
            api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="labelbeam")
    except Exception as error:  # its HTTP library, and so the kind of its errors, changes with the hub's version
        raise UserError(
            f"--push_to_hub: the model is in {directory}, but its upload failed: {_first_line(error)}; the same "
            "command uploads it again (training.train needs --resume)."
        ) from None
    print(f"uploaded: {url}")


def _save_for_transformers(directory: Path, folder: Path) -> None:
    """Write the weights as transformers loads them. Its classes have no pooling of ours, so such models have none."""
    network = weights.load(directory).network
    if isinstance(network, StockClassifier):
        network.model.save_pretrained(folder)
    else:
        print("transformers.pipeline cannot load this model, because its head pools tokens (model.pooling).")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
