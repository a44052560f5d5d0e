"""Docstrings of this project as mkdocstrings reads them."""

import re
from typing import Any

import griffe


class FieldsAreAttributes(griffe.Extension):
    """Shows a docstring's `Fields:` as the table of attributes that Google's style calls `Attributes:`."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Renames the section."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Fields:$", r"\1Attributes:", obj.docstring.value, flags=re.MULTILINE)
