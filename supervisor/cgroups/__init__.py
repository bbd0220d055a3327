"""A cgroup for each run, where a part of the tree is delegated to us (cgroup v2).

What is known of a run by marks and process groups is known there for certain: who
belongs to it, what it used, that nothing of it is left.  Decides nothing.
"""
