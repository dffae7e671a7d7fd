"""Compute nodes, placement, tasks and their ledger, on Dask."""
