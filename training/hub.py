"""Uploads a trained model to the Hugging Face hub.

The token comes from HF_TOKEN or `hf auth login`, never from a flag.
"""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from models import trained_model
from models.errors import UserError

COMPANIONS = ("README.md", "report.html")  # files that are uploaded beside those that model.json lists


def check(repository: str) -> None:
    """Check before a training that its model can be uploaded: the name of the repository, and the token.

    Raises:
        UserError: the hub refuses one of them, or cannot be reached.
    """
    try:
        validate_repo_id(repository)
        HfApi().whoami()
    except HFValidationError:
        raise UserError(f"--push_to_hub expects USER/NAME or ORGANISATION/NAME, found {repository!r}.") from None
    except LocalTokenNotFoundError:
        raise UserError("--push_to_hub needs a token: set HF_TOKEN, or run `hf auth login`.") from None
    except Exception as error:  # its HTTP library, and so the kind of its errors, changes with the hub's version
        raise UserError(f"--push_to_hub: the hub refused or could not be reached: {_first_line(error)}") from None


def push(directory: Path, repository: str) -> None:
    """Upload the model's files, its card and its report into a repository. A new repository is private.

    Raises:
        UserError: the upload failed; the model in the directory is safe.
    """
    files = [trained_model.MANIFEST, *trained_model.read_manifest(directory).files, *COMPANIONS]
    try:
        api = HfApi()
        url = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=directory, allow_patterns=files, commit_message="labelbeam")
    except Exception as error:  # its HTTP library, and so the kind of its errors, changes with the hub's version
        raise UserError(
            f"--push_to_hub: the model is in {directory}, but its upload failed: {_first_line(error)}; upload it with "
            f"`hf upload {repository} {directory}`."
        ) from None
    print(f"uploaded: {url}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
