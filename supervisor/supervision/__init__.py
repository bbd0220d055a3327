"""Kernels under supervision inside any asyncio program; the daemon is one."""
