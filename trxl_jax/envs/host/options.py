"""Reset options that remember which of them an environment has read."""

from collections.abc import Iterator
from typing import Any


class WatchedOptions(dict[str, Any]):
    """A dict that remembers which of its items were read.

    Fields:
        unread: keys of the items that were not.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self.unread = set(options)

    def __getitem__(self, key: str) -> Any:
        self.unread.discard(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.unread.discard(str(key))
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        self.unread.clear()
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        """As that of a dict."""
        self.unread.discard(key)
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        """As that of a dict."""
        self.unread.discard(key)
        return super().pop(key, *default)

    def keys(self) -> Any:
        """As that of a dict."""
        self.unread.clear()
        return super().keys()

    def values(self) -> Any:
        """As that of a dict."""
        self.unread.clear()
        return super().values()

    def items(self) -> Any:
        """As that of a dict."""
        self.unread.clear()
        return super().items()

    def copy(self) -> dict[str, Any]:
        """As that of a dict."""
        return dict(self)
