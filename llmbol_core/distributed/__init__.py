"""Compute nodes, placement, tasks and their ledger, on Dask.

for users     vm, node, task (its life as a table), scheduler, async_scheduler, client
decisions     strategies, dispatcher, actions, teams (without I/O, clock or chance)
broker        broker, door, operations, fleet, coach, journal, ledger, results, store, telemetry
nodes         worker, jobs, parcels, arrays, excerpt, training, processes, remotes, agent
large inputs  splitting, ahead
transport     engine (the only door to Dask), settings, wire, security, invitations
clusters      control, guardian, state, logs, report, dashboard, rendering
"""
