"""Agents on the Hugging Face hub, or in a local folder that stands for a repository."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trxl_jax.errors import UserError

INSTALL = "pip install huggingface-hub"


def download(repo: str, name: str = "") -> Path:
    """Downloads a file of a repository, or all of it, unless it is in the local cache.

    Args:
        repo: repository on the hub, owner/name; or a local folder, from which nothing is downloaded.
        name: path of the file in the repository; empty: the whole of it.

    Returns:
        Local path of the file or folder.

    Raises:
        UserError: huggingface-hub isn't installed, the hub can't be reached, or there is no such file.
    """
    if Path(repo).is_dir():
        return Path(repo, name)
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError:
        raise UserError(f"--hub needs huggingface-hub: {INSTALL}") from None
    try:
        return Path(hf_hub_download(repo, name) if name else snapshot_download(repo))
    except LocalEntryNotFoundError:
        raise UserError(
            f"--hub: can't reach the hub, and {name or repo} was not downloaded before; go online, or give a local file"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(f"--repo {repo}: there is no such repository on the hub, or it is private") from None
    except EntryNotFoundError:
        raise UserError(
            f"--name {name}: {repo} has no such file; see https://huggingface.co/{repo}/tree/main"
        ) from None
    except (OSError, ValueError) as error:  # HTTP errors and invalid names
        raise UserError(f"--hub: can't download {name} from {repo}: {' '.join(str(error).split())}") from None


def upload(folder: Path, repo: str, *, private: bool = False) -> str:
    """Uploads a folder to a repository, which is created if it doesn't exist.

    Args:
        folder: its files are uploaded.
        repo: owner/name.
        private: whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        UserError: huggingface-hub isn't installed, the hub can't be reached, or it refuses.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise UserError(f"--repo needs huggingface-hub: {INSTALL}; {folder} is complete") from None
    api: Any = HfApi()
    address = _attempt(lambda: api.create_repo(repo, private=private, exist_ok=True), folder, repo)
    _attempt(lambda: api.upload_folder(repo_id=repo, folder_path=folder), folder, repo)
    return str(address)


def _attempt(call: Callable[[], Any], folder: Path, repo: str) -> Any:
    try:
        return call()
    except (OSError, ValueError) as error:  # HTTP errors, invalid names, and no token
        reason = " ".join(str(error).split())
        raise UserError(
            f"--repo {repo}: can't upload ({reason}); {folder} is complete: log in with `hf auth login` and repeat, or "
            f"type `hf upload {repo} {folder}`"
        ) from None
