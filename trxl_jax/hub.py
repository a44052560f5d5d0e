"""Agents on the Hugging Face hub, or in a local folder that stands for a repository."""

import shlex
from collections.abc import Sequence
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
    except Exception as error:  # a lost connection, a refusal, an invalid name: each library raises its own kinds
        what = f"{name} from {repo}" if name else repo
        raise UserError(f"--hub: can't download {what}: {' '.join(str(error).split())}") from None


def upload(folder: Path, repo: str, *, private: bool = False, delete: Sequence[str] = ()) -> str:
    """Uploads a folder to a repository, which is created if it doesn't exist.

    Args:
        folder: its files are uploaded.
        repo: owner/name.
        private: whether a new repository is private.
        delete: patterns of files in the repository that are removed unless the folder has them too.

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
    options = ["--private"] * private + [word for pattern in delete for word in ("--delete", pattern)]
    command = shlex.join(["hf", "upload", repo, str(folder), *options])
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, delete_patterns=list(delete))
    except Exception as error:  # as above, and no token
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"--repo {repo}: can't upload ({reason}); {folder} is complete: go online, log in with `hf auth login`, "
            f"and type `{command}`"
        ) from None
    return str(address)
