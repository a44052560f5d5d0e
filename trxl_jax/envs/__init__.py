"""Environments: the contract, and what fulfils it."""
