"""Tasks that come with the project, one folder per task family."""
