"""What may stand between encoder and heads: memories."""
