"""What runs in a worker process of `tasks.simulators.pool`: foreign environments, stepped on numpy arrays.

Nothing here imports torch, nor anything of `tasks` outside this folder, which would: that takes seconds of every
worker's start and a few hundred megabytes of its memory. Imports are relative, as a worker knows this folder by another
name (`tasks.simulators.pool.BEGIN`).
"""
