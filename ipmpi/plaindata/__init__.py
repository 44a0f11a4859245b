"""Unpickling that makes nothing but plain data, arrays and exceptions, whatever is in the pickle.

A pickle is a program: it names functions and classes, and calls them. Here a name is looked up in a table. Most
entries are not called themselves, but through a function that checks the arguments: numpy's own take descriptions
of memory that need not be true, and some classes would make objects of any size. Whatever else can change an
object (attributes, state) is refused, except for exceptions and for what the user has allowed.

Opcodes are interpreted by the unpickler in Python of the standard library, since the one in C offers no way to
look at calls and states. So it takes about half a microsecond for each small object; a large array is one object.
"""
