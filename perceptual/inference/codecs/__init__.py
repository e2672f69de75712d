"""Decodes image files to upright 8-bit sRGB arrays. Without torch, so that a process for decoding starts fast.

Each container format has a module of its own. It first reads the file's structure, in time linear in its bytes, and
refuses a file that would take much more work than its pixels need. The decoder gets only the pixel data. Metadata is
read here; damaged metadata is ignored.
"""
