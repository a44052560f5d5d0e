"""Tasks that come with the project, one file or folder a family."""
