"""The files that a program sees: the tree that it was granted, and what it has made of it.

open files    openfile (what every kind of file can do), pipes, devices
trees         hosttree (granted by the host), madetree (made by programs and by the machine)
names         names, namespace (what a program has bound where)
"""
