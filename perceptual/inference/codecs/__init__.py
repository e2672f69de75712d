"""Encoded bytes to upright 8-bit sRGB arrays; no torch, so that a process which only decodes starts at once.

Each container has a module of its own. It reads the structure first, in time linear in the bytes, refuses what asks for
more work than its pixels need, and hands to the decoder nothing but those pixels: metadata is read here, and what
cannot be read of it is as if it were not there.
"""
