"""Decodes image files to upright 8-bit sRGB arrays, without torch, so that a process which only decodes starts fast.

Each container format has a module of its own. It first reads the file's structure, in time linear in its bytes, and
refuses a file that needs more work than its pixels do. The decoder gets only the pixel data. Metadata is read here;
damaged metadata is ignored.
"""
