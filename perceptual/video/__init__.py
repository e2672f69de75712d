"""Video: clips in, clips out, frame by frame through a predictor; needs the extra ``video``.

The way of a frame: a clip (``clips``: a video file, an animation, a folder) gives frames, ``steady`` finds how they
move, the predictor makes pictures of them, and a sink (``sinks``) encodes these beside the packets of sound and
subtitles, which are copied. Each stretch has its own thread; ``conversion`` joins them.
"""
