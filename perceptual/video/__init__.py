"""Converts videos with a predictor, frame by frame; needs the extra ``video``.

A clip (``clips``: a video file, an animation or a folder of images) decodes frames; the predictor, with ``steady``
against flicker, converts them; a sink (``sinks``) encodes the results and copies the packets of sound and subtitles.
These three stages run in parallel, in threads that ``conversion`` connects.
"""
