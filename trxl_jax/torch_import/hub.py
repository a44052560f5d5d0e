"""Downloads checkpoints from the Hugging Face hub."""

from pathlib import Path

from trxl_jax.errors import UserError


def download(repo: str, name: str) -> Path:
    """Downloads a file unless it is in the local cache.

    Args:
        repo: repository on the hub, owner/name.
        name: path of the file in the repository.

    Returns:
        Local path of the file.

    Raises:
        UserError: huggingface-hub isn't installed, the hub can't be reached, or there is no such file.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError:
        raise UserError("--hub needs huggingface-hub: pip install huggingface-hub") from None
    try:
        return Path(hf_hub_download(repo, name))
    except LocalEntryNotFoundError:
        raise UserError(
            f"--hub: can't reach the hub, and {name} was not downloaded before; go online, or give a local file"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(f"--repo {repo}: there is no such repository on the hub, or it is private") from None
    except EntryNotFoundError:
        raise UserError(
            f"--name {name}: {repo} has no such file; see https://huggingface.co/{repo}/tree/main"
        ) from None
    except (OSError, ValueError) as error:  # HTTP errors and invalid names
        raise UserError(f"--hub: can't download {name} from {repo}: {' '.join(str(error).split())}") from None
