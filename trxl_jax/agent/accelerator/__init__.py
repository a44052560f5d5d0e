"""Formulations for GPUs and TPUs: fewer, larger kernels. They run everywhere, and compute what the others do."""
